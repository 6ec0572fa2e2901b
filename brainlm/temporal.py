"""Slow functions of time that stand for scanner drift, shared by confounds and denoising."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cosine_drifts(n_volumes: int, tr: float, period_s: float) -> NDArray[np.float64]:
    """The discrete cosines with periods of at least `period_s`: (n_volumes, k), unit length.

    Column `k` (from 1) is `sqrt(2/T) cos(pi k (t + 1/2) / T)`, whose period is `2 T tr / k`
    seconds; hence `k` runs to `floor(2 T tr / period_s)`, as in SPM (Friston et al. 2000,
    NeuroImage 12:196) and nilearn; fMRIPrep's list ends one column earlier. The columns are
    orthonormal and orthogonal to a constant. With `period_s` of 0 there are none.
    """
    if period_s <= 0:
        return np.zeros((n_volumes, 0))
    # The slight excess guards 2 T tr / period_s = 8 against becoming 7.999...
    count = min(int(np.floor(2 * n_volumes * tr / period_s + 1e-9)), n_volumes - 1)
    time = (np.arange(n_volumes) + 0.5)[:, None]
    order = np.arange(1, count + 1)[None, :]
    return np.asarray(np.sqrt(2 / n_volumes) * np.cos(np.pi * order * time / n_volumes))
