"""The recordings table in numbers: who, how long, how fine, and what is not known."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ...config import Config
from .bars import histogram

#: Rows and columns of the page's tables, at most.
_MOST = 12
#: Column of the recordings table -> what it is called on the page; those of raw runs alone.
_RAW = {
    "t1w": "T1w",
    "slice_timing": "slice timing",
    "pe_direction": "phase-encoding direction",
    "total_readout_time": "total readout time",
    "fmap_kind": "field map",
}
_ALL = {"tr": "repetition time", "n_volumes": "number of volumes", "shape": "shape of a volume"}


@dataclass(frozen=True)
class Group:
    """Recordings that have something in common."""

    name: str
    recordings: int
    eligible: int
    subjects: int


def tiles(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """The cohort at a glance: number, what it is, more."""
    eligible = table[table["eligible"]]
    hours = float((eligible["tr"] * eligible["n_volumes"]).sum()) / 3600
    sessions = table[["subject", "session"]].drop_duplicates()
    named = int(sessions["session"].notna().sum())
    out = len(table) - len(eligible)
    return [
        (f"{len(table):,}", "recordings", f"{len(eligible):,} eligible, {out:,} not"),
        (
            f"{table['subject'].nunique():,}",
            "subjects",
            f"{eligible['subject'].nunique():,} with an eligible recording",
        ),
        (f"{len(sessions):,}", "sessions", f"{named:,} of them named"),
        (_count(table["site"]), "sites", _first_of(table["site"])),
        (_count(table["task"]), "tasks", _first_of(table["task"])),
        (f"{hours:,.1f}", "hours of data", "of eligible recordings"),
    ]


def _count(values: pd.Series) -> str:
    return f"{values.nunique():,}" if values.notna().any() else "?"


def _first_of(values: pd.Series) -> str:
    names = values.dropna().value_counts().index.tolist()
    shown = ", ".join(map(str, names[:3]))
    return f"{shown}, …" if len(names) > 3 else shown or "not told"


def groups(table: pd.DataFrame, column: str) -> list[Group]:
    """The recordings by a column, the largest groups first, the rest together."""
    names = table[column].fillna("not told")
    order = names.value_counts()
    kept = set(sorted(order.index, key=lambda name: (-order[name], str(name)))[:_MOST])
    names = names.where(names.isin(kept), f"{len(order) - len(kept)} others")
    found = [
        Group(
            str(name),
            len(rows),
            int(rows["eligible"].sum()),
            int(rows["subject"].nunique()),
        )
        for name, rows in table.groupby(names, sort=True)
    ]
    return sorted(found, key=lambda group: (group.name.endswith(" others"), -group.recordings))


def histograms(table: pd.DataFrame, config: Config) -> list[dict[str, Any]]:
    """TR, length and voxel size of all recordings."""
    included = table["eligible"].to_numpy(bool)
    tr = table["tr"].to_numpy(float, na_value=np.nan)
    volumes = table["n_volumes"].to_numpy(float, na_value=np.nan)
    limits = config.eligibility
    zooms = table["zooms"].map(_mean_zoom).to_numpy(float)
    asked = [
        ("Repetition time", "s", np.round(tr, 4), (limits.tr_min, limits.tr_max)),
        ("Length in volumes", "volumes", volumes, (limits.min_volumes,)),
        ("Length in time", "minutes", tr * volumes / 60, ()),
        ("Voxel size", "mm, mean of the three edges", np.round(zooms, 2), ()),
    ]
    return [
        {"title": title, "unit": unit, "chart": histogram(values, included, unit, marks)}
        for title, unit, values, marks in asked
        if np.isfinite(values).any()
    ]


def shapes(table: pd.DataFrame) -> list[Group]:
    """Recordings by shape and voxel size of a volume."""
    known = table[table["shape"].notna()]
    text = known["shape"].map(_times) + known["zooms"].map(
        lambda zooms: f" at {_times(zooms)} mm" if isinstance(zooms, str) else ""
    )
    return groups(known.assign(_shape=text), "_shape") if len(known) else []


def _times(text: str) -> str:
    return " x ".join(f"{number:g}" for number in json.loads(text))


def _mean_zoom(zooms: Any) -> float:
    if not isinstance(zooms, str):
        return float("nan")
    edges = json.loads(zooms)[:3]
    return float(np.cbrt(np.prod(edges))) if edges else float("nan")


def missing(table: pd.DataFrame) -> dict[str, Any]:
    """For each piece of metadata and each site (or task), the share of recordings without it."""
    by = "site" if table["site"].nunique() > 1 else "task"
    raw = table["kind"].isna().all()
    names = {**(_RAW if raw else {}), **_ALL}
    names |= {
        column: what for column, what in (("site", "site"), ("session", "session")) if column != by
    }
    columns = [group.name for group in groups(table, by)]
    told = table[by].fillna("not told")
    rest = next((name for name in columns if name.endswith(" others")), None)
    where = told.where(told.isin(columns), rest) if rest else told
    rows = []
    for column, what in names.items():
        absent = table[column].isna()
        per = absent.groupby(where).mean()
        shares = [float(per[name]) for name in columns]
        rows.append({"what": what, "all": float(absent.mean()), "shares": shares})
    return {"by": by, "columns": columns, "rows": rows}
