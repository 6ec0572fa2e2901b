"""What denoising takes out of a phantom's parcels, and what it takes along.

A parcel's series, filtered but not denoised, is split by least squares into its own neural truth,
the planted causes and a rest,

    y  =  b n  +  A w  +  e.

What denoising does to a series of volumes is linear and the same for every voxel, so it does it
to each of these parts alike: `M y = b M n + M A w + M e`. The parts are followed through the
design of each method, so a method that keeps few degrees of freedom gets no credit for
parts that a second fit could not find.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..denoise.design import Design
from ..denoise.regression import clean
from .parameters import Run
from .scanner import rhythms
from .score import correlation

Array = NDArray[np.float64]

#: Courses of the truth's table that are residual motion.
_MOTION = ("edge", "spin_history_mm")
#: And those of single volumes, each of which hits other voxels.
_SINGLE = ("spike_percent", "slice_dropout")
#: Neural components that together hold this share of the parcels' variance.
_NEURAL_SHARE = 0.95
#: A mean far from zero, since denoising keeps a series' mean and its voxels are positive.
_LEVEL = 1000.0


@dataclass(frozen=True)
class Parts:
    """The parts of all parcels' series, of one run."""

    neural: Array  # (T, parcels), in the parcels' units
    causes: Mapping[str, Array]  # kind of cause -> (T, c), courses
    weights: Mapping[str, Array]  # kind -> (c, parcels)
    doubt: Mapping[str, Array]  # kind -> (c, c), of the weights' covariance, see `noise`
    noise: Array  # (parcels,), variance of the rest; times `doubt`, the weights' covariance


def planted_causes(artefacts: pd.DataFrame, run: Run, seed: int) -> dict[str, Array]:
    """Courses (T, c) of each kind of planted cause: motion, heart, breath, single volumes.

    Slices are measured at their own times, at which the heart is in another phase: each rhythm
    is a sine and a cosine, and so is its overtone. Each volume with a spike or a lost slice is a
    column.
    """
    middles = (np.arange(run.volumes, dtype=np.float64) + 0.5) * run.tr
    pulse, breath = (_waves(rhythm.phase_at(middles)) for rhythm in rhythms(run, seed))
    single = np.flatnonzero((artefacts[list(_SINGLE)] != 0).any(axis=1))
    causes = {
        "motion": artefacts[list(_MOTION)].to_numpy(dtype=float),
        "heart": pulse,
        "breath": breath,
        "single volumes": np.eye(len(artefacts))[:, single],
    }
    return {kind: courses[:, courses.any(axis=0)] for kind, courses in causes.items()}


def _waves(phase: Array) -> Array:
    """Sine and cosine of a rhythm (T, 4) and of its overtone."""
    return np.column_stack([wave(k * phase) for k in (1, 2) for wave in (np.sin, np.cos)])


def split_parcels(
    series: Array, neural: Array, causes: Mapping[str, Array], filters: Design
) -> Parts:
    """Split the parcels' `series` (T, parcels) by a fit to what `filters` leave of all of it."""
    kinds = list(causes)
    columns = np.hstack([causes[kind] for kind in kinds])
    ends = np.cumsum([0, *(causes[kind].shape[1] for kind in kinds)])
    seen, true, planted = (through(filters, part) for part in (series, neural, columns))
    freedom = filters.freedom - 1 - columns.shape[1]
    count = series.shape[1]
    gains, noise = np.zeros(count), np.zeros(count)
    weights = np.zeros((columns.shape[1], count))
    # The parcels' neural courses hardly matter for the doubt about the causes' weights.
    doubt: Array = np.asarray(np.linalg.pinv(planted.T @ planted), dtype=np.float64)
    for k in range(count):
        design = np.column_stack([true[:, k], planted])
        fit = np.linalg.lstsq(design, seen[:, k], rcond=None)[0]
        gains[k], weights[:, k] = fit[0], fit[1:]
        noise[k] = ((seen[:, k] - design @ fit) ** 2).sum() / freedom
    place = {kind: slice(*ends[i : i + 2]) for i, kind in enumerate(kinds)}
    return Parts(
        neural=neural * gains,
        causes=causes,
        weights={kind: weights[at] for kind, at in place.items()},
        doubt={kind: doubt[at, at] for kind, at in place.items()},
        noise=noise,
    )


