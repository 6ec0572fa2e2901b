"""Sharded tensors: scaled recordings, many to a file, in a fixed order.

One tensor per recording, named by its recording_id, (time, parcels), time-major so that a
window of time is one contiguous read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .scaler import Scaler, Series
from .tensorfile import save_tensors

SCHEMA_VERSION = 1

#: Columns of the cohort that go on into the index, besides every `label_<name>`.
CARRIED = (
    "recording_id",
    "subject",
    "family",
    "site",
    "dataset",
    "split",
    "tr",
    "source_tr",
    "mean_fd",
    "share_parcels",
)


@dataclass(frozen=True, eq=False)
class Packed:
    """A recording as it is stored."""

    values: NDArray[Any]  # (time, parcels), float16 or float32; NaN where a parcel has no data
    n_parcels: int  # parcels with data
    n_clipped: int  # values beyond the largest finite one of the storage type

    @property
    def sha256(self) -> str:
        """Hash of the tensor's bytes."""
        return hashlib.sha256(self.values.tobytes()).hexdigest()


def pack(series: Series, scaler: Scaler, dtype: str) -> Packed:
    """Scale one recording (parcels, time) and turn it into its stored form.

    Values that the storage type cannot hold (|z| > 65504 for float16: thousands of IQRs, a
    fault of the scanner and no signal) become its largest finite one, and are counted.
    """
    scaled = scaler.transform(series)
    limit = float(np.finfo(dtype).max)
    beyond = np.abs(scaled) > limit
    values = np.clip(scaled, -limit, limit).astype(dtype)
    return Packed(
        values=np.ascontiguousarray(values.T),
        n_parcels=int((~np.isnan(scaled[:, 0])).sum()),
        n_clipped=int(beyond.sum()),
    )


def write_tensors(path: Path, packed: Mapping[str, Packed], about: Mapping[str, Any]) -> None:
    """Write one shard; `about` goes into its header (`shard_header`)."""
    save_tensors(path, {name: packed[name].values for name in sorted(packed)}, about)


def shard_header(
    *, split: str, dtype: str, atlas_sha256: str, scaler_sha256: str, tr: Mapping[str, float]
) -> dict[str, Any]:
    """What a shard says about itself; `tr` maps recording_id to seconds."""
    return {
        "schema_version": SCHEMA_VERSION,
        "split": split,
        "dtype": dtype,
        "atlas_sha256": atlas_sha256,
        "scaler_sha256": scaler_sha256,
        "tr": dict(tr),
    }


def index_table(cohort: pd.DataFrame, written: pd.DataFrame) -> pd.DataFrame:
    """The index: one row per recording.

    `written` holds recording_id, shard, n_timepoints, n_parcels, n_clipped and sha256.
    """
    labels = [name for name in cohort.columns if name.startswith("label_")]
    carried = cohort[[*CARRIED, *labels]]
    facts = written.astype({"recording_id": cohort["recording_id"].dtype})
    merged = carried.merge(facts, on="recording_id", validate="one_to_one")
    return merged.sort_values("recording_id", ignore_index=True)
