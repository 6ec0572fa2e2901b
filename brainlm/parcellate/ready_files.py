"""Tables of numbers in the formats that people keep parcel series in."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..images import unreadable
from .plain_text import MISSING, is_number, read_plain

_READ_ERRORS = (ValueError, TypeError, EOFError, OSError, zlib.error)
#: What the column of volume numbers is called, where it is called anything.
_COUNTERS = frozenset({"", "index", "volume", "time", "frame", "unnamed: 0"})
_PANDAS_INDEX = "__index_level_0__"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PLAIN = (
    "`scipy.io.savemat` and MATLAB's `save -v7` write .mat files that can be read; or save the "
    "table as .csv or .npy"
)


@dataclass(frozen=True)
class Table:
    """Numbers as a file holds them, with the names of its columns or its rows, if it has any."""

    values: NDArray[np.float64]  # (rows, columns)
    columns: list[str] | None = None
    rows: list[str] | None = None
    notes: tuple[str, ...] = ()


def load(path: Path) -> Table:
    """Read a table, by its extension; any fault names the file."""
    reader = _READERS.get(path.suffix)
    if reader is None:
        hint = f"HDF5 is not read: {_PLAIN}" if path.suffix in (".h5", ".hdf5") else None
        raise DataError(
            f"Tables end in {', '.join(_READERS)}", file=path, fix=hint or "convert it to one"
        )
    try:
        with path.open("rb") as handle:
            start = handle.read(len(_HDF5))
        if not start:
            raise DataError("The file is empty", file=path, fix="copy it anew from its source")
        if start == _HDF5:
            raise NotImplementedError
        table = reader(path)
    except FileNotFoundError:
        raise DataError("The table does not exist", file=path, fix="restore it") from None
    except NotImplementedError:  # scipy's answer to MATLAB's v7.3
        what = "This is HDF5 (MATLAB's v7.3), which is not read"
        raise DataError(what, file=path, fix=_PLAIN) from None
    except _READ_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(error, path) from error
        why = " ".join(str(error).split())
        raise DataError(f"The table cannot be read: {why}", file=path) from None
    if table.values.ndim != 2 or not table.values.size:
        shape = " x ".join(map(str, table.values.shape))
        raise DataError(f"A table has rows and columns, this is {shape or 'one number'}", file=path)
    return table


def _text(path: Path) -> Table:
    """Text in columns: with names in the first line or the first column, or without any."""
    if plain := read_plain(path):
        return _without_counters(plain.values, plain.head)
    cells = _cells(path)
    width = len(cells[0])
    if uneven := [number for number, row in enumerate(cells, start=1) if len(row) != width]:
        raise ValueError(f"line {uneven[0]} has not {width} columns as the first one has")
    above = any(not is_number(cell) for cell in cells[0][1:])
    alone = not is_number(cells[0][0]) and len(cells) > 1 and is_number(cells[1][0])
    head = cells[0] if above or alone else None
    body = cells[1:] if head else cells
    if not body:
        raise ValueError("there is nothing below its first line")
    if any(not is_number(row[0]) for row in body):
        values, rows = _numbers([row[1:] for row in body], 1), [row[0] for row in body]
        if head is None and _counts(values[0]):  # a line above that numbers the volumes
            values, rows = values[1:], rows[1:]
        return Table(values, rows=rows)
    return _without_counters(_numbers(body, 0), head)


def _cells(path: Path) -> list[list[str]]:
    """The words of each line: split at tabs, commas, semicolons or spaces, whichever is there."""
    lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not lines:
        raise ValueError("there is no line in it")
    for mark in "\t,;":
        if mark in lines[0]:
            return [[c.strip() for c in row] for row in csv.reader(lines, delimiter=mark)]
    return [line.split() for line in lines]


def _without_counters(values: NDArray[np.float64], head: list[str] | None) -> Table:
    """A table without what pandas adds: numbers of the columns above, of the rows beside it."""
    notes = []
    if head is None:
        beside = bool(np.isnan(values[0, 0]))
        if _numbers_columns(values[0, int(beside) :]):
            beside = beside and _counts(values[1:, 0])
            values = values[1:, int(beside) :]
            notes.append("the first line numbers the columns and was left out")
        return Table(values, notes=tuple(notes))
    if head[0].lower() in _COUNTERS:
        if head[0].lower() != "time" and not _counts(values[:, 0]):
            raise ValueError(f"its first column, {head[0]!r}, does not number the volumes")
        values, head = values[:, 1:], head[1:]
        notes.append("the first column numbers the volumes and was left out")
    if all(is_number(name) for name in head):
        if not _numbers_columns(_numbers([head], 0)[0]):
            raise ValueError("its columns are called by numbers that are not 0, 1 ... or 1, 2 ...")
        return Table(values, notes=tuple(notes))
    return Table(values, columns=head, notes=tuple(notes))


def _numbers_columns(values: NDArray[np.float64]) -> bool:
    """Whether a line only numbers the columns; out of order, it says that they stand otherwise."""
    if _counts(values):
        return True
    if _counts(np.sort(values)):
        raise ValueError("its columns are numbered, but not in order")
    return False


def _counts(values: NDArray[np.float64]) -> bool:
    """Whether these are 0, 1, 2 ... or 1, 2, 3 ..."""
    return (
        len(values) > 1
        and bool((values - values[0] == np.arange(len(values))).all())
        and (values[0] in (0, 1))
    )


def _numbers(rows: Sequence[Sequence[str]], first: int) -> NDArray[np.float64]:
    """The cells as numbers, NaN for those that say that they have none."""
    values = np.empty((len(rows), len(rows[0])))
    for number, row in enumerate(rows):
        try:
            values[number] = [float("nan") if c.lower() in MISSING else float(c) for c in row]
        except ValueError:
            column = next(place for place, cell in enumerate(row) if not is_number(cell))
            raise ValueError(
                f"{row[column]!r} in column {column + first + 1} is not a number"
            ) from None
    return values


def _parquet(path: Path) -> Table:
    """Parquet: a column per parcel, with names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        table = table.select([name for name in table.column_names if name != _PANDAS_INDEX])
    except pa.ArrowException as error:
        raise ValueError(str(error)) from None
    names = [str(name) for name in table.column_names]
    columns = [np.asarray(column.to_numpy(), dtype=np.float64) for column in table.columns]
    if not columns:
        raise ValueError("it has no columns")
    return _without_counters(np.column_stack(columns), names)


