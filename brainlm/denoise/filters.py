"""Temporal filters: fast cosines for the low-pass, a running line for the high-pass.

Slow cosines, the other high-pass, are `brainlm.temporal.cosine_drifts`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: The running line looks at so many sigmas on either side, as FSL's does.
_REACH_SIGMAS = 3.0


def fast_cosines(n_volumes: int, tr: float, period_s: float) -> Array:
    """The discrete cosines with periods below `period_s`: (n_volumes, k), unit length.

    They go on where `cosine_drifts` would stop, up to order T - 1, the Nyquist frequency: with
    the slow ones and a constant they are a basis of all series, so that fitting both leaves
    a band. With `period_s` of 0, or below two volumes, there are none.
    """
    slowest = int(np.floor(2 * n_volumes * tr / period_s + 1e-9)) + 1 if period_s else n_volumes
    time = (np.arange(n_volumes) + 0.5)[:, None]
    order = np.arange(slowest, n_volumes)[None, :]
    return np.asarray(np.sqrt(2 / n_volumes) * np.cos(np.pi * order * time / n_volumes))


def sigma_volumes(high_pass_s: float, tr: float) -> float:
    """The sigma of the running line, in volumes, for a cut-off period in s.

    FSL's FEAT takes sigma = cut-off / 2, so 100 s means a Gaussian of sigma 50 s. That is what UK
    Biobank used and calls "sigma=50.0s" (Alfaro-Almagro et al. 2018, NeuroImage 166:400;
    `fslmaths -bptf` wants it in volumes). The Gaussian's full width at half maximum is 2.355
    sigma, 118 s, and half of an oscillation's amplitude is left at a period of 5.3 sigma, 267 s.
    """
    return high_pass_s / (2 * tr)


def running_line(kept: Mask, sigma: float) -> Array:
    """The smoother (k, k) that turns a series at the `kept` volumes (T,) into its slow part.

    Around each kept volume a straight line is fitted to its kept neighbours with Gaussian
    weights of `sigma` volumes, out to three of them; its value there is the slow part.
    At the ends, and around volumes left out, the neighbours that are there count alone. So a
    constant and a straight line are reproduced exactly. Where a single volume is all that a
    line could be fitted to, its own value is the fit.
    """
    time = np.flatnonzero(kept).astype(float)
    apart = time[None, :] - time[:, None]
    weights = np.exp(-0.5 * (apart / sigma) ** 2)
    weights[np.abs(apart) > np.floor(_REACH_SIGMAS * sigma)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    # The line's value at its own volume: a weighted mean, tilted to where the neighbours lie.
    middle = (weights * apart).sum(axis=1, keepdims=True)
    spread = (weights * (apart - middle) ** 2).sum(axis=1, keepdims=True)
    slope = np.divide(-middle, spread, out=np.zeros_like(middle), where=spread > 0)
    return np.asarray(weights * (1 + slope * (apart - middle)))