def left_of(parts: Parts, design: Design) -> dict[str, float]:
    """Sum of squares over volumes and parcels of what a design leaves of each part.

    The squares of weights that are known up to an error are too large by its variance, which is
    taken off.
    """
    left = {"neural": float((through(design, parts.neural) ** 2).sum())}
    for kind, courses in parts.causes.items():
        after = through(design, courses)
        chance = np.trace(after @ parts.doubt[kind] @ after.T) * parts.noise.sum()
        left[kind] = float(((after @ parts.weights[kind]) ** 2).sum() - chance)
    return left


def neural_error(parts: Parts, design: Design, filters: Design) -> float:
    """Sum of squares of what a design does to the neural part, be it taking away or adding.

    An oblique fit may add as much as it takes away, so that the variance that is left says nothing.
    """
    return float(((through(design, parts.neural) - through(filters, parts.neural)) ** 2).sum())


def through(design: Design, series: Array) -> Array:
    """What a design, filters included, leaves of `series` (T, n), without its mean."""
    size = np.abs(series).max() or 1.0
    values = (_LEVEL * (1 + series / size)).astype(np.float32)
    clean(values, design)
    left = values.astype(np.float64)
    return np.asarray((left - left.mean(axis=0)) * size / _LEVEL)


def parcel_r(series: Array, neural: Array, design: Design, filters: Design) -> float:
    """Median over parcels of the correlation of denoised with true series."""
    return float(np.nanmedian(correlation(through(design, series), through(filters, neural))))


def planted_noise(
    mixing: Array, neural: Array, causes: Mapping[str, Array], filters: Design
) -> NDArray[np.bool_]:
    """Which components (k,) the planted causes explain better than the neural truth does.

    Both by the share of the course's variance, less what so many columns explain by chance; the
    neural truth by its leading components.
    """
    left, size, _ = np.linalg.svd(through(filters, neural), full_matrices=False)
    kept = 1 + int(np.searchsorted(np.cumsum(size**2) / (size**2).sum(), _NEURAL_SHARE))
    planted = np.linalg.qr(through(filters, np.hstack(list(causes.values()))))[0]
    courses = through(filters, mixing)
    explained = [_explained(courses, basis, filters.freedom) for basis in (planted, left[:, :kept])]
    return np.asarray(explained[0] > explained[1])


def _explained(courses: Array, basis: Array, freedom: float) -> Array:
    """Adjusted R^2 (k,) of each course (T, k) on an orthonormal basis (T, c)."""
    share = ((basis.T @ courses) ** 2).sum(axis=0) / (courses**2).sum(axis=0)
    return np.asarray(1 - (1 - share) * freedom / (freedom - basis.shape[1]))


def qc_fc(connectivity: Array, mean_fd: Array) -> float:
    """Median over pairs of |r| over recordings of mean FD (n,) with connectivity (n, pairs).

    Ciric et al. (2017), NeuroImage 154:174. Few recordings give a large value by chance alone.
    """
    pairs = np.isfinite(connectivity).all(axis=0)
    fd = np.repeat(mean_fd[:, None], int(pairs.sum()), axis=1)
    return float(np.nanmedian(np.abs(correlation(connectivity[:, pairs], fd))))


def agreement(called: NDArray[np.bool_], true: NDArray[np.bool_]) -> dict[str, float]:
    """Precision, recall and F1 of the components called noise; NaN where there are none."""
    hits = float((called & true).sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = np.float64(hits) / called.sum(), np.float64(hits) / true.sum()
        f1 = np.float64(2 * hits) / (called.sum() + true.sum())
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1)}
