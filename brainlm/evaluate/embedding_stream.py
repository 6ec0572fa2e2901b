"""Vectors of a whole cohort: the network never waits for the disk, and memory does not grow.

Windows of many recordings go through the network together. One thread reads the next batch, another
writes what is finished, a part (some hundreds of recordings) at a time. A part that is written is
not made again, so that a job that was killed goes on where it was.

Whole windows are shown in batches of one size (a batch that is not full is filled up with copies
of its first window, whose vectors are thrown away): the same kernels then do the same sums for a
window, whoever is beside it. On the CPU its vectors are the same to the last bit; a GPU promises no
more than rounding.
"""

from __future__ import annotations

import copy
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from ..files import atomic_path
from ..model.heads import pooled_of
from ..model.mae import MaskedAutoencoder
from ..shards.dataset import as_signal, covered_of
from ..shards.reader import ShardReader
from ..shards.sampler import Window, batches, even_windows
from ..train.data import ahead
from .embeddings import POOLS, Vectors, write_embeddings

#: Columns of the index that go into the table of vectors.
CARRIED = ("recording_id", "subject", "split")

#: Recordings of a part, at least, and for each window of a batch: the last batch of a part may be
#: filled up, so that a part of few batches would cost speed.
_PART, _PART_PER_WINDOW = 64, 16

#: Tokens of a batch, about: on a GPU more are needed before its kernels are busy.
_TOKENS = {"cpu": 1 << 13, "cuda": 1 << 16}


class _Shown(NamedTuple):
    """Windows on their way to the network, all with as many tokens."""

    windows: Sequence[Window]  # fewer than the rows below where these were filled up
    signal: Tensor  # (batch, parcels, time); as stored (batch, time, parcels) for a GPU to turn
    visible: Tensor  # (batch, k) numbers of tokens


