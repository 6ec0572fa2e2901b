"""Partial statistics of some recordings: counts, exact sums, and the values inside the brackets.

Parts of any grouping of the recordings, in any order, say the same together: counts and sums add
without rounding, and values are only ever put side by side.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, ResourceError
from .brackets import POOLED_ROW, Brackets
from .exact_sums import add_to, make_sums
from .series import Series
from .tensorfile import about_of, open_tensors

PART_SCHEMA_VERSION = 1
ROWS = POOLED_ROW + 1
_IN_MEMORY = 512_000_000  # bytes


@dataclass(frozen=True, eq=False)
class Measured:
    """One recording against the brackets; only counted volumes, only parcels with data."""

    volumes: int
    present: NDArray[np.bool_]  # (parcels,)
    below: NDArray[np.int64]  # (ROWS, parcels), values below each interval
    inside: NDArray[np.int64]  # (ROWS, parcels), values inside it
    values: tuple[NDArray[np.float64], ...]  # of each row: those inside, parcel after parcel
    sums: NDArray[np.float64]  # (2, parcels), of the values and of their squares
    low: NDArray[np.float32]  # (parcels,), least raw value, inf without data
    high: NDArray[np.float32]


def measure(series: Series, brackets: Brackets) -> Measured:
    """One recording's counts, sums and values to keep."""
    raw = series.values if series.counted.all() else series.values[:, series.counted]
    parcels, volumes = raw.shape
    if volumes == 0:
        nothing = np.zeros((ROWS, parcels), np.int64)
        limits = np.full(parcels, np.inf, np.float32)
        return Measured(
            volumes=0,
            present=np.zeros(parcels, bool),
            below=nothing,
            inside=nothing,
            values=(np.empty(0),) * ROWS,
            sums=np.zeros((2, parcels)),
            low=limits,
            high=-limits,
        )
    present = ~np.isnan(raw[:, 0])
    values = brackets.values_of(raw)
    counts, kept = [], []
    sums = np.stack([values.sum(axis=1), (values * values).sum(axis=1)])
    for row in range(ROWS):
        if row == POOLED_ROW:
            np.abs(values, out=values)
        split = _split_top if row == POOLED_ROW else _split
        below, within, inside = split(values, brackets.low[row], brackets.high[row])
        counts.append((np.where(present, below, 0), inside))
        kept.append(within)
    return Measured(
        volumes=volumes,
        present=present,
        below=np.stack([below for below, _ in counts]),
        inside=np.stack([inside for _, inside in counts]),
        values=tuple(kept),
        sums=np.where(present, sums, 0.0),
        low=np.where(present, raw.min(axis=1), np.float32(np.inf)),
        high=np.where(present, raw.max(axis=1), np.float32(-np.inf)),
    )


