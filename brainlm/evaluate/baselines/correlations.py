"""Functional connectivity of many recordings: fast, and in memory that does not grow with them.

What takes the time of `numpy.corrcoef` is a product of matrices in float64 and passes over fresh
arrays. Here the product is one of float32 (a symmetric one, half of the work), all arrays are made
once, and threads take a recording each: numpy lets go of the interpreter while it computes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]

#: Recordings whose connectivity is held at once, 90 MB of 424 parcels.
_AT_ONCE = 256
_LARGEST_R = 0.999999


class Series(Protocol):
    """What has a recording's series (time, parcels) by its name: a reader of shards."""

    def series(self, recording_id: str, /) -> NDArray[np.floating[Any]]:
        """Scaled; NaN marks parcels without data."""


def connectivity(series: NDArray[np.floating[Any]]) -> Singles:
    """Upper triangle of the correlation matrix, Fisher-z, of a recording (time, parcels).

    Pairs with a parcel that has no data, or does not vary, are NaN.
    """
    return fisher_z(correlation(series))


def fisher_z(r: Singles, out: Singles | None = None) -> Singles:
    """Of the pairs above the diagonal of a correlation matrix."""
    upper = r.ravel().take(_pairs(len(r)), out=out, mode="clip")  # "raise" would copy
    return np.arctanh(np.clip(upper, -_LARGEST_R, _LARGEST_R, out=upper), out=upper)


def correlation(series: NDArray[np.floating[Any]], out: Singles | None = None) -> Singles:
    """Of all pairs of parcels, (parcels, parcels); within 1e-5 of `numpy.corrcoef`.

    NaN where a parcel has no data in some time point, or does not vary; the diagonal as well.
    """
    around = series.astype(np.float32)
    each = np.full(len(around), 1 / len(around), np.float32)
    # The second time about what rounding left: means may be a thousand times what varies.
    around -= around[:1]
    around -= each @ around
    around -= each @ around
    power = np.einsum("tp,tp->p", around, around)
    with np.errstate(invalid="ignore", divide="ignore"):
        around *= np.where(power > 0, 1 / np.sqrt(power), np.nan)
        return np.matmul(around.T, around, out=out)


def connectivity_of(names: Sequence[str], source: Series, threads: int = 1) -> Singles:
    """Of recordings, (recordings, pairs), in their order."""
    blocks = list(in_blocks(names, source, threads))
    return np.concatenate(blocks) if len(blocks) > 1 else blocks[0]


def in_blocks(names: Iterable[str], source: Series, threads: int = 1) -> Iterator[Singles]:
    """The same in blocks of some recordings: no more are held at once."""
    rest = iter(names)
    own = threading.local()  # each thread's matrix, made once

    def fill(block: Singles, row: int, series: NDArray[np.floating[Any]]) -> None:
        if getattr(own, "matrix", None) is None:
            own.matrix = np.empty((series.shape[1], series.shape[1]), np.float32)
        fisher_z(correlation(series, own.matrix), block[row])

    with ThreadPoolExecutor(threads) as pool:
        while some := list(islice(rest, _AT_ONCE)):
            first = source.series(some[0])
            block = np.empty((len(some), len(_pairs(first.shape[1]))), np.float32)
            fill(block, 0, first)
            others = enumerate(some[1:], start=1)
            list(pool.map(lambda one, to=block: fill(to, one[0], source.series(one[1])), others))
            yield block


@cache
def _pairs(parcels: int) -> NDArray[np.intp]:
    """Places of the pairs in a matrix that is read row by row."""
    return np.flatnonzero(np.triu(np.ones((parcels, parcels), bool), k=1))
