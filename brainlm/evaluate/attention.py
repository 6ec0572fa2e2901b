"""What the model attends to: the map of CLS over parcels, in people and between groups of them.

A map is told in shares of an even look: 1 where a parcel gets as much attention as the mean parcel
with data. So maps of recordings with other parcels missing compare, and what CLS gives to itself
does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..model.mae import MaskedAutoencoder
from ..shards.reader import ShardReader
from ..train.masking import NETWORK_COLUMN
from .attention_contrasts import Contrast, compare
from .attention_recordings import mean_attention, signal_of
from .attention_tests import Tested
from .cohorts import cohorts_of
from .paired import holm
from .statistics import mean_with_ci
from .units import added_up, told_units, units_of, units_of_subjects

Floats = NDArray[np.float64]

#: Column of the recordings' mean framewise displacement, mm.
MOTION = "mean_fd"


@dataclass(frozen=True, eq=False)
class AttentionResult:
    """Numbers of the groups, and the maps they are made from."""

    metrics: dict[str, Any]
    maps: pd.DataFrame  # recording_id, subject, a column for each parcel


def cls_maps(
    model: MaskedAutoencoder,
    reader: ShardReader,
    names: Sequence[str],
    layer: int | str,
    progress: Callable[[Sequence[str]], Iterator[str]] = iter,
) -> pd.DataFrame:
    """The map of each recording, (recordings, parcels), heads and windows averaged."""
    parcels = reader.parcels["name"].astype(str).tolist()
    rows = []
    for name in progress(names):
        found = mean_attention(model, signal_of(model, reader, name), "cls", layer)
        rows.append(found / np.nanmean(found))
    return pd.DataFrame(np.array(rows), index=pd.Index(names, name="recording_id"), columns=parcels)


def describe_attention(
    reader: ShardReader,
    maps: pd.DataFrame,
    contrasts: Sequence[Contrast],
    *,
    adjust_motion: bool,
    draws: int,
    bootstrap: int,
    seed: int,
) -> AttentionResult:
    """Mean maps of cohorts, networks' shares, and contrasts between groups."""
    table = reader.table.loc[maps.index].copy()
    parcels = list(maps.columns)
    groups = networks_of(reader.parcels)
    by_network = pd.DataFrame(
        {name: maps.iloc[:, rows].mean(axis=1) for name, rows in groups.items()}, index=maps.index
    )
    adjust = [MOTION] if adjust_motion and MOTION in table else []
    adjust += _datasets(table)
    metrics = {
        "parcels": parcels,
        "n_recordings": len(maps),
        "n_subjects": int(table["subject"].nunique()),
        **told_units(table["subject"].nunique(), units_of(table)),
        "cohorts": [
            {
                "cohort": cohort.name,
                "external": cohort.external,
                "n_recordings": len(cohort.recordings),
                "n_subjects": int(table.loc[list(cohort.recordings), "subject"].nunique()),
                "mean": _listed(_subject_means(maps, table, cohort.recordings).mean().to_numpy()),
                "networks": _network_means(
                    _subject_means(by_network, table, cohort.recordings), table, bootstrap, seed
                ),
            }
            for cohort in cohorts_of(reader, list(maps.index))
        ],
        "contrasts": [
            _contrast(contrast, table, maps, by_network, adjust, draws, seed)
            for contrast in contrasts
        ],
        "bootstrap": bootstrap,
        "seed": seed,
    }
    told = maps.astype(np.float32).reset_index()
    told.insert(1, "subject", table["subject"].astype(str).to_numpy())
    return AttentionResult(metrics, told)


def networks_of(parcels: pd.DataFrame) -> dict[str, list[int]]:
    """Network -> its parcels' rows; those of none by their structure, where it is told."""
    if NETWORK_COLUMN not in parcels:
        return {}
    name = parcels[NETWORK_COLUMN]
    if "structure" in parcels:
        name = name.fillna(parcels["structure"].where(parcels["structure"] != "cortex"))
    known = name.reset_index(drop=True).dropna().astype(str)
    return {str(key): rows.index.tolist() for key, rows in known.groupby(known, sort=False)}


def _datasets(table: pd.DataFrame) -> list[str]:
    """Adds a column for each dataset but the first, and tells their names."""
    names = sorted(table["dataset"].astype(str).unique())[1:]
    for name in names:
        table[f"dataset {name}"] = (table["dataset"].astype(str) == name).astype(float)
    return [f"dataset {name}" for name in names]


def _subject_means(
    values: pd.DataFrame, table: pd.DataFrame, recordings: Sequence[str]
) -> pd.DataFrame:
    """The mean over recordings of each subject, so that all people count alike."""
    rows = values.loc[list(recordings)]
    return rows.groupby(table.loc[rows.index, "subject"].astype(str)).mean()


def _network_means(
    of_subject: pd.DataFrame, table: pd.DataFrame, bootstrap: int, seed: int
) -> dict[str, Any]:
    """Network -> mean attention of its parcels, with an interval over subjects or families."""
    content = {}
    units = units_of_subjects(table, of_subject.index.to_numpy(dtype=np.str_))
    for name in of_subject.columns:
        values = of_subject[name].to_numpy()
        known = np.isfinite(values)
        sums, sizes = (added_up(one[known], units[known]) for one in (values, known.astype(float)))
        content[str(name)] = mean_with_ci(sums, sizes, bootstrap, seed)
    return content


def _contrast(
    contrast: Contrast,
    table: pd.DataFrame,
    maps: pd.DataFrame,
    by_network: pd.DataFrame,
    adjust: Sequence[str],
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """One contrast, parcel by parcel and network by network."""
    how = {"adjust": adjust, "draws": draws, "seed": seed}
    about, tested = compare(contrast, table, maps, list(maps.columns), **how)  # type: ignore[arg-type]
    if tested is None:
        return about
    known = np.isfinite(tested.p)
    about |= {
        "parcels": _told(tested),
        "n_tested": int(known.sum()),
        "n_fdr": int((tested.p_fdr[known] < 0.05).sum()),
        "n_fwe": int((tested.p_fwe[known] < 0.05).sum()),
    }
    if len(by_network.columns):
        _, networks = compare(contrast, table, by_network, list(by_network.columns), **how)  # type: ignore[arg-type]
        assert networks is not None, "the same subjects are compared"
        about["networks"] = {
            "name": list(by_network.columns),
            **_told(networks),
            "p_holm": _listed(holm(networks.p)),
        }
    return about


def _told(tested: Tested) -> dict[str, list[float | None]]:
    return {
        name: _listed(getattr(tested, name))
        for name in ("difference", "effect", "t", "p", "p_fwe", "p_fdr")
    }


def _listed(values: Floats) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
