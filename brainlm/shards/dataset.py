"""Windows of the shards as PyTorch wants them: by number, as a stream, or all on the device.

All three give the same windows for the same (split, window, seed, epoch): `brainlm.shards.sampler`
alone decides which those are, and neither the number of workers nor that of ranks changes it.
This is the one file of brainlm.shards that needs torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from ..errors import InputError, ResourceError
from .labels import count_positive, read_label
from .reader import ShardReader
from .sampler import Window, batches, check_any_window, even_windows, random_windows

Draw = Literal["random", "even"]

#: This much of the free memory is left to the model at least.
_SPARE = 0.1
#: So many windows a stream asks the disk for at once.
_AHEAD = 16


class _Epochs:
    """The windows of each epoch, and an item for each of them."""

    def __init__(
        self,
        reader: ShardReader,
        split: str,
        *,
        window: int,
        seed: int = 0,
        per_recording: int = 1,
        draw: Draw = "random",
        labels: Sequence[str] = (),
        positive: Mapping[str, str] | None = None,
    ):
        """Windows of `window` time points of one split.

        `draw`: `random` draws `per_recording` windows of each recording anew in every epoch;
        `even` takes those of validation, evenly spread and always the same. `labels` are names of
        participants.tsv; one that has two classes needs its `positive` value.
        """
        _check_drawing(window, per_recording, draw)
        self.reader, self.window, self.seed = reader, window, seed
        self.per_recording, self.draw = per_recording, draw
        self._lengths = reader.lengths(split)
        check_any_window(self._lengths, window, split)
        classes = dict(positive or {})
        _check_classes(reader, labels, classes)
        rows = reader.recordings(split)
        self._labels = {
            name: read_label(
                rows, name, "binary" if name in classes else "regression", classes.get(name)
            ).to_dict()
            for name in labels
        }
        # In memory that processes share: workers that stay alive must hear of a new epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._drawn: tuple[int, list[Window]] = (-1, [])

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; call it before each pass, in the main process."""
        self._epoch.fill_(epoch)

    def windows(self) -> list[Window]:
        """The windows of the present epoch, in their order."""
        epoch = int(self._epoch)
        if self._drawn[0] != epoch:
            self._drawn = (epoch, self._draw(epoch))
        return self._drawn[1]

    def _draw(self, epoch: int) -> list[Window]:
        if self.draw == "even":
            return even_windows(self._lengths, self.window)
        return random_windows(
            self._lengths,
            window=self.window,
            seed=self.seed,
            epoch=epoch,
            per_recording=self.per_recording,
        )

    def _items(
        self, windows: Sequence[Window], ahead: Sequence[Window] = ()
    ) -> Iterator[dict[str, Any]]:
        """For each window: signal (parcels, time) float32, covered (parcels,) bool, whose, labels.

        The parcels come first, as in `brainlm.train.data.Batch`. NaN marks a parcel without data
        (then `covered` is False) and a label that is missing. Several windows are read together;
        while they are used, the disk is asked for those `ahead`.
        """
        stored = self.reader.stack(windows, self.window)
        self.reader.fetch(ahead, self.window)
        signals = as_signal(torch.from_numpy(stored))
        for window, signal, covered in zip(windows, signals, covered_of(signals), strict=True):
            yield {
                "signal": signal,
                "covered": covered,
                "recording_id": window.recording_id,
                "start": window.start,
                **{f"label_{k}": values[window.recording_id] for k, values in self._labels.items()},
            }


def _check_drawing(window: int, per_recording: int, draw: str) -> None:
    """Refuse what would silently give other windows than were meant, or none."""
    if window < 1 or per_recording < 1:
        raise InputError(
            f"window ({window}) and per_recording ({per_recording}) must be at least 1"
        )
    if draw not in get_args(Draw):
        raise InputError(f"draw must be one of {', '.join(get_args(Draw))}, not {draw!r}")


def _check_classes(reader: ShardReader, labels: Sequence[str], positive: Mapping[str, str]) -> None:
    """Refuse classes of labels that are not asked for, and values that no recording has."""
    if isinstance(labels, str):
        raise InputError(f"labels must be a list of names, not {labels!r}")
    for name, value in positive.items():
        if name not in labels:
            raise InputError(
                f"positive names {name!r}, which is not among the labels",
                fix=f"add it: labels={[*labels, name]}",
            )
        if not count_positive(reader.table, name, value):
            raise InputError(
                f"No recording has the value {value!r} of the label {name}",
                file=reader.index_path,
                fix="write the value as participants.tsv has it",
            )


class ShardDataset(_Epochs, Dataset[dict[str, Any]]):
    """Map-style: item number i is the i-th window of the epoch, which is shuffled already.

    For a DataLoader with `shuffle=False`, or with a `DistributedSampler(shuffle=False)`.
    """

    def __len__(self) -> int:
        """Number of windows in an epoch."""
        return len(self.windows())

    def __getitem__(self, number: int) -> dict[str, Any]:
        """A window, as `_items` says."""
        return next(self._items([self.windows()[number]]))

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """The windows of a batch, which DataLoader asks for at once."""
        windows, following = self.windows(), numbers[-1] + 1
        ahead = windows[following : following + len(numbers)]
        return list(self._items([windows[number] for number in numbers], ahead))


