"""Many numbers of a recording as two, to be looked at."""

from __future__ import annotations

import importlib.metadata
import warnings

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: UMAP needs neighbours: with fewer recordings its picture says nothing.
_FEWEST_FOR_UMAP = 30


def two_dimensions(vectors: Floats) -> tuple[Floats, tuple[str, str]]:
    """(recordings, hidden) -> (recordings, 2), and what the two are called.

    UMAP where the package umap-learn is installed, else the two largest principal components.
    """
    if len(vectors) >= _FEWEST_FOR_UMAP and _umap_is_here():
        return _umap(vectors), ("UMAP 1", "UMAP 2")
    return principal_components(vectors)


def principal_components(vectors: Floats) -> tuple[Floats, tuple[str, str]]:
    """The two largest, with their shares of the variance; the largest entry of each is positive."""
    centred = vectors - vectors.mean(axis=0)
    scores, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(vectors), 2))
    count = min(2, len(sizes))
    signs = np.sign(axes[np.arange(count), np.abs(axes[:count]).argmax(axis=1)])
    places[:, :count] = scores[:, :count] * sizes[:count] * np.where(signs == 0, 1, signs)
    shares = np.zeros(2)
    if sizes.any():
        shares[:count] = sizes[:count] ** 2 / (sizes**2).sum()
    first, second = (f"principal component {n + 1} ({shares[n]:.0%})" for n in range(2))
    return places, (first, second)


def _umap_is_here() -> bool:
    try:  # asked for by the package's name: another one has a module called umap
        importlib.metadata.version("umap-learn")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _umap(vectors: Floats) -> Floats:
    import umap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a fixed seed means one thread
        found = umap.UMAP(n_neighbors=15, random_state=0).fit_transform(vectors)
    return np.asarray(found, np.float64)
