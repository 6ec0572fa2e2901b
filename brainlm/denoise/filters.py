"""The design of nuisance regression: drifts and head motion as columns, rank checked."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError
from ..geometry import MOTION_NAMES
from ..temporal import cosine_drifts

Array = NDArray[np.float64]
Method = Literal["none", "motion6", "motion24"]

_EXPANSIONS: dict[str, tuple[str, ...] | None] = {
    "none": None,
    "motion6": ("",),
    "motion24": ("", "_derivative1", "_power2", "_derivative1_power2"),
}

#: Of the volumes, at least this share, and this number, must stay as degrees of freedom.
FEWEST_SHARE, FEWEST = 0.2, 10


def motion_regressors(confounds: pd.DataFrame, method: Method) -> Array:
    """The columns (T, k) that `method` names: none, 6 or 24.

    Derivatives are undefined in the first volume; 0, no movement, stands in.
    """
    endings = _EXPANSIONS[method]
    if endings is None:
        return np.zeros((len(confounds), 0))
    names = [name + ending for ending in endings for name in MOTION_NAMES]
    return confounds[names].to_numpy(dtype=float, na_value=0.0)


def settling_regressors(confounds: pd.DataFrame) -> Array:
    """One column (T, k) for each volume before the steady state: 1 there, 0 elsewhere.

    Fitted with the others they keep such a volume from bending any other coefficient; what is
    left of the volume itself is its voxel's mean.
    """
    return confounds.filter(regex="^non_steady_state_outlier").to_numpy(dtype=float)


def nuisance_basis(motion: Array, *, tr: float, high_pass_s: float) -> Array:
    """An orthonormal basis (T, rank) of constant, cosine drifts and motion (with any others).

    Drifts and motion are fitted together: filtering first and regressing afterwards would
    bring drifts back (Lindquist et al. 2019, Hum. Brain Mapp. 40:2358). Columns are scaled to
    unit length before singular vectors with values below 1e-7 of the largest are dropped,
    so constant or repeated regressors do no harm.
    """
    count = len(motion)
    columns = np.hstack(
        [np.ones((count, 1)), cosine_drifts(count, tr, high_pass_s), motion - motion.mean(axis=0)]
    )
    length = np.linalg.norm(columns, axis=0)
    columns = columns[:, length > 1e-10] / length[length > 1e-10]
    left, values, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(left[:, values > 1e-7 * values[0]])


def check_freedom(n_volumes: int, rank: int, file: str) -> None:
    """Refuse a run that is too short for its number of regressors."""
    left = n_volumes - rank
    if left < FEWEST or left < FEWEST_SHARE * n_volumes:
        raise DataError(
            f"{n_volumes} volumes are too few for {rank} regressors: {left} degrees of freedom "
            f"would be left (at least {FEWEST} and {FEWEST_SHARE:.0%} are needed)",
            file=file,
            fix="exclude the run, or set denoise.method to motion6 or a longer "
            "denoise.high_pass_s in config/config.yaml",
        )
