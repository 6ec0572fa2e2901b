"""Vectors of recordings on a plane: principal components, UMAP, and how far to trust either."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Principal components that are kept.
COMPONENTS = 10
#: With fewer recordings UMAP's picture is that of its starting point.
FEWEST_FOR_UMAP = 10
_BLOCK = 1024


class NoMapError(Exception):
    """Why a map cannot be made."""


def principal_components(
    train: NDArray[np.float32], vectors: NDArray[np.float32]
) -> tuple[Floats, Floats]:
    """Coordinates of `vectors` (n, hidden) on the axes of `train`, and the shares they explain.

    (n, components) and (components,): shares of the train vectors' variance. An axis points to
    where its largest entry is positive, so that equal vectors give equal signs.
    """
    if len(train) < 3:
        raise NoMapError(f"{len(train)} train recordings, principal components need 3")
    mean = train.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((train.shape[1],) * 2)
    for first in range(0, len(train), _BLOCK):
        part = train[first : first + _BLOCK] - mean
        covariance += part.T @ part
    values, axes = np.linalg.eigh(covariance)
    count = min(COMPONENTS, len(train) - 1, len(values))
    values, axes = np.maximum(values[::-1], 0), axes[:, ::-1][:, :count]
    if not values[0] > 1e-12 * float((mean**2).sum()) * len(train):
        raise NoMapError("the train recordings' vectors do not differ")
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(count)])
    return (vectors - mean) @ axes, values[:count] / values.sum()


def umap_plane(
    vectors: NDArray[np.float32], start: Floats, neighbours: int, seed: int
) -> NDArray[np.float32]:
    """UMAP of `vectors` (n, hidden) on a plane, (n, 2), begun at `start` (n, 2), e.g. PCA.

    McInnes et al. (2018); from principal components, so that what is far apart stays so (Kobak and
    Linderman 2021). Seeded and in one thread: equal vectors give equal bytes.
    """
    try:
        from umap import UMAP
    except ImportError:
        raise NoMapError("umap-learn is not installed: pip install 'brainlm[umap]'") from None
    if len(vectors) < FEWEST_FOR_UMAP:
        raise NoMapError(f"{len(vectors)} recordings, UMAP needs {FEWEST_FOR_UMAP}")
    begun = start / (np.abs(start).max() or 1.0)
    model = UMAP(
        n_neighbors=min(neighbours, len(vectors) - 1),
        init=begun.astype(np.float32),
        random_state=seed % 2**32,
        n_jobs=1,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own packages
        return np.asarray(model.fit_transform(vectors), np.float32)


def trustworthiness(vectors: NDArray[np.floating], plane: NDArray[np.floating], k: int) -> float:
    """How far neighbours on the plane are neighbours among the vectors: 1 is all, 0.5 as by chance.

    Venna and Kaski (2001), over the `k` nearest of each; NaN with too few to tell (k >= n / 2).
    Block by block: memory is that of a thousand rows of distances.
    """
    n = len(vectors)
    if n < 4 or k >= n / 2:
        return float("nan")
    lost = 0.0
    for first in range(0, n, _BLOCK):
        rows = np.arange(first, min(first + _BLOCK, n))
        order = _by_distance(vectors, rows)
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(n)[None], axis=1)  # 0 is the row itself
        near = _by_distance(plane, rows)[:, 1 : k + 1]
        lost += np.maximum(np.take_along_axis(ranks, near, axis=1) - k, 0).sum()
    return 1 - 2 * lost / (n * k * (2 * n - 3 * k - 1))


def squared_distances(points: NDArray[np.floating], rows: NDArray[np.int64]) -> Floats:
    """Squared Euclidean distances of some `rows` of points (n, dimensions) to all, (rows, n)."""
    centred = points.astype(np.float64)
    centred -= centred.mean(axis=0)  # far from 0 the differences below would be lost
    squares = (centred**2).sum(axis=1)
    found: Floats = squares[rows, None] + squares - 2 * centred[rows] @ centred.T
    return found


def _by_distance(points: NDArray[np.floating], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """All points by their distance to each of `rows`, itself first, (rows, n)."""
    distances = squared_distances(points, rows)
    distances[np.arange(len(rows)), rows] = -np.inf  # before its copies
    return np.argsort(distances, axis=1, kind="stable")
