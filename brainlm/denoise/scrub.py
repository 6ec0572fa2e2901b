"""Scrubbing: which volumes the head spoilt, and what takes their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from .regressors import known_columns

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Scrub = Literal["off", "mark", "censor", "interpolate"]


def unsteady_volumes(confounds: pd.DataFrame) -> Mask:
    """The volumes (T,) before the steady state: those with a column of their own."""
    columns = confounds.filter(regex="^non_steady_state_outlier")
    return np.asarray(columns.to_numpy(dtype=float).any(axis=1))


def spoilt_volumes(
    confounds: pd.DataFrame, *, fd_mm: float, dvars: float, pad: tuple[int, int]
) -> Mask:
    """The volumes (T,) whose FD or standardised DVARS exceeds its threshold, and those around.

    Power et al. 2014 (NeuroImage 84:320). A `dvars` of 0 asks nothing of DVARS. `pad` is how many
    volumes before and after each such volume are taken with it. Volumes before the steady state
    are not looked at, and the first one after them is not judged by its DVARS, which
    tells about magnetisation. Without FD, nothing would be found: that is refused.
    """
    known_columns(confounds, ["framewise_displacement", *(["std_dvars"] if dvars > 0 else [])])
    unsteady = unsteady_volumes(confounds)
    found = confounds["framewise_displacement"].to_numpy(dtype=float) > fd_mm
    if dvars > 0:
        changed = confounds["std_dvars"].to_numpy(dtype=float) > dvars
        changed[1:] &= ~unsteady[:-1]
        found |= changed
    found &= ~unsteady
    wide = np.zeros_like(found)
    for volume in np.flatnonzero(found):
        wide[max(0, volume - pad[0]) : volume + pad[1] + 1] = True
    return wide & ~unsteady


def filling_weights(kept: Mask) -> Array:
    """Weights (left out, kept) that turn the kept volumes into the others.

    A natural cubic spline in time runs through the kept volumes; before the first and after the
    last of them the nearest one is repeated, for a spline would run away.
    """
    time = np.flatnonzero(kept)
    missing = np.clip(np.flatnonzero(~kept), time[0], time[-1])
    spline = make_interp_spline(time, np.eye(len(time)), k=3, bc_type="natural")
    return np.asarray(spline(missing))


def mean_weights(kept: Mask) -> Array:
    """Weights (left out, kept) that put the mean of the kept volumes into the others."""
    return np.full(((~kept).sum(), kept.sum()), 1 / kept.sum())


def in_the_raw_run(done: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """What scrubbing says of its volumes, counted from 0 in the raw run.

    `done` counts in the series that was scrubbed. `earlier` says which volumes of the raw run that
    series still had (`KeptVolumes`), where another pipeline had censored some before; or which of
    them it had filled in (`CensoredVolumes` alone).
    """
    if "KeptVolumes" not in earlier:
        if "CensoredVolumes" not in earlier:
            return dict(done)
        both = {*earlier["CensoredVolumes"], *done.get("CensoredVolumes", [])}
        return {**earlier, **done, "CensoredVolumes": sorted(both)}
    rows = earlier["KeptVolumes"]
    gone = [rows[number] for number in done.get("CensoredVolumes", [])]
    kept = done.get("KeptVolumes", range(len(rows)))
    return {
        **earlier,
        **done,
        "CensoredVolumes": sorted([*earlier["CensoredVolumes"], *gone]),
        "KeptVolumes": [rows[number] for number in kept],
    }
