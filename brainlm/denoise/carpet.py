"""Carpet plots in small: sampled voxel series before and after denoising (Power 2017).

The 4-D files are temporary; this file stays, so that figures can be drawn later.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Voxels = NDArray[np.intp]
Mask = NDArray[np.bool_]

#: Most rows of each tissue: grey matter, white matter, CSF.
ROWS = {1: 600, 2: 400, 3: 200}

#: Values are clipped here; float16 and colour scales need no more.
_CLIP = 100.0


def carpet_voxels(series: NDArray[np.float32], labels: NDArray[np.int8], kept: Mask) -> Voxels:
    """The voxels to show, sorted by tissue: at most 1,200 columns of `series` (T, n).

    `labels` (n,) are 1 grey matter, 2 white matter, 3 CSF. Of each tissue, evenly spaced voxels
    are taken among those that vary over the `kept` volumes (T,).
    """
    volumes = np.flatnonzero(kept)
    varying = np.zeros(series.shape[1], dtype=bool)
    for volume in volumes[1:]:
        varying |= series[volume] != series[volumes[0]]
    return np.concatenate(
        [
            _evenly(np.flatnonzero((labels == tissue) & varying), most)
            for tissue, most in ROWS.items()
        ]
    )


def make_carpet(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    labels: NDArray[np.int8],
    kept: Mask,
) -> dict[str, NDArray]:
    """Rows of the carpet: float16 `before`, `after` (n, T) and int8 `tissue` (n).

    `before` and `after` are (T, n), the voxels of `carpet_voxels`. Both carpets are in units of
    the voxel's standard deviation *before* denoising, about its mean: what denoising took away
    shows as the second being paler. Deviation and mean are of the `kept` volumes (T,): bright
    volumes before the steady state would make all others pale. Volumes that are no longer
    there `after` are NaN.
    """
    spread = before[kept].std(axis=0, dtype=np.float64)
    return {
        "before": _in_units(before, spread, kept),
        "after": _in_units(after, spread, kept),
        "tissue": labels.astype(np.int8),
    }


def _evenly(voxels: Voxels, most: int) -> Voxels:
    if len(voxels) <= most:
        return voxels
    return voxels[np.linspace(0, len(voxels) - 1, most).round().astype(int)]


def _in_units(series: NDArray[np.float32], spread: NDArray, kept: Mask) -> NDArray[np.float16]:
    centered = (series - series[kept].mean(axis=0, dtype=np.float64)) / spread
    return np.ascontiguousarray(np.clip(centered, -_CLIP, _CLIP).T.astype(np.float16))