def batch_of(model: MaskedAutoencoder) -> int:
    """Windows of a batch on the model's device."""
    kind = "cuda" if model.cls.device.type == "cuda" else "cpu"
    return int(np.clip(_TOKENS[kind] // model.tokenizer.tokens, 1, 256))


def part_of(batch_size: int) -> int:
    """Recordings of a part."""
    return max(_PART, _PART_PER_WINDOW * batch_size)


@dataclass(eq=False)
class EmbeddingStream:
    """The vectors of `names`, long enough each, made and kept part by part in `folder`."""

    model: MaskedAutoencoder
    reader: ShardReader
    names: Sequence[str]
    folder: Path  # of parts that were made of the very same; others' must have another name
    batch_size: int
    part: int  # recordings: what is lost at most when a job is killed, and a row group of the table

    def __post_init__(self) -> None:
        """Look up what is there already."""
        self.model.eval()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.parts = batches(self.names, self.part)
        self.missing = [
            number for number in range(len(self.parts)) if not self._path(number).exists()
        ]
        #: On the CPU, for the thread that reads.
        self._tokenizer = copy.deepcopy(self.model.tokenizer).cpu()
        self._on_cpu = self.model.cls.device.type == "cpu"

    def run(self) -> Iterator[int]:
        """Make the parts that are missing; tells how many windows have gone through, each time."""
        with ThreadPoolExecutor(1, thread_name_prefix="vectors") as writer:
            written: Future[None] | None = None
            for number, done in groupby(self._pooled(), key=lambda one: one.part):
                found: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
                for windows, vectors in ((one.windows, one.vectors) for one in done):
                    for window, vector in zip(windows, vectors.numpy(), strict=False):
                        found[window.recording_id].append(vector)
                    yield len(windows)
                if written is not None:
                    written.result()  # so that no more than two parts are in memory
                written = writer.submit(self._write, number, found)
            if written is not None:
                written.result()

    @property
    def n_windows(self) -> int:
        """Windows of the parts that are missing."""
        return sum(len(self._windows(name)) for part in self.missing for name in self.parts[part])

    def merge(self, path: Path) -> None:
        """All parts as one table, a row group each, in the order of `names`."""
        writer: pq.ParquetWriter | None = None
        try:
            for number in range(len(self.parts)):
                table = pq.read_table(self._path(number))
                writer = writer or pq.ParquetWriter(path, table.schema)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()

    def forget(self) -> None:
        """Remove the parts, and the folder around theirs when nothing else is in it."""
        shutil.rmtree(self.folder)
        if not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"

    def _windows(self, name: str) -> list[Window]:
        length = int(self.reader.table["n_timepoints"][name])
        return even_windows({name: length}, self.model.config.timepoints)

    def _plan(self) -> Iterator[tuple[int, Sequence[Window]]]:
        """(part, windows to read together): recordings that lack as many parcels are neighbours."""
        parcels = self.reader.table["n_parcels"]
        for number in self.missing:
            names = sorted(self.parts[number], key=lambda name: (-parcels[name], name))
            windows = [window for name in names for window in self._windows(name)]
            for some in batches(windows, self.batch_size):
                yield number, some

    def _load(self, key: tuple[int, Sequence[Window]]) -> tuple[int, list[_Shown]]:
        """Read some windows (in a thread); parted where their tokens with data are not as many."""
        number, windows = key
        stored = torch.from_numpy(self.reader.stack(windows, self.model.config.timepoints))
        covered = covered_of(stored[:, :1].transpose(1, 2).float())  # NaN in one row, NaN in all
        available = self._tokenizer.available(covered)
        counts = available.sum(dim=1)
        if not counts.all():
            raise DataError(
                f"{windows[int(counts.argmin())].recording_id} has no parcel with data, so it has "
                "no vector",
                file=self.reader.index_path,
                fix="set quality.min_parcels above 0, so that such recordings are left out",
            )
        parts = []
        for count in counts.unique().tolist():
            rows = (counts == count).nonzero()[:, 0]
            filled = torch.cat([rows, rows[:1].expand(self.batch_size - len(rows))])
            visible = available[filled].nonzero()[:, 1].view(self.batch_size, count)
            signal = stored if len(rows) == self.batch_size else stored[filled]
            if self._on_cpu:
                signal = as_signal(signal)
            else:
                signal, visible = signal.pin_memory(), visible.pin_memory()
            parts.append(_Shown([windows[row] for row in rows.tolist()], signal, visible))
        return number, parts

    def _pooled(self) -> Iterator[_Pooled]:
        """The vectors of each batch, handed on when the network has the next one to work at."""
        waiting: _Pooled | None = None
        for number, parts in ahead(self._load, self._plan()):
            for shown in parts:
                latest = self._encode(number, shown)
                if waiting is not None:
                    yield waiting.ready()
                waiting = latest
        if waiting is not None:
            yield waiting.ready()

    @torch.no_grad()
    def _encode(self, number: int, shown: _Shown) -> _Pooled:
        device = self.model.cls.device
        signal, visible = (
            one.to(device, non_blocking=True) for one in (shown.signal, shown.visible)
        )
        latents = self.model.encode(signal if self._on_cpu else as_signal(signal), visible)
        pooled = torch.stack([pooled_of(latents, pool) for pool in POOLS], dim=1).double()
        vectors = pooled.to("cpu", non_blocking=True)
        event = None
        if device.type == "cuda":
            event = torch.cuda.Event()
            event.record()
        return _Pooled(number, shown.windows, vectors, event)

    def _write(self, number: int, found: dict[str, list[NDArray[np.float64]]]) -> None:
        """Write a part: the mean over each recording's windows."""
        names = list(self.parts[number])
        rows = self.reader.table.loc[names]
        columns = {name: rows[name].astype(str).tolist() for name in CARRIED}
        vectors = []
        for name in names:
            mean = np.mean(found[name], axis=0).astype(np.float32)
            vectors.append(Vectors(dict(zip(POOLS, mean, strict=True)), len(found[name])))
        with atomic_path(self._path(number)) as path:
            write_embeddings(path, columns, vectors)


@dataclass(frozen=True, eq=False)
class _Pooled:
    """Vectors of a batch, maybe still on their way from the GPU."""

    part: int
    windows: Sequence[Window]
    vectors: Tensor  # (batch, pools, hidden) float64, on the CPU
    event: torch.cuda.Event | None

    def ready(self) -> _Pooled:
        """Wait for them."""
        if self.event is not None:
            self.event.synchronize()
        return self
