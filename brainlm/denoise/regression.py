"""Nuisance regression: what is left of voxel series when drifts and motion are fitted out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Voxels per block: bounds the memory in double precision, and fixes the order of sums.
_BLOCK = 8192


def regress_out(series: NDArray[np.float32], basis: NDArray[np.float64]) -> NDArray[np.float32]:
    """Residuals of `series` (T, n) after least squares on `basis`, each with its mean added back.

    `basis` (T, rank) is orthonormal and spans a constant, so the fit is `basis basis' y`. The
    means stay, so that percent signal change can still be computed. Constant voxels stay as
    they are.
    """
    cleaned = np.empty_like(series)
    for begin in range(0, series.shape[1], _BLOCK):
        block = slice(begin, begin + _BLOCK)
        values = series[:, block].astype(np.float64)
        mean = values.mean(axis=0)
        values -= mean
        residual = values - basis @ (basis.T @ values)
        cleaned[:, block] = residual + mean
    constant = series.min(axis=0) == series.max(axis=0)
    cleaned[:, constant] = series[:, constant]
    return cleaned


def variance_removed(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """The share of the variance of all voxels (T, n) over time that is gone."""
    left, total = 0.0, 0.0
    for begin in range(0, before.shape[1], _BLOCK):
        block = slice(begin, begin + _BLOCK)
        total += float(before[:, block].var(axis=0, dtype=np.float64).sum())
        left += float(after[:, block].var(axis=0, dtype=np.float64).sum())
    return 1 - left / total if total > 0 else 0.0
