r"""Which voxels of a component map are active: a Gaussian and two gammas, fitted to its values.

Most voxels of a map are noise about 0; the rest lie in one tail or in both (Beckmann & Smith
2004, IEEE Trans. Med. Imaging 23:137). The values are taken for a mixture

    p(z)  =  w0 N(z; m, s)  +  w1 Gamma(z; a1, b1)  +  w2 Gamma(-z; a2, b2),

fitted by expectation maximisation, each gamma by its first two moments. A voxel counts as
active where the gammas together are more likely than the Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Array = NDArray[np.float64]

_ITERATIONS, _TOLERANCE = 200, 1e-5
#: Gammas start with what lies farther out than this many robust standard deviations.
_TAIL = 2.0
#: A tail with a smaller share of the voxels is not fitted: there is none.
_FEWEST = 1e-4
#: Values that a fit needs; of more, evenly spread ones are taken.
_ENOUGH = 20_000
_MAD_TO_SD = 1.4826


def active_probability(values: NDArray) -> Array:
    """The probability (n,), of each value of a map (n,), that it is of a tail."""
    z = np.asarray(values, dtype=np.float64)
    center = float(np.median(z))
    spread = _MAD_TO_SD * float(np.median(np.abs(z - center)))
    if spread <= 0:
        return np.zeros(len(z))
    z = (z - center) / spread
    density = _densities(z, _fit(z[:: max(1, len(z) // _ENOUGH)]))
    return np.asarray(1 - density[0] / density.sum(axis=0))


@dataclass(frozen=True)
class _Gamma:
    """A tail: its share of all values, and the gamma distribution of their absolute value."""

    weight: float
    shape: float
    rate: float


@dataclass(frozen=True)
class _Mixture:
    weight: float  # of the Gaussian
    mean: float
    spread: float
    tails: tuple[_Gamma | None, _Gamma | None]  # above and below 0


def _fit(z: Array) -> _Mixture:
    """Expectation maximisation, from a cut at `_TAIL`."""
    belongs = np.array([np.abs(z) <= _TAIL, z > _TAIL, z < -_TAIL], dtype=np.float64)
    before = -np.inf
    for _ in range(_ITERATIONS):
        mixture = _parameters(z, belongs)
        density = _densities(z, mixture)
        total = density.sum(axis=0)
        belongs = density / total
        now = float(np.log(total).mean())
        if now - before < _TOLERANCE:
            break
        before = now
    return mixture


def _parameters(z: Array, belongs: Array) -> _Mixture:
    """The mixture whose classes hold the shares `belongs` (3, n) of the values."""
    share = belongs[0] / belongs[0].sum()
    mean = float(share @ z)
    spread = max(float(np.sqrt(share @ (z - mean) ** 2)), 1e-3)
    above, below = (_gamma(sign * z, belongs[row]) for row, sign in ((1, 1), (2, -1)))
    return _Mixture(float(belongs[0].mean()), mean, spread, (above, below))


def _gamma(x: Array, share: Array) -> _Gamma | None:
    """By the first two moments of the positive ones among `x` (n,), each counted by `share`."""
    count = len(x)
    x, share = x[x > 0], share[x > 0]
    weight = float(share.sum()) / count
    if weight < _FEWEST:
        return None
    first = float(share @ x / share.sum())
    second = float(share @ (x - first) ** 2 / share.sum())
    # Below 1, a gamma has its peak at 0, where the Gaussian is.
    shape = max(first**2 / max(second, 1e-6), 1.0)
    return _Gamma(weight, shape, shape / first)


def _densities(z: Array, mixture: _Mixture) -> Array:
    """Weighted densities (3, n) of the Gaussian and of the tails above and below 0."""
    density = np.zeros((3, len(z)))
    away = (z - mixture.mean) / mixture.spread
    density[0] = mixture.weight * np.exp(-0.5 * away**2) / mixture.spread / np.sqrt(2 * np.pi)
    for row, sign, tail in zip((1, 2), (1, -1), mixture.tails, strict=True):
        if tail is None:
            continue
        side = sign * z > 0
        x = sign * z[side]
        log = tail.shape * np.log(tail.rate) - gammaln(tail.shape) + (tail.shape - 1) * np.log(x)
        density[row, side] = tail.weight * np.exp(log - tail.rate * x)
    density[0] = np.maximum(density[0], np.finfo(float).tiny)
    return density