def _npy(path: Path) -> Table:
    """NumPy's array; one of Python objects is refused, since reading it could run code."""
    array = np.load(path, allow_pickle=False)
    return Table(_real(array))


def _mat(path: Path) -> Table:
    """The one matrix of a MATLAB file up to version 7."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(path)
    except MatReadError as error:
        raise ValueError(str(error)) from None
    matrices = {
        name: value
        for name, value in content.items()
        if isinstance(value, np.ndarray)
        and value.ndim == 2
        and min(value.shape) > 1
        and value.dtype.kind in "iuf"
    }
    if len(matrices) != 1:
        raise ValueError(
            f"it should hold one matrix of numbers, it holds {len(matrices)}"
            + (f": {', '.join(sorted(matrices))}" if matrices else "")
        )
    return Table(_real(next(iter(matrices.values()))))


def _real(array: NDArray) -> NDArray[np.float64]:
    if array.dtype.kind not in "iuf":
        raise ValueError(f"its values are of type {array.dtype}, not plain numbers")
    return array.astype(np.float64)


_READERS: dict[str, Callable[[Path], Table]] = {
    ".parquet": _parquet,
    ".tsv": _text,
    ".csv": _text,
    ".txt": _text,
    ".dat": _text,
    ".npy": _npy,
    ".mat": _mat,
}
