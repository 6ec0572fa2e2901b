"""Spatial ICA of a run: independent maps, and the time course of each.

A run `Y` (T, n), smoothed, high-passed and with every voxel of unit variance, is taken for
`Y = A S + noise`, with `k` maps `S` (k, n) as independent as can be and their courses `A` (T, k)
(McKeown et al. 1998, Hum. Brain Mapp. 6:160; Beckmann & Smith 2004, IEEE Trans. Med. Imaging
23:137). First the `k` largest principal components are kept and whitened, then the rotation is
sought that makes the maps least Gaussian (Hyvarinen 1999, IEEE Trans. Neural Netw. 10:626), by
Picard (Ablin, Cardoso & Gramfort 2018, LVA/ICA), which always goes uphill; FastICA's fixed point
may swing between two rotations without end. `dimension.py` finds `k`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .dimension import laplace_evidence
from .restarts import consensus
from .smoothing import smooth_in_mask, smoothness_mm

Array = NDArray[np.float64]
Series = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Voxels of the rotation's fit: more make it slower, and on smooth maps no better.
_MOST_VOXELS = 60_000
_ITERATIONS, _TOLERANCE = 400, 1e-3
#: Where no rotation settles, so many components are sought next, as a share of those before.
_FEWER = 0.75
_TRIES = 4
#: Voxels per block: bounds the memory in double precision, and fixes the order of sums.
_BLOCK = 8192


@dataclass(frozen=True)
class Components:
    """The sources of a run, the one that explains most first."""

    mixing: Array  # (T, k), courses of unit variance
    maps: NDArray[np.float32]  # (k, n), in standard deviations of what no component explains
    explained: Array  # (k,), share of the variance of all voxels
    kept: float  # share of the variance that all of them explain
    estimated: int  # the dimension that the estimate asked for
    converged: bool


def spatial_ica(
    series: Series,
    mask: Mask,
    sizes_mm: Array,
    drifts: Array,
    *,
    fwhm_mm: float,
    components: int | None,
    seed: int,
    restarts: int = 1,
) -> Components:
    """Independent components of `series` (T, n), the voxels of `mask` (x, y, z).

    `drifts` (T, c) is an orthonormal basis of what is taken out first (constant, cosines).
    `components` is how many; None estimates it. Equal input and seed give equal bytes.
    """
    if not mask.any():
        raise DataError(
            "There is nothing to decompose: the brain mask is empty",
            fix="look at the normalised series and its mask; was the run placed rightly?",
        )
    normal = smooth_in_mask(series, mask, sizes_mm, fwhm_mm)
    _normalise(normal, drifts)
    variance, directions = _principal_directions(normal, len(drifts) - drifts.shape[1])
    if len(variance) < 2:
        raise DataError(
            "There is nothing to decompose: the voxels vary in one way only, or there are too few",
            fix="exclude the run, or set denoise.method: motion24, which does without ICA",
        )
    resels = normal.shape[1] * np.prod(sizes_mm) / np.prod(smoothness_mm(normal, mask, sizes_mm))
    estimated = components or 1 + int(np.argmax(laplace_evidence(variance, resels)))
    count = min(estimated, len(variance) - 1)
    for attempt in range(_TRIES):
        whitening = directions[:, :count] / np.sqrt(variance[:count])
        white = whitening.T @ _spread(normal)
        rotation, converged = _rotation(white, seed + attempt, restarts)
        if converged or count < 3:
            break
        # Seeds first; a run that does not settle twice holds fewer sources than it seemed to.
        count = count if attempt == 0 else max(2, int(count * _FEWER))
    total = float(variance.sum()) / len(drifts)
    return _components(normal, whitening @ rotation.T, total, estimated, converged)


def _normalise(series: Series, basis: Array) -> None:
    """Take `basis` (T, c) out of each voxel, then its standard deviation; constant ones are 0."""
    for block in _blocks(series.shape[1]):
        values = series[:, block].astype(np.float64)
        level = np.sqrt((values**2).mean(axis=0))
        values -= basis @ (basis.T @ values)
        spread = np.sqrt((values**2).mean(axis=0))
        flat = spread <= 1e-6 * level
        series[:, block] = np.where(flat, 0, values / np.where(flat, 1, spread))


def _principal_directions(series: Series, freedom: int) -> tuple[Array, Array]:
    """The largest `freedom` eigenvalues of the covariance in time, and their vectors (T, freedom).

    The covariance is summed over blocks of voxels, so no copy of the series is made.
    """
    total = np.zeros((len(series), len(series)))
    for block in _blocks(series.shape[1]):
        values = series[:, block].astype(np.float64)
        total += values @ values.T
    if not np.isfinite(total).all() or not total.any():
        raise DataError(
            "There is nothing to decompose: no voxel varies, or some are not finite",
            fix="look at the preprocessed series; denoise.method: motion24 does without ICA",
        )
    values, vectors = np.linalg.eigh(total / series.shape[1])
    values, vectors = values[::-1][:freedom], vectors[:, ::-1][:, :freedom]
    sound = values > 1e-9 * values[0]
    # Eigenvectors are defined up to their sign: the largest element decides it.
    vectors = vectors * np.sign(
        vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    )
    return values[sound], vectors[:, sound]


def _spread(series: Series) -> Array:
    """At most `_MOST_VOXELS` voxels (T, m), evenly spread."""
    step = max(1, -(-series.shape[1] // _MOST_VOXELS))
    return series[:, ::step].astype(np.float64)


def _rotation(whitened: Array, seed: int, restarts: int = 1) -> tuple[Array, bool]:
    """The unmixing (k, k) of whitened maps (k, m), and whether the search settled.

    With `restarts` the search is done so often, and once more from what all agree on.
    """
    # Of the voxels used, the covariance is not quite the identity that the search relies on.
    rewhiten = np.linalg.inv(np.linalg.cholesky(whitened @ whitened.T / whitened.shape[1]))
    white = rewhiten @ whitened
    draw = np.random.default_rng(seed).standard_normal
    starts = [np.linalg.qr(draw((len(white), len(white))))[0] for _ in range(restarts)]
    found = [_search(white, start) for start in starts]
    if restarts == 1:
        rotation, settled = found[0]
    else:
        rotation, settled = _search(white, consensus([each for each, _ in found]))
    return rotation @ rewhiten, settled


def _search(white: Array, start: Array) -> tuple[Array, bool]:
    """The rotation (k, k) of white maps (k, m) that Picard finds from `start` (k, k)."""
    from picard import picard

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        _, rotation, _ = picard(
            white,
            ortho=True,
            whiten=False,
            centering=False,
            fun="tanh",
            w_init=start,
            max_iter=_ITERATIONS,
            tol=_TOLERANCE,
        )
    settled = not any("converge" in str(said.message) for said in told)
    return np.asarray(rotation), settled


def _components(
    series: Series, unmixing: Array, total: float, estimated: int, converged: bool
) -> Components:
    """Maps, courses and shares from an unmixing (T, k); `total` is the variance per voxel."""
    count, voxels = unmixing.shape[1], series.shape[1]
    sources = np.empty((count, voxels), dtype=np.float32)
    moments, products = np.zeros((count, count)), np.zeros((len(series), count))
    skew = np.zeros(count)
    for block in _blocks(voxels):
        values = series[:, block].astype(np.float64)
        part = unmixing.T @ values
        sources[:, block] = part
        moments += part @ part.T
        products += values @ part.T
        skew += (part**3).sum(axis=1)
    mixing = np.linalg.solve(moments, products.T).T

    # Courses of unit variance, the bulk of each map's weight positive, the strongest first.
    scale = mixing.std(axis=0) * np.where(skew < 0, -1, 1)
    explained = (mixing**2).mean(axis=0) * np.diag(moments) / voxels / total
    order = np.argsort(-explained, kind="stable")
    mixing, scale = mixing[:, order] / scale[order], scale[order, None]
    left = 0.0
    for block in _blocks(voxels):
        part = sources[order, block] * scale
        noise = ((series[:, block] - mixing @ part) ** 2).mean(axis=0)
        left += float(noise.sum())
        sources[:, block] = part / np.sqrt(np.where(noise > 0, noise, np.inf))
    return Components(
        mixing=mixing,
        maps=sources,
        explained=explained[order],
        kept=1 - left / voxels / total,
        estimated=estimated,
        converged=converged,
    )


def _blocks(voxels: int) -> list[slice]:
    return [slice(begin, begin + _BLOCK) for begin in range(0, voxels, _BLOCK)]
