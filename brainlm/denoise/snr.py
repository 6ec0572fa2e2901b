"""Temporal signal-to-noise ratio: the mean of each voxel over its standard deviation in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: What float16 and colour scales have room for.
_MOST = 10_000.0


def temporal_snr(series: NDArray[np.float32], kept: NDArray[np.bool_]) -> NDArray[np.float16]:
    """Of each voxel (n,) of `series` (T, n), over the `kept` volumes (T,); 0 where it is constant.

    Volume by volume, so that no second copy of a long run is held.
    """
    volumes = np.flatnonzero(kept)
    first = series[volumes[0]].astype(np.float64)  # taken away against cancellation
    total, squares = np.zeros_like(first), np.zeros_like(first)
    for volume in volumes[1:]:
        change = series[volume] - first
        total += change
        squares += change * change
    mean_change = total / len(volumes)
    deviation = np.sqrt(np.clip(squares / len(volumes) - mean_change**2, 0, None))
    ratio = np.divide(first + mean_change, deviation, out=np.zeros_like(first), where=deviation > 0)
    return np.clip(ratio, 0, _MOST).astype(np.float16)
