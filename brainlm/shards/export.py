"""The shards in the formats of other libraries: WebDataset, Hugging Face `datasets`, .npy files.

Values are copied as they are stored: scaled, (time, parcels) in the stored type, NaN for parcels
without data. What the index says of a recording goes along, labels and the subject's name included.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import InputError
from ..files import whole_folder
from ..provenance import sha256_file
from .reader import NORMALIZATION_NAME, PARCELS_NAME, ShardReader

FORMATS = ("webdataset", "arrow", "npy")
#: A folder with this file is an export, and may be replaced by another one.
MARKER = "brainlm-export.json"
#: Columns of the index that say where a recording stood in the shards.
_OF_THE_SHARDS = ("shard",)


def export(
    reader: ShardReader,
    to: str,
    destination: Path,
    splits: Sequence[str],
    *,
    overwrite: bool = False,
    max_mb: float = 500.0,
) -> Iterator[str]:
    """Write these splits into the folder `destination`; yields each recording when it is done.

    The folder appears when all is written, and not before. Files that hold several recordings end
    at `max_mb`.
    """
    _check_may_write(destination, overwrite)
    with whole_folder(destination) as folder:
        writer = _WRITERS[to](folder, max_mb * 1e6)
        facts = reader.table.drop(columns=[*_OF_THE_SHARDS])
        for split in splits:
            rows = facts.loc[reader.recordings(split).index]
            writer.begin(split, rows)
            for name in rows["recording_id"].astype(str):
                writer.add(name, reader.view(name))
                yield name
            writer.end()
        writer.finish(facts[facts["split"].isin(splits)], splits)
        for name in (PARCELS_NAME, NORMALIZATION_NAME):
            shutil.copyfile(reader.folder / name, folder / name)
        about = {"format": to, "splits": list(splits), "index": sha256_file(reader.index_path)}
        (folder / MARKER).write_text(json.dumps(about, sort_keys=True) + "\n", encoding="utf-8")


def _check_may_write(destination: Path, overwrite: bool) -> None:
    if not destination.exists() or (overwrite and (destination / MARKER).exists()):
        return
    raise InputError(
        "This is not an export, so it is not replaced" if overwrite else "It exists already",
        file=destination,
        fix="give another folder" + ("" if overwrite else ", or --overwrite an earlier export"),
    )


class _Writer(ABC):
    """One format: recordings of a split after each other, a new file where one is full."""

    def __init__(self, folder: Path, max_bytes: float):
        self.folder, self.max_bytes = folder, max_bytes
        self.split = ""
        self.number, self.filled = 0, 0

    def begin(self, split: str, rows: pd.DataFrame) -> None:
        """Begin a split, of whose recordings `rows` tell."""
        self.split = split
        self.number, self.filled = 0, 0

    def add(self, name: str, values: NDArray[Any]) -> None:
        """Write a recording (time, parcels)."""
        if self.filled and self.filled + values.nbytes > self.max_bytes:
            self.close()
            self.number, self.filled = self.number + 1, 0
        self.write(name, values)
        self.filled += values.nbytes

    def end(self) -> None:
        """The split is whole."""
        self.close()

    @abstractmethod
    def write(self, name: str, values: NDArray[Any]) -> None:
        """Write into the present file, opening it if nothing is in it yet."""

    @abstractmethod
    def close(self) -> None:
        """End the present file, if there is one."""

    def finish(self, facts: pd.DataFrame, splits: Sequence[str]) -> None:  # noqa: B027
        """Write what stands once for all splits, if there is anything."""


class _WebDataset(_Writer):
    """Tars of <recording>.npy and <recording>.json; equal shards give equal bytes."""

    tar: tarfile.TarFile | None = None

    def begin(self, split: str, rows: pd.DataFrame) -> None:
        super().begin(split, rows)
        records = rows.to_dict("records")
        self.facts = {str(record["recording_id"]): _plain(record) for record in records}

    def write(self, name: str, values: NDArray[Any]) -> None:
        if self.tar is None:
            path = self.folder / f"{self.split}-{self.number:06d}.tar"
            self.tar = tarfile.open(path, "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115
        array = io.BytesIO()
        np.save(array, values)
        facts = json.dumps(self.facts[name], sort_keys=True)
        for ending, content in (("npy", array.getvalue()), ("json", facts.encode())):
            member = tarfile.TarInfo(f"{name}.{ending}")  # no time, no owner
            member.size = len(content)
            self.tar.addfile(member, io.BytesIO(content))

    def close(self) -> None:
        if self.tar is not None:
            self.tar.close()
        self.tar = None


class _Npy(_Writer):
    """<split>/<recording>.npy, and index.csv and .parquet with a column `file`."""

    def write(self, name: str, values: NDArray[Any]) -> None:
        path = self.folder / self.split / f"{name}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, values)

    def close(self) -> None:
        pass

    def finish(self, facts: pd.DataFrame, splits: Sequence[str]) -> None:
        names = facts["split"].astype(str) + "/" + facts["recording_id"].astype(str) + ".npy"
        table = facts.assign(file=names).reset_index(drop=True)
        table.to_csv(self.folder / "index.csv", index=False)
        table.to_parquet(self.folder / "index.parquet", index=False)


class _Arrow(_Writer):
    """A folder for `datasets.load_from_disk`: a DatasetDict, one row per recording.

    `signal` is a list (time) of lists of one length (parcels).
    """

    writer: Any = None
    table: pa.Table
    schema: pa.Schema

    def begin(self, split: str, rows: pd.DataFrame) -> None:
        super().begin(split, rows)
        (self.folder / split).mkdir()
        self.table = _portable(rows)
        self.place = {name: row for row, name in enumerate(rows["recording_id"].astype(str))}
        self.sums = hashlib.sha256()
        self.files: list[str] = []

    def write(self, name: str, values: NDArray[Any]) -> None:
        signal = _rows_of(values)
        if self.writer is None:
            self.schema = pa.schema([pa.field("signal", signal.type), *self.table.schema])
            self.files.append(f"data-{self.number:05d}.arrow")
            self.writer = pa.ipc.new_stream(
                self.folder / self.split / self.files[-1],
                self.schema.with_metadata({"huggingface": json.dumps({"info": self._info()})}),
            )
        row = self.table.slice(self.place[name], 1).combine_chunks()
        columns = [signal, *(column.chunk(0) for column in row.columns)]
        self.writer.write_batch(pa.record_batch(columns, schema=self.schema))
        # `datasets` keeps results under the fingerprint of their data: labels count, too.
        self.sums.update(json.dumps(row.to_pylist(), default=str).encode())
        self.sums.update(values.data)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.writer = None

    def end(self) -> None:
        self.close()
        state: dict[str, Any] = {
            "_data_files": [{"filename": name} for name in self.files],
            "_fingerprint": self.sums.hexdigest()[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": self.split,
        }
        for name, content in (("state.json", state), ("dataset_info.json", self._info())):
            path = self.folder / self.split / name
            path.write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")

    def finish(self, facts: pd.DataFrame, splits: Sequence[str]) -> None:
        path = self.folder / "dataset_dict.json"
        path.write_text(json.dumps({"splits": list(splits)}), encoding="utf-8")

    def _info(self) -> dict[str, Any]:
        return {
            "citation": "",
            "description": "Parcel series scaled by brainlm; see parcels.tsv for the parcels",
            "features": {field.name: _feature(field.type) for field in self.schema},
            "homepage": "",
            "license": "",
        }


def _rows_of(values: NDArray[Any]) -> pa.Array:
    """One recording (time, parcels) as one list of lists, without a copy."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    times = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), times)


def _portable(rows: pd.DataFrame) -> pa.Table:
    """The index's columns with the Arrow types that every version of `datasets` knows."""
    table = pa.Table.from_pandas(rows.reset_index(drop=True), preserve_index=False)
    large = pa.types.is_large_string
    fields = [pa.field(f.name, pa.string() if large(f.type) else f.type) for f in table.schema]
    return table.cast(pa.schema(fields))


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """A type in the words of `datasets`; `Sequence` is read by old and new versions of it."""
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        length = kind.list_size if pa.types.is_fixed_size_list(kind) else -1
        return {"feature": _feature(kind.value_type), "length": length, "_type": "Sequence"}
    names = {"halffloat": "float16", "float": "float32", "double": "float64"}
    return {"dtype": names.get(str(kind), str(kind)), "_type": "Value"}


def _plain(record: Mapping[Any, Any]) -> dict[str, Any]:
    """A row of the index in JSON's types, null where something is missing."""
    plain = {}
    for name, value in record.items():
        missing = pd.isna(value)
        plain[str(name)] = None if missing else value.item() if hasattr(value, "item") else value
    return plain


_WRITERS: dict[str, type[_Writer]] = {"webdataset": _WebDataset, "arrow": _Arrow, "npy": _Npy}
