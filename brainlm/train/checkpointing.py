"""Checkpoints from which a killed training goes on as if nothing had happened.

One safetensors file holds the weights, their running mean and the optimiser's state; its header
holds the step and a checksum. Nothing else is needed: data, masks and dropout of a step are
decided by (seed, step), so there is no state of a random generator to keep, nor a place in the
data; bf16 needs no loss scale. The log is kept beside it and cut back to where it was when the
checkpoint was taken.

The training waits for a copy of the state in memory, not for the disk: a thread writes the file,
one at a time. Until it is whole, the checkpoint before is the newest.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError, InputError
from ..files import atomic_path, explained
from ..shards.tensorfile import load_tensors, save_tensors
from .distributed import Ranks, whole

_NAME = "step-{:08d}.safetensors"


class State(Protocol):
    """What a training changes, as named tensors (`state.TrainState`, `tuning.TuneState`)."""

    @property
    def ranks(self) -> Ranks:
        """The processes that share it."""

    def tensors(self) -> dict[str, Tensor]:
        """All of it where it lies, each process its part; not copied."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put it back."""


class TrainingLog:
    """metrics.jsonl while it grows: one JSON object a line, no clock times."""

    def __init__(self, path: Path):
        """Append to `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._end: int | None = None  # bytes after what this object appended last

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one line; refused once somebody else has written since the last one.

        Of two processes that run the same training by mistake, the one that began first ends here.
        """
        with explained(self.path), self.path.open("a", encoding="utf-8") as handle:
            if self._end not in (None, os.fstat(handle.fileno()).st_size):
                raise InputError(
                    "Another process has taken this training up, and this one ends",
                    file=self.path,
                    fix="let the other one go on, and start no training twice at a time",
                )
            handle.write(json.dumps(row, allow_nan=False) + "\n")
            handle.flush()
            self._end = os.fstat(handle.fileno()).st_size

    def rows(self, size: int | None = None) -> list[dict[str, Any]]:
        """All rows so far, or those in the first `size` bytes."""
        return [json.loads(line) for line in self.path.read_bytes()[:size].splitlines()]

    def sync(self) -> None:
        """Make what was written durable, before a checkpoint counts on it."""
        with explained(self.path), self.path.open("a", encoding="utf-8") as handle:
            os.fsync(handle.fileno())

    def cut(self, size: int) -> None:
        """Forget what was written after the first `size` bytes."""
        with self.path.open("ab") as handle:
            handle.truncate(size)


