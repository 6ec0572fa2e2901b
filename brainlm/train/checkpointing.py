"""Checkpoints from which a killed training goes on as if nothing had happened.

One safetensors file holds the weights and the optimiser's state; its header holds the step.
Nothing else is needed: data, masks and dropout of a step are decided by (seed, step). The log
is kept beside it and cut back to where it was when the checkpoint was taken.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from ..errors import DataError
from ..files import atomic_path
from ..shards.tensorfile import load_tensors, save_tensors
from .optim import optimizer_tensors, restore_optimizer

_KEEP = 2
_MODEL = "model."


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

    @classmethod
    def below(cls, parent: Path, fingerprint: str, say: Callable[[str], None]) -> Checkpoints:
        """The folder `parent`/`fingerprint`; tells when only other trainings left some."""
        folder = parent / fingerprint
        if parent.is_dir() and not folder.exists():
            others = sorted(entry.name for entry in parent.iterdir() if entry.is_dir())
            if others:
                say(
                    "Options, data or code have changed since the last training, so this one "
                    f"starts afresh; older checkpoints may be deleted: {', '.join(others)}"
                )
        return cls(folder, say)

    @property
    def log(self) -> TrainingLog:
        """The log that belongs to these checkpoints."""
        return TrainingLog(self.folder / "metrics.jsonl")

    def save(self, step: int, model: nn.Module, optimizer: AdamW) -> None:
        """Save the state after `step` steps, and drop all but the last two."""
        log = self.log
        log.sync()
        tensors: dict[str, Tensor] = {
            **{_MODEL + name: value for name, value in model.state_dict().items()},
            **optimizer_tensors(model, optimizer),
        }
        arrays = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
        with atomic_path(self.folder / f"step-{step:08d}.safetensors") as temporary:
            save_tensors(temporary, arrays, {"step": step, "log_bytes": log.size})
        for old in self._paths()[:-_KEEP]:
            old.unlink(missing_ok=True)

    def resume(self, model: nn.Module, optimizer: AdamW) -> int:
        """Put the newest whole checkpoint back; return the number of steps done (0: none)."""
        for path in reversed(self._paths()):
            try:
                arrays, about = load_tensors(path)
                if self.log.size < about["log_bytes"]:
                    raise DataError("The log is shorter than the checkpoint says")
            except DataError as error:
                self.say(f"Checkpoint {path.name} cannot be used, trying the one before: {error}")
                path.unlink()
                continue
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            model.load_state_dict(
                {
                    name.removeprefix(_MODEL): value
                    for name, value in tensors.items()
                    if name.startswith(_MODEL)
                }
            )
            restore_optimizer(model, optimizer, tensors)
            self.log.cut(about["log_bytes"])
            self.say(f"Going on from {path.name}")
            return int(about["step"])
        self.log.cut(0)
        return 0

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"))
