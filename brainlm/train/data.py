"""From windows of the shards to what goes through the model.

Which windows a step takes, and which of their tokens are hidden, is decided for the whole batch,
by (seed, epoch, recording) and (seed, step, row of the batch): each process takes its part of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..shards.dataset import as_signal, covered_of
from ..shards.reader import ShardReader
from ..shards.resident import ResidentSplit, bytes_needed, device_resident
from ..shards.sampler import Window

Key = TypeVar("Key")
Made = TypeVar("Made")

#: `auto` keeps the shards on a GPU when they take no more than this share of what is free there.
_RESIDENT_SHARE = 0.4


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


class Source(Protocol):
    """Where the train split's windows come from, in two parts: one beside the step, one in it."""

    def fetch(self, windows: Sequence[Window]) -> Tensor:
        """What can be done ahead of the step, in another thread."""

    def signal(self, fetched: Tensor) -> Tensor:
        """(windows, parcels, time) float32 on the device, without waiting for it."""


class MappedSource:
    """Windows read from the shards' files, which are mapped into memory."""

    def __init__(self, reader: ShardReader, length: int, device: torch.device):
        """Windows of `length` time points."""
        self.reader, self.length, self.device = reader, length, device

    def fetch(self, windows: Sequence[Window]) -> Tensor:
        """The windows as they are stored; where a GPU can copy them by itself."""
        stored = torch.from_numpy(self.reader.stack(windows, self.length))
        return stored.pin_memory() if self.device.type == "cuda" else stored

    def signal(self, fetched: Tensor) -> Tensor:
        """Cast and turned on the device."""
        return as_signal(fetched.to(self.device, non_blocking=True))


class ResidentSource:
    """Windows gathered from a split that lies on the device whole."""

    def __init__(self, split: ResidentSplit, length: int):
        """Windows of `length` time points."""
        self.split, self.length = split, length

    def fetch(self, windows: Sequence[Window]) -> Tensor:
        """In which rows they begin."""
        return self.split.rows(windows, self.length)

    def signal(self, fetched: Tensor) -> Tensor:
        """Gathered, cast and turned on the device."""
        return self.split.windows(fetched, self.length)


def open_source(wanted: str, reader: ShardReader, length: int, device: torch.device) -> Source:
    """`pretrain.data`: mmap, resident, or auto (resident on a GPU where the train split fits)."""
    resident = wanted == "resident"
    if wanted == "auto" and device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        resident = bytes_needed(reader, "train") <= _RESIDENT_SHARE * free
    if resident:
        return ResidentSource(device_resident(reader, "train", device), length)
    return MappedSource(reader, length, device)


class Coverage:
    """Which parcels of a recording have data: its first row tells, the shards' format sees to it.

    So masks can be drawn of windows that another process reads.
    """

    def __init__(self, reader: ShardReader):
        """Nothing is read yet; a recording is looked at once."""
        self._reader = reader
        self._known: dict[str, Tensor] = {}

    def of(self, windows: Sequence[Window]) -> Tensor:
        """(windows, parcels) bool."""
        return torch.stack([self._of(window.recording_id) for window in windows])

    def _of(self, name: str) -> Tensor:
        if name not in self._known:
            self._known[name] = torch.from_numpy(~np.isnan(self._reader.view(name)[0]))
        return self._known[name]


def ahead(
    make: Callable[[Key], Made], keys: Iterable[Key], threads: int = 1
) -> Generator[Made, None, None]:
    """`make` of each key, in their order, made in threads while earlier ones are used."""
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="batches") as pool:
        try:
            for key in keys:
                waiting.append(pool.submit(make, key))
                if len(waiting) > threads + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def share_out(count: int, rank: int, world: int, passes: int) -> list[range]:
    """Which of a batch's `count` windows a process takes, in each of its `passes`.

    As evenly as can be, so some may be empty: a last batch may have fewer windows than there are
    processes.
    """
    parts = world * passes
    ends = [count * part // parts for part in range(parts + 1)]
    return [range(ends[part], ends[part + 1]) for part in range(rank * passes, (rank + 1) * passes)]


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
