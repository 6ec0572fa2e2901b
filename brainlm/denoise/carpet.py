"""Carpet plots in small: sampled voxel series before and after denoising (Power 2017).

The 4-D files are temporary; this file stays, so that figures can be drawn later.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Most rows of each tissue: grey matter, white matter, CSF.
ROWS = {1: 600, 2: 400, 3: 200}

#: Values are clipped here; float16 and colour scales need no more.
_CLIP = 100.0


def sample_carpet(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    labels: NDArray[np.int8],
    unsteady: int = 0,
) -> dict[str, NDArray]:
    """Voxel rows sorted by tissue: float16 `before`, `after` (n, T) and int8 `tissue` (n).

    `before` and `after` are (T, voxels); `labels` (voxels) are 1 grey matter, 2 white matter,
    3 CSF. Of each tissue, evenly spaced voxels are taken, so n is at most 1,200. Both
    carpets are in units of the voxel's standard deviation *before* denoising, about its mean:
    what denoising took away shows as the second being paler. Deviation and mean are taken
    without the first `unsteady` volumes, whose brightness would make all others pale.
    """
    settled = before[unsteady:]
    varying = settled.max(axis=0) > settled.min(axis=0)
    rows = np.concatenate(
        [
            _evenly(np.flatnonzero((labels == tissue) & varying), most)
            for tissue, most in ROWS.items()
        ]
    )
    spread = settled[:, rows].std(axis=0, dtype=np.float64)
    return {
        "before": _in_units(before[:, rows], spread, unsteady),
        "after": _in_units(after[:, rows], spread, unsteady),
        "tissue": labels[rows].astype(np.int8),
    }


def _evenly(voxels: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    if len(voxels) <= most:
        return voxels
    return voxels[np.linspace(0, len(voxels) - 1, most).round().astype(int)]


def _in_units(series: NDArray[np.float32], spread: NDArray, unsteady: int) -> NDArray[np.float16]:
    centered = (series - series[unsteady:].mean(axis=0, dtype=np.float64)) / spread
    return np.ascontiguousarray(np.clip(centered, -_CLIP, _CLIP).T.astype(np.float16))
