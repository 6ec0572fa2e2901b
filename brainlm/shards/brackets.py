"""Where each parcel's quartiles lie, to within a narrow interval, told from a sample of recordings.

With the interval known, one pass over all the data is enough for the exact quartile: count what
lies below, keep what lies inside (`parts.py`), and pick the wanted rank (`gather.py`). The sample
decides how much is kept, never what comes out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .scaler import remove_mean
from .series import Series
from .splits import uniform_of
from .tensorfile import load_tensors, save_tensors

#: What is looked for, in percent: of each parcel's values after their mean is removed ...
QUARTILES = (25.0, 50.0, 75.0)
#: ... and of the absolute values of all parcels together; its row comes after the quartiles'.
POOLED, POOLED_ROW = 99.0, 3

SCHEMA_VERSION = 1
#: Half the width of an interval, in standard errors: a normal estimate misses once in 2 million.
_STANDARD_ERRORS = 5.0
#: Neighbours that are kept on either side besides.
_SPARE = 3
#: Values of the sample that are held (float32: 640 MB); a larger sample is thinned over time.
_MOST_VALUES = 160_000_000
_MOST_POOLED = 4_000_000


@dataclass(frozen=True, eq=False)
class Brackets:
    """Closed intervals [low, high]; rows are the three quartiles, then the pooled percentile."""

    low: NDArray[np.float64]  # (4, parcels); the last row is the same for all parcels
    high: NDArray[np.float64]
    mean_removed: bool = True  # of values less each recording's mean; else as they are stored

    @property
    def parcels(self) -> int:
        """Number of parcels."""
        return self.low.shape[1]

    @property
    def sha256(self) -> str:
        """What tells these intervals from others."""
        limits = self.low.tobytes() + self.high.tobytes()
        return hashlib.sha256(limits + bytes([self.mean_removed])).hexdigest()

    def values_of(
        self, series: NDArray[np.float32], counted: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """What the intervals are about, of one recording (parcels, time)."""
        if self.mean_removed:
            return remove_mean(series, counted)
        return np.array(series, dtype=np.float64, order="C")


def choose_sample(recording_ids: Iterable[str]) -> set[str]:
    """The recordings to sample, by a hash of their names: about 4 times the root of their number.

    A larger sample narrows the intervals, as its root, but all of it is read twice.
    """
    drawn = sorted(recording_ids, key=lambda name: (uniform_of("scale", name), name))
    return set(drawn[: max(64, math.ceil(4 * math.sqrt(len(drawn))))])


def bracket(
    recordings: Iterable[Series],
    *,
    parcels: int,
    lengths: Iterable[int],
    population: int,
    mean_removed: bool = True,
) -> Brackets:
    """Intervals from a sample of recordings.

    `lengths` are the sampled recordings' numbers of volumes, `population` that of all recordings
    together; `mean_removed` says whether of values less their recording's mean.
    """
    lengths = list(lengths)
    limits = np.full((POOLED_ROW + 1, parcels), np.inf)
    nothing = Brackets(-limits, limits, mean_removed)
    every = max(1.0, sum(lengths) * parcels / _MOST_VALUES)
    capacity = sum(math.ceil(length / every) for length in lengths)
    values = np.empty((parcels, capacity), np.float32)
    ends = [0]
    for series in recordings:
        seen = nothing.values_of(series.values, series.counted)[:, series.counted]
        thinned = seen[:, np.arange(0, seen.shape[1], every).astype(int)]
        if thinned.shape[1]:
            with np.errstate(over="ignore"):
                values[:, ends[-1] : ends[-1] + thinned.shape[1]] = thinned
            ends.append(ends[-1] + thinned.shape[1])
    values, bounds = values[:, : ends[-1]], np.array(ends)
    unseen = max(0.0, 1 - ends[-1] / population) if population else 0.0
    low, high = -limits, limits.copy()
    for parcel in range(parcels):
        low[:POOLED_ROW, parcel], high[:POOLED_ROW, parcel] = _of_parcel(
            values[parcel], bounds, unseen
        )
    low[POOLED_ROW], high[POOLED_ROW] = _of_all(values, bounds, unseen)
    return Brackets(low, high, mean_removed)


def _of_parcel(
    values: NDArray[np.float32], bounds: NDArray[np.int64], unseen: float
) -> tuple[list[float], list[float]]:
    """Intervals of one parcel's quartiles; recording i is `values[bounds[i] : bounds[i + 1]]`."""
    present = ~np.isnan(values[bounds[:-1]])
    sizes = np.diff(bounds)
    if not present.all():
        values = values[np.repeat(present, sizes)]
        sizes = sizes[present]
    if not len(values):
        return [-np.inf] * len(QUARTILES), [np.inf] * len(QUARTILES)
    starts = np.cumsum(sizes) - sizes
    ordered = np.sort(values)
    low, high = [], []
    for percent in QUARTILES:
        share = percent / 100
        cut = ordered[min(int(share * len(ordered)), len(ordered) - 1)]
        below = np.add.reduceat((values < cut).view(np.uint8), starts, dtype=np.int64)
        half = _STANDARD_ERRORS * _standard_error(below, sizes, unseen)
        edges = _edges(ordered, share - half, share + half)
        low.append(edges[0])
        high.append(edges[1])
    return low, high


