"""One series from the many of a parcel: the median, and the first eigenvariate."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh


def summarise(values: NDArray, estimator: Literal["median", "eigenvariate"]) -> NDArray[np.float64]:
    """Reduce `values` (time, voxels) to a series (time,)."""
    values = values.astype(np.float64)
    if estimator == "median":
        return np.asarray(np.median(values, axis=1))
    return eigenvariate(values)


def eigenvariate(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first principal component of `values` (time, voxels) as a series (time,).

    The series that explains most of the voxels' variance in time, as SPM's volume of interest
    takes it: u s / sqrt(voxels), with u and s the first left singular vector and value of the
    series less their means, and the sign that makes the sum of the voxels' loadings positive. The
    mean level of the parcel is put back, so that a parcel of equal voxels gives their own series.
    """
    level = values.mean(axis=0)
    centred = values - level
    n_times, n_voxels = centred.shape
    # The smaller of the two Gram matrices has the same largest eigenvalue.
    if n_voxels <= n_times:
        loadings = _largest(centred.T @ centred)
        component = centred @ loadings
    else:
        component = _largest(centred @ centred.T)
        loadings = centred.T @ component
        component = component * np.linalg.norm(loadings)
    sign = -1.0 if loadings.sum() < 0 else 1.0
    return np.asarray(sign * component / np.sqrt(n_voxels) + level.mean())


def _largest(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """The unit eigenvector of the largest eigenvalue of a symmetric matrix."""
    last = len(gram) - 1
    return np.asarray(eigh(gram, subset_by_index=[last, last])[1][:, 0])
