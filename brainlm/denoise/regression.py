"""Denoising of voxel series: what is left when drifts, motion and fast noise are taken out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .design import Design

#: Voxels per block: bounds the memory in double precision, and fixes the order of sums.
_BLOCK = 8192


def clean(series: NDArray[np.float32], design: Design) -> float:
    """Denoise `series` (T, n) where it lies; return the share of variance that is gone.

    Each voxel loses its mean and its slow trend, then the least-squares fit of the design's
    basis, all over the kept volumes alone, and gets its mean back, so that percent signal
    change can still be computed. The other volumes are filled from the cleaned ones, or become
    NaN where the design has them go. Constant voxels stay as they are. The variance is that of
    all voxels over the kept volumes. Work goes block by block, so there is no second copy. Where
    the design fits nothing, the kept volumes stay to the last bit.
    """
    left, total = 0.0, 0.0
    kept, others = np.flatnonzero(design.kept), np.flatnonzero(~design.kept)
    for begin in range(0, series.shape[1], _BLOCK):
        block = slice(begin, begin + _BLOCK)
        values = series[kept, block].astype(np.float64)
        if design.fits_nothing:
            series[others, block] = np.nan if design.fill is None else design.fill @ values
            continue
        constant = values.min(axis=0) == values.max(axis=0)
        mean = values.mean(axis=0)
        values -= mean
        total += float((values**2).sum())
        if design.trend is not None:
            values -= design.trend @ values
        values -= design.basis @ (design.basis.T @ values)
        if design.shared is not None:
            noise, weights = design.shared
            values -= noise @ (weights @ values)
        left += float((values**2).sum())
        values += mean
        values[:, constant] = series[kept[0], block][constant]
        series[kept, block] = values
        series[others, block] = np.nan if design.fill is None else design.fill @ values
    return 1 - left / total if total > 0 else 0.0
