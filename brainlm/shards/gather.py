"""Exact quantiles from parts: the ranks that numpy.percentile asks for, and its interpolation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .brackets import POOLED, POOLED_ROW, QUARTILES, Brackets
from .parts import ROWS, Part, Totals

#: Values that are in memory at a time (float64: 256 MB; two copies live while ranks are picked).
_MOST_VALUES = 32_000_000
_BINS_LOG2 = 16


@dataclass(frozen=True, eq=False)
class Quantiles:
    """Exact quantiles of all recordings, and the totals they stand on."""

    quartiles: NDArray[np.float64]  # (3, parcels), NaN without data
    pooled: float  # of the absolute values of all parcels, NaN without data
    totals: Totals


def fit_quantiles(
    parts_of: Callable[[Brackets], Sequence[Part]],
    brackets: Brackets,
    most: int = _MOST_VALUES,
) -> Quantiles:
    """The exact quantiles of what `parts_of` measures against brackets.

    The counts prove whether a wanted rank lies in its bracket. Where one does not, the counts also
    tell on which side it lies, and a second pass keeps all values there: it cannot miss.
    """
    parts = parts_of(brackets)
    totals = reduce(add, (part.totals for part in parts), Totals.nothing(brackets.parcels))
    found, pooled, missed = _quantiles(parts, totals, most)
    if missed.any():
        wider = _widened(brackets, totals, missed)
        again = parts_of(wider)
        counts = reduce(add, (part.totals for part in again), Totals.nothing(brackets.parcels))
        second, second_pooled, _ = _quantiles(again, counts, most)
        found = np.where(missed[:POOLED_ROW], second, found)
        pooled = second_pooled if missed[POOLED_ROW].any() else pooled
    return Quantiles(found, pooled, totals)


@dataclass(frozen=True)
class _Rank:
    """What numpy.percentile (linear) takes: two neighbours in order, and the way between them."""

    lower: int
    upper: int
    way: float

    def between(self, low: float, high: float) -> float:
        """Interpolated with numpy's own steps, so that the bits are numpy's; never -0."""
        step = high - low
        value = low + step * self.way if self.way < 0.5 else high - step * (1 - self.way)
        return float(value) + 0.0


def _rank(count: int, percent: float) -> _Rank:
    place = (count - 1) * (percent / 100)
    lower = math.floor(place)
    return _Rank(lower, min(lower + 1, count - 1), place - lower)


def _quantiles(
    parts: Sequence[Part], totals: Totals, most: int
) -> tuple[NDArray[np.float64], float, NDArray[np.bool_]]:
    """Quartiles (3, parcels), the pooled percentile, and which of them (ROWS, parcels) missed."""
    parcels = len(totals.n)
    found = np.full((POOLED_ROW, parcels), np.nan)
    missed = np.zeros((ROWS, parcels), bool)
    for row, percent in enumerate(QUARTILES):
        for parcel, values in values_by_parcel(parts, row, totals.inside[row], most):
            if count := int(totals.n[parcel]):
                rank = _rank(count, percent)
                below, inside = int(totals.below[row, parcel]), int(totals.inside[row, parcel])
                if _holds(rank, below, inside):
                    found[row, parcel] = _pick(values, rank, below, inside, most)
                else:
                    missed[row, parcel] = True
    pooled = math.nan
    if count := int(totals.n.sum()):
        rank = _rank(count, POOLED)
        below, inside = int(totals.below[POOLED_ROW].sum()), int(totals.inside[POOLED_ROW].sum())
        if _holds(rank, below, inside):
            pooled = _pick(_Everything(parts, POOLED_ROW, most), rank, below, inside, most)
        else:
            missed[POOLED_ROW] = True
    return found, pooled, missed


def _holds(rank: _Rank, below: int, inside: int) -> bool:
    return below <= rank.lower and rank.upper < below + inside


def _widened(brackets: Brackets, totals: Totals, missed: NDArray[np.bool_]) -> Brackets:
    """Intervals that hold the missed ranks for sure, and nothing for those that were found."""
    low, high = np.full_like(brackets.low, np.inf), np.full_like(brackets.high, np.inf)
    for row, parcel in np.argwhere(missed):
        if row == POOLED_ROW:
            rank = _rank(int(totals.n.sum()), POOLED)
            below, inside = int(totals.below[row].sum()), int(totals.inside[row].sum())
        else:
            rank = _rank(int(totals.n[parcel]), QUARTILES[row])
            below, inside = int(totals.below[row, parcel]), int(totals.inside[row, parcel])
        low[row, parcel] = -np.inf if rank.lower < below else brackets.low[row, parcel]
        beyond = rank.upper >= below + inside
        high[row, parcel] = np.inf if beyond else brackets.high[row, parcel]
    return Brackets(low, high, brackets.mean_removed)


def values_by_parcel(
    parts: Sequence[Part], row: int, sizes: NDArray[np.int64], most: int = _MOST_VALUES
) -> Iterator[tuple[int, Iterable[NDArray[np.float64]]]]:
    """Each parcel with the values of a row that `parts` hold, part after part; `sizes` in all.

    About `most` values are in memory at a time.
    """
    for first, last in _blocks(sizes, most):
        yield from _by_parcel(parts, row, first, last, sizes, most)


def _blocks(sizes: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Runs of parcels [first, last) that hold at most `most` values, or one parcel."""
    first, held = 0, 0
    for parcel, size in enumerate(sizes):
        if parcel > first and held + size > most:
            yield first, parcel
            first, held = parcel, 0
        held += int(size)
    yield first, len(sizes)