def _of_all(
    values: NDArray[np.float32], bounds: NDArray[np.int64], unseen: float
) -> tuple[float, float]:
    """The interval of the pooled percentile of absolute values, (parcels, time) of the sample."""
    step = max(1, values.size // _MOST_POOLED) | 1
    thinned = np.abs(values.ravel()[::step])
    ordered = np.sort(thinned[~np.isnan(thinned)])
    if not len(ordered):
        return -np.inf, np.inf
    share = POOLED / 100
    cut = ordered[min(int(share * len(ordered)), len(ordered) - 1)]
    below, sizes = np.zeros(len(bounds) - 1, np.int64), np.zeros(len(bounds) - 1, np.int64)
    for number, (first, last) in enumerate(pairwise(bounds)):
        found = np.abs(values[:, first:last])
        below[number] = np.count_nonzero(found < cut)
        sizes[number] = np.count_nonzero(~np.isnan(found))
    covered = sizes > 0
    half = _STANDARD_ERRORS * _standard_error(below[covered], sizes[covered], unseen)
    if step > 1:
        half += _STANDARD_ERRORS * math.sqrt(share * (1 - share) / len(ordered))
        half += abs(float(below.sum() / sizes.sum()) - share)
    return _edges(ordered, share - half, share + half)


def _standard_error(below: NDArray[np.int64], sizes: NDArray[np.int64], unseen: float) -> float:
    """Of the share of values below a cut: recordings are drawn whole, so they are what varies.

    The ratio estimator of cluster sampling (Cochran 1977, eq. 11.30), with the share of the data
    that is `unseen` as its finite population correction; widened where few recordings tell of
    their spread, about as Student's t is.
    """
    if unseen == 0:
        return 0.0
    count = len(below)
    if count < 2:
        return math.inf
    residual = below - sizes * (below.sum() / sizes.sum())
    spread = math.sqrt(float(residual @ residual) * count / (count - 1)) / float(sizes.sum())
    return spread * math.sqrt(unseen) * (1 + 12 / (count - 1))


def _edges(ordered: NDArray[np.float32], first: float, last: float) -> tuple[float, float]:
    """The values at two shares (may lie beyond 0 and 1), one float32 further out.

    The sample is rounded to float32, which keeps its order: a value lies between the
    neighbours of what it was rounded to.
    """
    count = len(ordered)
    lowest = math.floor(max(first, -1) * count) - _SPARE
    highest = math.ceil(min(last, 2) * count) + _SPARE
    return (
        float(np.nextafter(ordered[lowest], np.float32(-np.inf))) if lowest >= 0 else -np.inf,
        float(np.nextafter(ordered[highest], np.float32(np.inf))) if highest < count else np.inf,
    )


def save_brackets(path: str | Path, brackets: Brackets, about: Mapping[str, Any]) -> None:
    """Write the intervals as safetensors; equal content gives equal bytes."""
    save_tensors(
        path,
        {"low": brackets.low, "high": brackets.high},
        {**about, "mean_removed": brackets.mean_removed, "schema_version": SCHEMA_VERSION},
    )


def load_brackets(path: str | Path) -> tuple[Brackets, dict[str, Any]]:
    """Read the intervals, and what is said about them."""
    tensors, about = load_tensors(path)
    if set(tensors) != {"low", "high"} or about.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            "This file holds no intervals of quartiles, or those of another version",
            file=path,
            fix="make it with `brainlm scale-brackets`",
        )
    return Brackets(tensors["low"], tensors["high"], about["mean_removed"]), about
