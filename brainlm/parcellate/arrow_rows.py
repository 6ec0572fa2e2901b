"""Recordings in the Arrow layout of BrainLM's authors: a row each, as a list of lists of numbers.

What `save_to_disk` of Hugging Face `datasets` leaves is Arrow's stream format with some JSON beside
it; pyarrow reads it alone, mapped into memory, one row at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import DataError, InputError

RAW = "Raw_Recording"
FILENAME, PATIENT = "Filename", "Patient ID"
#: Columns of theirs that are scaled already.
_SCALED = re.compile("normali[sz]ed|zscore", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Row:
    """One recording."""

    split: str  # the folder's name; empty where there are no splits
    filename: str
    patient: str  # often empty, by a fault of the program that wrote it
    values: NDArray[Any]  # (rows, columns) as stored: parcels x time in their Raw_Recording
    labels: dict[str, Any]  # every other column with one value per row; None where missing


def is_scaled(column: str) -> bool:
    """Whether a column's name says that its numbers have been scaled."""
    return bool(_SCALED.search(column))


def find_datasets(source: Path) -> dict[str, list[Path]]:
    """Split -> its Arrow files: of the folder itself (split ""), or of the folders in it."""
    if not source.is_dir():
        raise InputError("The folder does not exist", file=source)
    if own := _arrow_files(source):
        return {"": own}
    found = {}
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        if files := _arrow_files(folder):
            found[folder.name] = files
    if not found:
        raise InputError(
            "There is no Arrow dataset here",
            file=source,
            fix="give a folder that `save_to_disk` wrote: with *.arrow and state.json in it, or "
            "with such folders for train, val and test",
        )
    return found


def _arrow_files(folder: Path) -> list[Path]:
    """The files of a dataset in their order."""
    state = folder / "state.json"
    if not state.is_file():
        return sorted(folder.glob("*.arrow"))
    try:
        names = [entry["filename"] for entry in json.loads(state.read_text())["_data_files"]]
    except (ValueError, KeyError, TypeError):
        raise DataError("This is not the state.json of a dataset", file=state) from None
    return [folder / Path(name).name for name in names]


def columns_of(path: Path) -> dict[str, bool]:
    """The columns of a file, and whether each holds recordings (lists of lists)."""
    with pa.memory_map(str(path)) as memory:
        return {field.name: _is_table(field.type) for field in _open(memory, path).schema}


def rows_of(files: list[Path], split: str, column: str) -> Iterator[Row]:
    """The recordings of a split, one at a time; `column` holds their series."""
    for path in files:
        number = 0
        with pa.memory_map(str(path)) as memory:
            try:
                for batch in _open(memory, path):
                    plain = [f.name for f in batch.schema if not pa.types.is_nested(f.type)]
                    facts = batch.select([name for name in plain if name != column]).to_pylist()
                    series = batch.column(column)
                    for place, labels in enumerate(facts):
                        yield Row(
                            split,
                            str(labels.pop(FILENAME, None) or ""),
                            str(labels.pop(PATIENT, None) or "").strip(),
                            _matrix(series, place, path, number),
                            labels,
                        )
                        number += 1
            except (pa.ArrowException, OSError) as error:
                raise _damaged(path, f"after row {number}: {error}") from None


def _open(memory: Any, path: Path) -> Any:
    """A reader of the stream (`datasets` writes these)."""
    try:
        return pa.ipc.open_stream(memory)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, str(error)) from None


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"This Arrow file is cut short or damaged ({' '.join(why.split())})",
        file=path,
        fix="copy it anew from its source",
    )


def _is_table(kind: pa.DataType) -> bool:
    kind = _storage(kind)
    return _is_list(kind) and _is_list(_storage(kind.value_type))


def _is_list(kind: pa.DataType) -> bool:
    checks = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(check(kind) for check in checks)


def _storage(kind: pa.DataType) -> pa.DataType:
    """What lies under an extension type, such as the Array2D of `datasets`."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _matrix(series: pa.Array, place: int, path: Path, number: int) -> NDArray[Any]:
    """The table of numbers in one row, (rows, columns), without going through Python's lists."""
    row = series.slice(place, 1)
    if isinstance(row.type, pa.BaseExtensionType):
        row = row.storage
    if row.null_count:
        raise DataError(f"Row {number} has no recording", file=path)
    lists = row.flatten()
    widths = np.unique(np.asarray(lists.value_lengths().to_numpy(zero_copy_only=False)))
    if len(widths) != 1:
        raise DataError(f"The lists of row {number} are not of one length", file=path)
    values = lists.flatten().to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "iuf":
        raise DataError(f"Row {number} holds {values.dtype}, not plain numbers", file=path)
    return np.asarray(values).reshape(len(lists), int(widths[0]))
