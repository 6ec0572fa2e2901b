"""Reading windows out of the shards, without torch and without reading the rest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError, InputError
from ..provenance import sha256_file
from .mapped import Header, MappedFile, Place, read_header
from .sampler import Window
from .scaler import Scaler, load_scaler
from .splits import SPLITS, check_leakage
from .tensorfile import read_about
from .writer import SCHEMA_VERSION

#: The shards' folder is whole in itself: these three stand in it.
INDEX_NAME = "index.parquet"
PARCELS_NAME = "parcels.tsv"
NORMALIZATION_NAME = "normalization.safetensors"

#: Schemas whose tensors and index columns are read alike.
READABLE = frozenset({1, SCHEMA_VERSION})
_MAKE_ANEW = "make the shards anew: `brainlm write-shard`, then `brainlm index-shards`"


class ShardReader:
    """The shards of a study: `table` is the index, `window`, `view` and `series` read the data.

    Opening reads the index and the headers of all shards; a shard's tensors are mapped into memory
    when one of them is first asked for. A reader may be pickled (it then carries paths and
    places, and maps anew) and forked.
    """

    def __init__(self, index_path: str | Path):
        """Open the index (or the folder that holds it) and check that all belongs together."""
        path = Path(index_path)
        self.index_path = path / INDEX_NAME if path.is_dir() else path
        self.folder = self.index_path.parent
        if not self.index_path.exists():
            raise InputError(
                "There are no shards here",
                file=self.index_path,
                fix="run `brainlm write-shard` and `brainlm index-shards` first",
            )
        self.table = pd.read_parquet(self.index_path).set_index("recording_id", drop=False)
        check_leakage(self.table, self.index_path)
        self.parcels = pd.read_csv(self.folder / PARCELS_NAME, sep="\t")
        self.scaler: Scaler = load_scaler(self.folder / NORMALIZATION_NAME)
        self._headers = self._read_headers()
        self._places = self._find_recordings()
        self._mapped: dict[str, MappedFile] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the mappings: these belong to a process."""
        return {**self.__dict__, "_mapped": {}}

    @property
    def n_parcels(self) -> int:
        """Number of parcels."""
        return len(self.parcels)

    def recordings(self, split: str) -> pd.DataFrame:
        """The index's rows of one split, in the order of their names."""
        if split not in SPLITS:
            raise ValueError(f"{split!r} is none of {SPLITS}")
        return self.table[self.table["split"] == split]

    def lengths(self, split: str) -> dict[str, int]:
        """Recording -> time points, of one split, in the order of their names."""
        rows = self.recordings(split)
        return dict(
            zip(rows["recording_id"].astype(str), rows["n_timepoints"].astype(int), strict=True)
        )

    def view(self, recording_id: str) -> NDArray[Any]:
        """A whole recording as it is stored, (time, parcels) float16 or float32, not copied.

        The array is a read-only window into the file: only what is used of it is read. NaN marks
        parcels without data.
        """
        shard, place = self._place_of(recording_id)
        return self._file(shard).array(place)

    def window(self, recording_id: str, start: int, length: int) -> NDArray[np.float32]:
        """Time points [start, start + length) of a recording, (length, parcels), scaled.

        Only these bytes are read. NaN marks parcels without data.
        """
        return as_float32(self.stored_window(recording_id, start, length))

    def stored_window(self, recording_id: str, start: int, length: int) -> NDArray[Any]:
        """The same, neither cast nor copied: a slice of `view`."""
        self._check_inside(recording_id, start, length)
        return self.view(recording_id)[start : start + length]

    def stack(self, windows: Sequence[Window], length: int) -> NDArray[Any]:
        """Several windows, (windows, length, parcels), in the stored type: for casting elsewhere.

        A GPU casts faster than a CPU, and half the bytes go there. Those that are still on the disk
        are read at the same time, not one after the other.
        """
        for name, start in windows:
            self._check_inside(name, start, length)
        self.fetch(windows, length)
        return np.stack([self.stored_window(w.recording_id, w.start, length) for w in windows])

    def fetch(self, windows: Sequence[Window], length: int) -> None:
        """Ask the system to read these windows from the disk; returns at once, nothing must wait.

        A window that is then copied page by page would be waited for page by page.
        """
        for name, start in windows:
            shard, place = self._place_of(name)
            self._file(shard).fetch(place, start, min(length, place.shape[0] - start))

    def series(self, recording_id: str) -> NDArray[np.float32]:
        """A whole recording, (time, parcels), scaled."""
        return as_float32(self.view(recording_id))

    def _check_inside(self, recording_id: str, start: int, length: int) -> None:
        total = self._place_of(recording_id)[1].shape[0]
        if start < 0 or length < 0 or start + length > total:
            raise IndexError(
                f"{recording_id} has {total} time points, not {start} to {start + length}"
            )

    def _file(self, shard: str) -> MappedFile:
        mapped = self._mapped.get(shard)
        if mapped is None:
            mapped = self._mapped[shard] = MappedFile(self.folder / shard, self._headers[shard])
        return mapped

    def _place_of(self, recording_id: str) -> tuple[str, Place]:
        try:
            return self._places[recording_id]
        except KeyError:
            raise DataError(f"{recording_id} is not in the shards", file=self.index_path) from None

    def _read_headers(self) -> dict[str, Header]:
        """The header of each shard, made with the atlas and the scaler that lie beside it."""
        expected = {
            "atlas": sha256_file(self.folder / PARCELS_NAME),
            "scaler": sha256_file(self.folder / NORMALIZATION_NAME),
        }
        headers = {}
        for name in sorted(set(self.table["shard"].astype(str))):
            path = self.folder / name
            headers[name] = read_header(path)
            about = read_about(headers[name].metadata, path)
            if about["schema_version"] not in READABLE:
                raise DataError(
                    f"The shard has schema {about['schema_version']}, this program reads "
                    f"{SCHEMA_VERSION}",
                    file=path,
                    fix=_MAKE_ANEW,
                )
            for what, digest in expected.items():
                if about[f"{what}_sha256"] != digest:
                    raise DataError(
                        f"The shard was made with another {what} than the one beside it",
                        file=path,
                        fix=_MAKE_ANEW,
                    )
        return headers

    def _find_recordings(self) -> dict[str, tuple[str, Place]]:
        """Recording -> its shard and its place there, as long as the index says."""
        rows = self.table[["recording_id", "shard", "n_timepoints"]].itertuples(index=False)
        places = {}
        for name, shard, length in rows:
            place = self._headers[str(shard)].places.get(str(name))
            if place is None:
                raise DataError(
                    f"The shard does not hold {name} although the index says so",
                    file=self.folder / str(shard),
                    fix=_MAKE_ANEW,
                )
            if place.shape != (int(length), self.n_parcels):
                raise DataError(
                    f"{name} is stored as {place.shape}, the index and parcels.tsv say "
                    f"{(int(length), self.n_parcels)}",
                    file=self.folder / str(shard),
                    fix=_MAKE_ANEW,
                )
            places[str(name)] = (str(shard), place)
        return places


def as_float32(stored: NDArray[Any]) -> NDArray[np.float32]:
    """A copy in float32; exact, since float32 holds every float16.

    numpy casts float16 value by value; looking each of the 65,536 up is twice as fast.
    """
    if stored.dtype == np.float16:
        return _all_halves().take(stored.view(np.uint16))
    return np.array(stored, dtype=np.float32)


@cache
def _all_halves() -> NDArray[np.float32]:
    """The value of each pattern of 16 bits, float32."""
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
