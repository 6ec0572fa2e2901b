"""Volumes at the start of a run that were taken before the magnetisation had settled.

Until the longitudinal magnetisation is at its steady state, T1 weighting differs and
volumes are brighter, by up to a half in the first and by little after some seconds. They
distort means, variances and regressions, and make a poor reference.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..geometry import Array

#: Volumes at the start of a run among which the settling ones must stand out.
_WINDOW = 50
#: Modified z-score of an outlier (Iglewicz & Hoaglin 1993, How to Detect and Handle Outliers).
_OUTLIER = 3.5
#: Median absolute deviation of a standard Gaussian.
_MAD_OF_GAUSSIAN = 0.6745
#: A smaller share of the median is within what BOLD itself does, however quiet the run.
_LEAST_CHANGE = 0.01


def global_means(volumes: Iterable[NDArray[np.float32]]) -> Array:
    """The mean of all voxels, air included, of each of T volumes (x, y, z): (T,)."""
    return np.array([volume.mean(dtype=np.float64) for volume in volumes])


def non_steady_volumes(means: Array) -> int:
    """How many volumes at the start of a run are not at steady state, from `global_means` (T,).

    The rule of nipype's NonSteadyStateDetector, which fMRIPrep uses: of the first 50 volumes,
    the outliers by modified z-score (`0.6745 |m - median| / MAD > 3.5`) that stand in an
    unbroken row from the first on; a spike later in the run does not count. Added here: an
    outlier must also differ from the median by 1%, for in short or very quiet runs the
    others deviate so little that drift or motion would pass for it.
    """
    window = np.asarray(means, dtype=float)[:_WINDOW]
    median = np.median(window)
    distance = np.abs(window - median)
    far = _MAD_OF_GAUSSIAN * distance > _OUTLIER * np.median(distance)
    unsettled = far & (distance > _LEAST_CHANGE * abs(median))
    # The median is one of the values or lies between two of them, so a settled one exists.
    return int(np.argmin(unsettled))


def spikes(count: int, n_volumes: int) -> dict[str, NDArray[np.int_]]:
    """One column for each of the first `count` volumes, in fMRIPrep's names: 1 there, 0 else."""
    every = np.eye(n_volumes, dtype=int)
    return {f"non_steady_state_outlier{number:02d}": every[number] for number in range(count)}
