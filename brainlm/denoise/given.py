"""Method `fix`: a series that others have cleaned is looked at, and passed on as it is.

UK Biobank and the Human Connectome Project distribute such series: FIX has taken out the noise
components that it found, and the 24 motion parameters with them, after a high-pass
(Salimi-Khorshidi et al. 2014, NeuroImage 90:449; Smith et al. 2013, NeuroImage 80:144;
Alfaro-Almagro et al. 2018, NeuroImage 166:400).
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError
from .design import Mask, orthonormal
from .regressors import nuisance_columns

#: Above this share a series does not look clean. A real run (FD 0.13 mm) has 0.45 as it is, 0.09
#: once drifts are out, and less than 0 once 6 or 24 motion columns are.
MOTION_SHARE = 0.05
#: Voxels per block: bounds the memory in double precision, and fixes the order of sums.
_BLOCK = 8192


def look_at_given(
    series: NDArray[np.float32], confounds: pd.DataFrame, kept: Mask, file: Path
) -> dict[str, Any]:
    """Refuse a series (T, n) that cannot be clean, and say how clean the `kept` volumes look.

    `MotionVarianceShare` is the share of the variance that the 24 motion columns explain, less
    what as many columns without meaning would. It means something where the motion in `confounds`
    is that of the raw run: a run that was realigned before has next to none left.
    """
    if not np.isfinite(series[kept].sum(dtype=np.float64)):
        raise DataError(
            "The series, said to be clean, holds NaN or inf in the brain",
            file=file,
            fix="make it anew, or exclude the run",
        )
    columns, known = np.zeros((int(kept.sum()), 0)), False
    with suppress(DataError):  # what is not known of its motion is no fault of a clean series
        columns = nuisance_columns(confounds, "motion24").to_numpy(dtype=float)[kept]
        known = True
    motion = orthonormal(columns - columns.mean(axis=0)) if known else columns
    explained, total, varying = 0.0, 0.0, 0
    for begin in range(0, series.shape[1], _BLOCK):
        values = series[kept, begin : begin + _BLOCK].astype(np.float64)
        varying += int((values != values[0]).any(axis=0).sum())
        values -= values.mean(axis=0)
        total += float((values**2).sum())
        explained += float(((motion.T @ values) ** 2).sum())
    if not varying:
        raise DataError(
            "The series, said to be clean, does not change in time anywhere in the brain",
            file=file,
            fix="look at the file: it may be a mean or a mask",
        )
    about: dict[str, Any] = {
        "Denoising": "fix: passed on as given",
        "VoxelsVarying": round(varying / series.shape[1], 4),
    }
    left = len(columns) - 1 - motion.shape[1]
    if left <= 0 or not known:  # too short to tell, or nothing to tell by
        return about
    share = 1 - (1 - explained / total) * (len(columns) - 1) / left  # adjusted R squared
    return {
        **about,
        "MotionVarianceShare": round(share, 4),
        "LooksCleaned": bool(share <= MOTION_SHARE),
    }
