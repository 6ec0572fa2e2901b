"""Windows of the shards as PyTorch wants them: by number, or as a stream.

Both give the same windows for the same (split, window, seed, epoch): `brainlm.shards.sampler`
alone decides which those are, and neither the number of workers nor that of ranks changes it.
This file and `resident` are those of brainlm.shards that need torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from ..errors import InputError
from .labels import count_positive, read_label
from .reader import ShardReader
from .sampler import Window, batches, check_any_window, even_windows, random_windows

Draw = Literal["random", "even"]

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