def _by_parcel(
    parts: Sequence[Part], row: int, first: int, last: int, sizes: NDArray[np.int64], most: int
) -> Iterator[tuple[int, Iterable[NDArray[np.float64]]]]:
    """Each parcel of a block with its values, in pieces that can be gone through repeatedly."""
    if sizes[first:last].sum() > most:  # then it is one parcel
        yield first, _Everything(parts, row, most, first, last)
        return
    slices = [part.slice(row, first, last) for part in parts]
    for at, parcel in enumerate(range(first, last)):
        yield parcel, [values[ends[at] : ends[at + 1]] for values, ends in slices]


@dataclass(frozen=True)
class _Everything:
    """The values of a row in all parts, read anew each time that they are gone through."""

    parts: Sequence[Part]
    row: int
    most: int
    first: int = 0
    last: int | None = None

    def __iter__(self) -> Iterator[NDArray[np.float64]]:
        for part in self.parts:
            ends = np.concatenate([[0], np.cumsum(part.totals.inside[self.row])])
            last = len(ends) - 1 if self.last is None else self.last
            for start in range(int(ends[self.first]), int(ends[last]), self.most):
                yield part.values[self.row][start : min(start + self.most, int(ends[last]))]


def _pick(
    chunks: Iterable[NDArray[np.float64]], rank: _Rank, below: int, inside: int, most: int
) -> float:
    """The quantile from the values of a bracket, above `below` smaller ones."""
    wanted = (rank.lower - below, rank.upper - below)
    if inside <= most:
        values = np.concatenate(list(chunks))
        values.partition(wanted)
        return rank.between(*values[list(wanted)])
    return rank.between(*(_select(chunks, place, most) for place in wanted))


def _select(chunks: Iterable[NDArray[np.float64]], place: int, most: int) -> float:
    """The value at a place in the order of more values than fit in memory together.

    Floats sort as integers of their bits do, so the range of those is cut into bins; the bin that
    holds the place is cut again, until what it holds fits.
    """
    low, high = 0, (1 << 64) - 1
    while True:
        shift = max(0, (high - low).bit_length() - _BINS_LOG2)
        counts = np.zeros(1 << _BINS_LOG2, np.int64)
        for keys in _keys_between(chunks, low, high):
            bins = ((keys - np.uint64(low)) >> np.uint64(shift)).astype(np.int64)
            counts += np.bincount(bins, minlength=len(counts))
        ends = np.cumsum(counts)
        bin_ = int(np.searchsorted(ends, place, side="right"))
        place -= int(ends[bin_] - counts[bin_])
        low, high = low + (bin_ << shift), low + ((bin_ + 1) << shift) - 1
        if shift == 0 or counts[bin_] <= most:
            break
    if shift == 0:  # all of them are the same number
        return float(_values_of(np.array([low], np.uint64))[0])
    keys = np.concatenate(list(_keys_between(chunks, low, high)))
    keys.partition(place)
    return float(_values_of(keys[place : place + 1])[0])


_SIGN = np.uint64(1 << 63)


def _keys_between(
    chunks: Iterable[NDArray[np.float64]], low: int, high: int
) -> Iterator[NDArray[Any]]:
    for chunk in chunks:
        bits = np.ascontiguousarray(chunk).view(np.uint64)
        keys = np.where(bits & _SIGN, ~bits, bits | _SIGN)
        yield keys[(keys >= np.uint64(low)) & (keys <= np.uint64(high))]


def _values_of(keys: NDArray[Any]) -> NDArray[np.float64]:
    bits = np.where(keys & _SIGN, keys & ~_SIGN, ~keys)
    return bits.view(np.float64)
