"""From windows of the shards to tensors of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import DataError
from ..shards.dataset import as_signal, covered_of
from ..shards.reader import ShardReader
from ..shards.sampler import Window


class Batch(NamedTuple):
    """Windows as the model takes them."""

    signal: Tensor  # (batch, parcels, time) float32, scaled; NaN where a parcel has no data
    covered: Tensor  # (batch, parcels) bool
    recording_ids: tuple[str, ...]


def load_batch(
    reader: ShardReader, windows: Sequence[Window], length: int, device: torch.device
) -> Batch:
    """Read windows of `length` time points."""
    stored = torch.from_numpy(reader.stack(windows, length)).to(device)  # cast there: exact
    signal = as_signal(stored)
    names = tuple(window.recording_id for window in windows)
    return Batch(signal, covered_of(signal), names)


def fewest_parcels(reader: ShardReader, splits: Sequence[str]) -> int:
    """Parcels with data in the poorest recording of these splits."""
    rows = reader.table[reader.table["split"].isin(splits)]
    fewest = int(rows["n_parcels"].min())
    if fewest < 1:
        name = rows.sort_values("n_parcels", kind="stable")["recording_id"].iloc[0]
        raise DataError(
            f"{name} has no parcel with data",
            file=reader.index_path,
            fix="set quality.min_parcels above 0, so that such recordings are left out",
        )
    return fewest