class ShardStream(_Epochs, IterableDataset[dict[str, Any]]):
    """Iterable: each rank and each of its workers gets its own part of the epoch.

    Together they give each window of the epoch once. Ranks differ by one window where the number
    of windows cannot be shared out evenly; `equal_ranks` leaves out the last few of the epoch
    (fewer than there are ranks), so that none waits for another in a collective operation.
    """

    def __init__(
        self,
        reader: ShardReader,
        split: str,
        *,
        rank: int | None = None,
        world: int | None = None,
        equal_ranks: bool = False,
        **drawing: Any,
    ):
        """As ShardDataset. `rank` of `world` processes: by default what torch.distributed says.

        If it is not initialised (yet), the environment's RANK and WORLD_SIZE, as torchrun sets
        them, else one process.
        """
        super().__init__(reader, split, **drawing)
        found_rank, found_world = _rank_and_world()
        self.rank = found_rank if rank is None else rank
        self.world = found_world if world is None else world
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank {self.rank} of {self.world} processes")
        self.equal_ranks = equal_ranks

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The windows of this rank and this worker."""
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        parts = batches(self.of_rank()[number::count], _AHEAD)
        for part, ahead in zip_longest(parts, parts[1:], fillvalue=()):
            yield from self._items(part, ahead)

    def __len__(self) -> int:
        """Number of windows of this rank in an epoch, over all its workers."""
        return len(self.of_rank())

    def of_rank(self) -> list[Window]:
        """The windows of this rank: every `world`-th one of the epoch."""
        windows = self.windows()
        if self.equal_ranks:
            windows = windows[: len(windows) // self.world * self.world]
        return windows[self.rank :: self.world]


def as_signal(stored: Tensor) -> Tensor:
    """Signal (windows, parcels, time) float32 of what is stored, (windows, time, parcels)."""
    return stored.transpose(1, 2).contiguous().float()


def covered_of(signal: Tensor) -> Tensor:
    """Parcels with data, (..., parcels) bool, of signal (..., parcels, time).

    A NaN shows in the sum; to look for it value by value would take longer than to read the window.
    """
    return ~signal.sum(dim=-1).isnan()


def _rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


class ResidentSplit:
    """A whole split in the memory of one device: `data` (all time points, parcels).

    A batch is one gather on the device; the host sends the numbers of the first rows and nothing
    else, and these can be sent for a whole epoch at once (`rows`).
    """

    def __init__(self, data: Tensor, firsts: Mapping[str, int], lengths: Mapping[str, int]):
        """`firsts`: recording -> its first row in `data`; `lengths`: how many rows it has."""
        self.data = data
        self._firsts, self._lengths = dict(firsts), dict(lengths)

    def rows(self, windows: Sequence[Window], length: int) -> Tensor:
        """Row of `data` in which each window begins, (windows,) int64 on the device.

        Here it is checked that each window lies inside its recording.
        """
        starts = np.array([window.start for window in windows], np.int64)
        totals = np.array([self._lengths[window.recording_id] for window in windows], np.int64)
        outside = np.flatnonzero((starts < 0) | (starts + length > totals))
        if len(outside):
            name, start = windows[outside[0]]
            raise IndexError(
                f"{name} has {self._lengths[name]} time points, not {start} to {start + length}"
            )
        firsts = np.array([self._firsts[window.recording_id] for window in windows], np.int64)
        return torch.from_numpy(firsts + starts).to(self.data.device)

    def windows(self, rows: Tensor, length: int) -> Tensor:
        """Signal (windows, parcels, length) float32 on the device, of what `rows` gave."""
        steps = torch.arange(length, device=self.data.device)
        # index_select: with a table of indices, `data[...]` takes ten times as long on a CPU
        stored = self.data.index_select(0, (rows[:, None] + steps).flatten())
        return as_signal(stored.view(len(rows), length, -1))


def bytes_needed(reader: ShardReader, split: str, dtype: torch.dtype | None = None) -> int:
    """Memory that `device_resident` would take, bytes; `dtype` None keeps the stored type."""
    lengths = reader.lengths(split)
    return sum(lengths.values()) * reader.n_parcels * _type_of(reader, lengths, dtype).itemsize


def device_resident(
    reader: ShardReader,
    split: str,
    device: torch.device | str,
    dtype: torch.dtype | None = None,
) -> ResidentSplit:
    """Read a whole split into the memory of a device, or refuse if it does not fit.

    `dtype` None keeps the stored type, so that windows are those of ShardReader to the last bit.
    """
    device = torch.device(device)
    needed, free = bytes_needed(reader, split, dtype), _free_bytes(device)
    if needed > (1 - _SPARE) * free:
        raise ResourceError(
            f"The {split} split takes {needed / 1e9:.2f} GB, {device} has {free / 1e9:.2f} GB free",
            file=reader.index_path,
            fix="use ShardDataset with workers, or a smaller dtype (float16 halves float32)",
        )
    lengths = reader.lengths(split)
    ends = np.cumsum(list(lengths.values()), dtype=np.int64).tolist()
    firsts = dict(zip(lengths, [0, *ends], strict=False))
    data = torch.empty(
        (sum(lengths.values()), reader.n_parcels),
        dtype=_type_of(reader, lengths, dtype),
        device=device,
    )
    for name, first in firsts.items():
        data[first : first + lengths[name]] = torch.from_numpy(reader.view(name).copy())
    return ResidentSplit(data, firsts, lengths)


def _type_of(
    reader: ShardReader, lengths: Mapping[str, int], dtype: torch.dtype | None
) -> torch.dtype:
    """The type asked for, else that of the recordings."""
    if not lengths:
        raise InputError("There is no recording in this split", file=reader.index_path)
    if dtype is not None:
        return dtype
    stored = {reader.view(name).dtype.name for name in lengths}
    return torch.float32 if "float32" in stored else torch.float16


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    # Not what is unused: the page cache, where the shards themselves may stand, gives way.
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
