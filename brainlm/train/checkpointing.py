"""Checkpoints from which a killed training goes on as if nothing had happened.

One safetensors file holds the weights, their running mean and the optimiser's state; its header
holds the step. Nothing else is needed: data, masks and dropout of a step are decided by (seed,
step), so there is no state of a random generator to keep, nor a place in the data; bf16 needs no
loss scale. The log is kept beside it and cut back to where it was when the checkpoint was taken.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import DataError
from ..files import atomic_path
from ..shards.tensorfile import load_tensors, save_tensors
from .distributed import Ranks

_NAME = "step-{:08d}.safetensors"


class State(Protocol):
    """What a training changes, as named tensors (`state.TrainState`, `tuning.TuneState`)."""

    @property
    def ranks(self) -> Ranks:
        """The processes that share it."""

    def tensors(self) -> dict[str, Tensor]:
        """All of it on the CPU, of the first process."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put it back."""


class TrainingLog:
    """metrics.jsonl while it grows: one JSON object a line, no clock times."""

    def __init__(self, path: Path):
        """Append to `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one line."""
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row, allow_nan=False) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """All rows so far."""
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def sync(self) -> None:
        """Make what was written durable, before a checkpoint counts on it."""
        with self.path.open("a", encoding="utf-8") as handle:
            os.fsync(handle.fileno())

    def cut(self, size: int) -> None:
        """Forget what was written after the first `size` bytes."""
        with self.path.open("ab") as handle:
            handle.truncate(size)


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training, told apart by the fingerprint of all that decides it."""

    folder: Path
    say: Callable[[str], None]
    keep: int = 2

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
        """Save the state after `step` steps; all processes must call it, the first one writes.

        Of the older ones only the last few are kept, and that of the epoch with the lowest
        validation loss.
        """
        tensors = state.tensors()
        if not state.ranks.first:
            return
        log = self.log
        log.sync()
        arrays = {name: value.numpy() for name, value in tensors.items()}
        with atomic_path(self.folder / _NAME.format(step)) as temporary:
            save_tensors(temporary, arrays, {"step": step, "log_bytes": log.size})
        best = self.folder / _NAME.format(best_step(log.rows()))
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
        arrays, _ = load_tensors(self.folder / _NAME.format(step))
        state.restore({name: torch.from_numpy(array) for name, array in arrays.items()})

    def _newest_whole(self) -> int:
        """The step of the newest checkpoint that can be used, 0 for none; the log is cut to it."""
        for path in reversed(self._paths()):
            try:
                _, about = load_tensors(path)
                if self.log.size < about["log_bytes"]:
                    raise DataError("The log is shorter than the checkpoint says")
            except DataError as error:
                self.say(f"Checkpoint {path.name} cannot be used, trying the one before: {error}")
                path.unlink()
                continue
            self.log.cut(about["log_bytes"])
            self.say(f"Going on from {path.name}")
            return int(about["step"])
        self.log.cut(0)
        return 0

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"))


def best_step(rows: Sequence[Mapping[str, Any]]) -> int:
    """The step of the lowest validation loss in a log, the first of equals; 0 if there is none."""
    validated = [(row["val_loss"], row["step"]) for row in rows if "val_loss" in row]
    return int(min(validated)[1]) if validated else 0