def _split(
    values: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """How many of each parcel's values (parcels, time) lie below; those inside, and how many."""
    parcels, volumes = values.shape
    reached = values >= low[:, None]
    below = volumes - np.add.reduce(reached, axis=1, dtype=np.int64)
    reached &= values <= high[:, None]
    places = np.flatnonzero(reached)
    ends = np.searchsorted(places, np.arange(parcels + 1) * volumes)
    return below, values.ravel()[places], np.diff(ends)


def _split_top(
    values: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """As `_split`, faster where nearly all values lie below."""
    parcels, volumes = values.shape
    edges = np.arange(parcels + 1) * volumes
    places = np.flatnonzero(values >= low[:, None])
    reached = np.diff(np.searchsorted(places, edges))
    found = values.ravel()[places]
    inside = found <= np.repeat(high, reached)
    return volumes - reached, found[inside], np.diff(np.searchsorted(places[inside], edges))


@dataclass(frozen=True, eq=False)
class Totals:
    """What parts hold besides values; `a + b` in any order and grouping is the same."""

    n: NDArray[np.int64]  # (parcels,), values in all
    below: NDArray[np.int64]  # (ROWS, parcels)
    inside: NDArray[np.int64]  # (ROWS, parcels)
    total: NDArray[np.int64]  # (parcels, LIMBS), of the values (`exact_sums`)
    squares: NDArray[np.int64]  # (parcels, LIMBS), of their squares
    low: NDArray[np.float32]  # (parcels,), least and greatest raw value
    high: NDArray[np.float32]

    @classmethod
    def nothing(cls, parcels: int) -> Totals:
        """Of no recording."""
        return cls(
            n=np.zeros(parcels, np.int64),
            below=np.zeros((ROWS, parcels), np.int64),
            inside=np.zeros((ROWS, parcels), np.int64),
            total=make_sums(parcels),
            squares=make_sums(parcels),
            low=np.full(parcels, np.inf, np.float32),
            high=np.full(parcels, -np.inf, np.float32),
        )

    def __add__(self, other: Totals) -> Totals:
        """Of both."""
        merged = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("n", "below", "inside", "total", "squares"):
            merged[name] = merged[name] + getattr(other, name)
        return Totals(
            **{
                **merged,
                "low": np.minimum(self.low, other.low),
                "high": np.maximum(self.high, other.high),
            }
        )

    def include(self, found: Measured) -> None:
        """Add one recording, in place."""
        self.n[:] += found.volumes * found.present
        self.below[:] += found.below
        self.inside[:] += found.inside
        add_to(self.total, found.sums[0])
        add_to(self.squares, found.sums[1])
        np.minimum(self.low, found.low, out=self.low)
        np.maximum(self.high, found.high, out=self.high)


class Values(Protocol):
    """A long row of float64, in memory or in a file, read by slices."""

    def __getitem__(self, wanted: slice, /) -> NDArray[np.float64]: ...


@dataclass(frozen=True, eq=False)
class Part:
    """The statistics of some recordings."""

    totals: Totals
    values: Sequence[Values]  # of each row: those inside, parcel after parcel

    def slice(self, row: int, first: int, last: int) -> tuple[NDArray[np.float64], list[int]]:
        """The values that parcels [first, last) hold in one row, and where each one's end."""
        ends = np.concatenate([[0], np.cumsum(self.totals.inside[row])])
        values = self.values[row][int(ends[first]) : int(ends[last])]
        return values, [int(end) for end in ends[first : last + 1] - ends[first]]


def make_part(recordings: Iterable[Measured], parcels: int) -> Part:
    """Put recordings together; their values in their order, parcel after parcel."""
    totals = Totals.nothing(parcels)
    found: list[Measured] = []
    for measured in recordings:
        totals.include(measured)
        found.append(measured)
    values = []
    for row in range(ROWS):
        gathered = np.empty(int(totals.inside[row].sum()))
        ahead = np.cumsum(totals.inside[row]) - totals.inside[row]  # (parcels,), next free place
        for measured in found:
            sizes = measured.inside[row]
            shift = ahead - (np.cumsum(sizes) - sizes)
            gathered[np.repeat(shift, sizes) + np.arange(sizes.sum())] = measured.values[row]
            ahead += sizes
        values.append(gathered)
    return Part(totals, tuple(values))


def load_part(path: str | Path) -> tuple[Part, dict[str, Any]]:
    """Read a part, whose values stay in the file, and what is said about it."""
    handle = open_tensors(path)
    about = about_of(handle, path)
    names = {field.name for field in fields(Totals)}
    keys = names | {f"values_{row}" for row in range(ROWS)}
    if set(handle.keys()) != keys or about.get("schema_version") != PART_SCHEMA_VERSION:
        raise DataError(
            "This file holds no partial statistics, or those of another version",
            file=path,
            fix="make it with `brainlm scale-part`",
        )
    totals = Totals(**{name: handle.get_tensor(name) for name in names})
    return Part(totals, tuple(_Stored(Path(path), f"values_{row}") for row in range(ROWS))), about


@dataclass(frozen=True)
class _Stored:
    """Values in a safetensors file, opened for each slice: what is mapped counts as memory."""

    path: Path
    name: str

    def __getitem__(self, wanted: slice) -> NDArray[np.float64]:
        if wanted.start == wanted.stop:
            return np.empty(0)
        values: NDArray[np.float64] = open_tensors(self.path).get_slice(self.name)[wanted]
        return values


@dataclass(frozen=True)
class _Spooled:
    """Values in a scratch file."""

    file: IO[bytes]
    offset: int  # bytes

    def __getitem__(self, wanted: slice) -> NDArray[np.float64]:
        size = np.dtype(np.float64).itemsize
        first, count = self.offset + wanted.start * size, wanted.stop - wanted.start
        return np.frombuffer(os.pread(self.file.fileno(), count * size, first))


class Spool:
    """Keeps the values of parts: some in memory, what is more in a scratch file.

    The file has no name, so it goes when the process ends.
    """

    def __init__(self, in_memory: int = _IN_MEMORY) -> None:
        """At most `in_memory` bytes stay there; the file is opened in $TMPDIR."""
        self._room = in_memory
        self._file = tempfile.TemporaryFile(prefix="brainlm-")  # noqa: SIM115 - lives as long as we

    def put(self, part: Part) -> Part:
        """The same part, with its values where there is room for them."""
        size = sum(values[:].nbytes for values in part.values)
        if size <= self._room:
            self._room -= size
            return part
        try:
            stored = []
            for values in part.values:
                stored.append(_Spooled(self._file, self._file.seek(0, os.SEEK_END)))
                self._file.write(np.ascontiguousarray(values[:]).data)
            self._file.flush()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise ResourceError(
                "There is no room for the values about the quartiles",
                file=tempfile.gettempdir(),
                fix="set TMPDIR to a larger disk; by hand, let Snakemake make the parts instead",
            ) from None
        return Part(part.totals, tuple(stored))
