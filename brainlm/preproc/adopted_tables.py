"""Confounds that fMRIPrep computed, brought to the columns that denoising reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError
from ..geometry import MOTION_NAMES, framewise_displacement

_AGAIN = "make it anew with the pipeline that wrote it, or exclude the run"


def read_confounds(path: Path, n_volumes: int) -> pd.DataFrame:
    """The table as it stands, checked: a row for each volume, numbers, the head's motion."""
    try:
        table = pd.read_csv(path, sep="\t", na_values="n/a")
    except (ValueError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"The confounds cannot be read: {reason}", file=path, fix=_AGAIN) from None
    if len(table) != n_volumes:
        raise DataError(
            f"The confounds have {len(table)} rows, the series has {n_volumes} volumes",
            file=path,
            fix="they belong to different runs, or one of them is cut off: " + _AGAIN,
        )
    absent = [name for name in MOTION_NAMES if name not in table]
    if absent:
        raise DataError(
            f"The confounds lack the columns {', '.join(absent)}", file=path, fix=_AGAIN
        )
    words = [str(name) for name in table if table[name].dtype.kind not in "iufb"]
    if words:
        raise DataError(f"Column {words[0]} of the confounds is not numbers", file=path, fix=_AGAIN)
    if table[list(MOTION_NAMES)].isna().to_numpy().any():
        raise DataError("The motion parameters hold missing values", file=path, fix=_AGAIN)
    return table


def by_tissue(table: pd.DataFrame, about: Mapping[str, Any]) -> pd.DataFrame:
    """The table with aCompCor's components of CSF and white matter under names of their own.

    fMRIPrep before 21 called all of them `a_comp_cor_XX` and told their mask in the JSON file
    beside the table (`about`), later ones `c_comp_cor_XX` and `w_comp_cor_XX`, as we do.
    """
    if any(str(name).startswith(("c_comp_cor_", "w_comp_cor_")) for name in table):
        return table
    names: dict[str, str] = {}
    for tissue, letter in (("CSF", "c"), ("WM", "w")):
        theirs = [
            str(name)
            for name in table
            if str(name).startswith("a_comp_cor_")
            and isinstance(about.get(str(name)), Mapping)
            and about[str(name)].get("Mask") == tissue
        ]
        names |= {name: f"{letter}_comp_cor_{rank:02d}" for rank, name in enumerate(theirs)}
    return table.rename(columns=names)


def motion_from_confounds(table: pd.DataFrame, radius_mm: float) -> pd.DataFrame:
    """The motion table of a run: six parameters, FD, `rmsd`, volumes before the steady state.

    FD is theirs; where the table has none, it is made of the parameters with `radius_mm`.
    """
    motion = table[list(MOTION_NAMES)].copy()
    for name in ("framewise_displacement", "rmsd"):
        motion[name] = table.get(name, np.nan)
    if motion["framewise_displacement"].isna().all():
        values = motion[list(MOTION_NAMES)].to_numpy(dtype=float)
        motion["framewise_displacement"] = framewise_displacement(values, radius_mm)
    return motion.join(table.filter(regex="^non_steady_state_outlier"))


def unknown_motion(n_volumes: int) -> pd.DataFrame:
    """A motion table (T rows) that says of every parameter that it is not known."""
    names = [*MOTION_NAMES, "framewise_displacement", "rmsd"]
    return pd.DataFrame(np.nan, index=range(n_volumes), columns=names)