class _Copier:
    """A copy of the state in the CPU's memory, and the thread that writes it.

    The memory is kept and filled anew each time; for a GPU it is pinned, so that neither waits for
    the other: the copy is made between two of the GPU's steps.
    """

    def __init__(self) -> None:
        """Nothing is on its way."""
        self._copies: dict[str, Tensor] = {}
        self._copied: torch.cuda.Event | None = None
        self._writing: Future[None] | None = None

    def copy(self, state: State) -> None:
        """Take the whole state as it is now; all processes must call it, the first one keeps it."""
        for name, part in state.tensors().items():
            value = whole(part.detach())
            if not state.ranks.first:
                continue
            if name not in self._copies:
                self._copies[name] = torch.empty(
                    value.shape, dtype=value.dtype, pin_memory=value.is_cuda
                )
            self._copies[name].copy_(value, non_blocking=True)
            if value.is_cuda and self._copied is None:
                self._copied = torch.cuda.Event()
        if self._copied is not None:
            self._copied.record()

    def write(self, write: Callable[[dict[str, Tensor]], None]) -> None:
        """Call `write` with the copy, in a thread."""

        def when_copied() -> None:
            if self._copied is not None:
                self._copied.synchronize()
            write(self._copies)

        pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing = pool.submit(when_copied)
        pool.shutdown(wait=False)

    def settle(self) -> None:
        """Wait for the thread, and raise what it ran into."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training, told apart by the fingerprint of all that decides it."""

    folder: Path
    say: Callable[[str], None]
    keep: int = 2
    _copier: _Copier = field(default_factory=_Copier, init=False, repr=False, compare=False)

    @classmethod
    def below(
        cls, parent: Path, fingerprint: str, say: Callable[[str], None], keep: int = 2
    ) -> Checkpoints:
        """The folder `parent`/`fingerprint`; tells when only other trainings left some."""
        folder = parent / fingerprint
        if parent.is_dir() and not folder.exists():
            others = sorted(entry.name for entry in parent.iterdir() if entry.is_dir())
            if others:
                say(
                    "Options, data or code have changed since the last training, so this one "
                    "starts afresh (--go-on-from takes an older one up all the same); older "
                    f"checkpoints may be deleted: {', '.join(others)}"
                )
        return cls(folder, say, keep)

    @property
    def log(self) -> TrainingLog:
        """The log that belongs to these checkpoints."""
        return TrainingLog(self.folder / "metrics.jsonl")

    def save(self, step: int, state: State) -> None:
        """Copy the state after `step` steps, to be written while the training goes on.

        All processes must call it, the first one writes. Should the checkpoint before not be
        written yet, it is waited for; what went wrong with it is raised here.
        """
        self.settle()
        self._copier.copy(state)
        if state.ranks.first:
            size = self.log.size
            self._copier.write(lambda copies: self._write(step, copies, size))

    def settle(self) -> None:
        """Wait until what was saved is on the disk, and raise what went wrong with it."""
        self._copier.settle()

    @contextlib.contextmanager
    def settled(self) -> Iterator[None]:
        """Leave the block, however that may be, with everything on the disk."""
        try:
            yield
        except BaseException:
            try:
                self.settle()
            except Exception as error:
                self.say(f"Besides, the last checkpoint could not be written: {error}")
            raise
        self.settle()

    def _write(self, step: int, tensors: Mapping[str, Tensor], log_bytes: int) -> None:
        """Write a checkpoint that counts on the first `log_bytes` of the log.

        Of the older ones only the last few are kept, and that of the epoch with the lowest
        validation loss.
        """
        self.log.sync()
        arrays = {name: value.numpy() for name, value in tensors.items()}
        about = {"step": step, "log_bytes": log_bytes}
        with atomic_path(self.folder / _NAME.format(step)) as temporary:
            save_tensors(temporary, arrays, {**about, "crc32": _checksum(arrays, about)})
        best = self.folder / _NAME.format(best_step(self.log.rows(log_bytes)))
        for old in self._paths()[: -self.keep]:
            if old != best:
                old.unlink(missing_ok=True)

    def resume(self, state: State) -> int:
        """Put the newest whole checkpoint back; return the number of steps done (0: none).

        The first process says which one that is; all read it.
        """
        ranks = state.ranks
        step = ranks.from_first(self._newest_whole() if ranks.first else 0)
        if step:
            self.load(step, state)
        return step

    def load(self, step: int, state: State) -> None:
        """Put the checkpoint of `step` back."""
        self.settle()
        path = self.folder / _NAME.format(step)
        arrays, _ = _read(path)
        try:
            state.restore({name: torch.from_numpy(array) for name, array in arrays.items()})
        except DataError as error:
            raise DataError(error.what, file=path, fix=error.fix) from None

    def _newest_whole(self) -> int:
        """The step of the newest checkpoint that can be used, 0 for none; the log is cut to it.

        What a training that was killed had begun to write goes: it may be of another machine.
        """
        for begun in self.folder.glob(".tmp-*-step-*"):
            begun.unlink(missing_ok=True)
        for path in reversed(self._paths()):
            try:
                _, about = _read(path)
            except DataError as error:
                self.say(f"Checkpoint {path.name} cannot be used, trying the one before: {error}")
                path.unlink()
                continue
            if self.log.size < about["log_bytes"]:  # it was durable first: somebody cut it
                raise DataError(
                    f"The log of the training is shorter than when {path.name} was written",
                    file=self.log.path,
                    fix="put it back as it was, or delete this folder to start afresh",
                )
            self.log.cut(about["log_bytes"])
            self.say(f"Going on from {path.name}")
            return int(about["step"])
        self.log.cut(0)
        return 0

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"))


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """A checkpoint's tensors and what it says of itself; refused unless it is as it was written."""
    arrays, about = load_tensors(path)
    noted = about.pop("crc32", None)
    # Those of earlier versions, which --go-on-from may name, hold the step and no checksum.
    early = noted is None and set(about) == {"step", "log_bytes"}
    if not early and noted != _checksum(arrays, about):
        raise DataError(
            "The checkpoint's bytes have changed since it was written (CRC-32)",
            file=path,
            fix="delete it: training then goes on from the one before",
        )
    return arrays, about


def _checksum(arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> int:
    """CRC-32 of all that a checkpoint holds: 4 GB/s, where SHA-256 would take three times as long.

    It is to tell of faults of disks and networks, not of malice.
    """
    crc = zlib.crc32(json.dumps(about, sort_keys=True).encode())
    for name in sorted(arrays):
        crc = zlib.crc32(name.encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(arrays[name]).data, crc)
    return crc


def best_step(rows: Sequence[Mapping[str, Any]]) -> int:
    """The step of the lowest validation loss in a log, the first of equals; 0 if there is none."""
    validated = [(row["val_loss"], row["step"]) for row in rows if "val_loss" in row]
    return int(min(validated)[1]) if validated else 0
