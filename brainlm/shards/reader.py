"""Reading windows out of the shards, without torch and without reading the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError

from ..errors import DataError, InputError
from ..provenance import sha256_file
from .scaler import Scaler, load_scaler
from .splits import SPLITS, check_leakage
from .tensorfile import about_of, open_tensors
from .writer import SCHEMA_VERSION

#: The shards' folder is whole in itself: these two stand beside the index.
PARCELS_NAME = "parcels.tsv"
NORMALIZATION_NAME = "normalization.safetensors"

_MAKE_ANEW = "make the shards anew: `brainlm shards`"


class ShardReader:
    """The shards of a study: `table` is the index, `window` and `series` read the data."""

    def __init__(self, index_path: str | Path):
        """Open the index and check that every shard was made with these parcels and scaler."""
        self.index_path = Path(index_path)
        self.folder = self.index_path.parent
        if not self.index_path.exists():
            raise InputError(
                "There are no shards here", file=self.index_path, fix="run `brainlm shards` first"
            )
        self.table = pd.read_parquet(self.index_path).set_index("recording_id", drop=False)
        check_leakage(self.table, self.index_path)
        self.parcels = pd.read_csv(self.folder / PARCELS_NAME, sep="\t")
        self.scaler: Scaler = load_scaler(self.folder / NORMALIZATION_NAME)
        self._length: dict[str, int] = {
            str(name): int(length) for name, length in self.table["n_timepoints"].items()
        }
        self._shard: dict[str, str] = {
            str(name): str(shard) for name, shard in self.table["shard"].items()
        }
        self._handles = self._open_shards()

    def _open_shards(self) -> dict[str, Any]:
        atlas = sha256_file(self.folder / PARCELS_NAME)
        scaler = sha256_file(self.folder / NORMALIZATION_NAME)
        handles = {}
        for name in sorted(set(self.table["shard"])):
            path = self.folder / name
            handles[name] = open_tensors(path)
            about = about_of(handles[name], path)
            if about["schema_version"] != SCHEMA_VERSION:
                raise DataError(
                    f"The shard has schema {about['schema_version']}, this program reads "
                    f"{SCHEMA_VERSION}",
                    file=path,
                    fix=_MAKE_ANEW,
                )
            for what, expected in (("atlas", atlas), ("scaler", scaler)):
                if about[f"{what}_sha256"] != expected:
                    raise DataError(
                        f"The shard was made with another {what} than the one beside it",
                        file=path,
                        fix=_MAKE_ANEW,
                    )
        return handles

    @property
    def n_parcels(self) -> int:
        """Number of parcels."""
        return len(self.parcels)

    def recordings(self, split: str) -> pd.DataFrame:
        """The index's rows of one split, in the order of their names."""
        if split not in SPLITS:
            raise ValueError(f"{split!r} is none of {SPLITS}")
        return self.table[self.table["split"] == split]

    def window(self, recording_id: str, start: int, length: int) -> NDArray[np.float32]:
        """Time points [start, start + length) of a recording, (length, parcels), scaled.

        Only these bytes are read. NaN marks parcels without data.
        """
        total = self._length_of(recording_id)
        if start < 0 or start + length > total:
            raise IndexError(
                f"{recording_id} has {total} time points, not {start} to {start + length}"
            )
        values = self._slice(recording_id)[start : start + length]
        return np.asarray(values, dtype=np.float32)

    def series(self, recording_id: str) -> NDArray[np.float32]:
        """A whole recording, (time, parcels), scaled."""
        return self.window(recording_id, 0, self._length_of(recording_id))

    def _length_of(self, recording_id: str) -> int:
        if recording_id not in self._length:
            raise DataError(f"{recording_id} is not in the shards", file=self.index_path)
        return self._length[recording_id]

    def _slice(self, recording_id: str) -> Any:
        shard = self._shard[recording_id]
        try:
            return self._handles[shard].get_slice(recording_id)
        except SafetensorError as error:
            raise DataError(
                f"The shard does not hold {recording_id} although the index says so ({error})",
                file=self.folder / shard,
                fix=_MAKE_ANEW,
            ) from error
