"""What a training tells of itself, a step late: to ask a GPU at once would be to wait for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import DataError
from ..shards.sampler import Window
from .checkpointing import TrainingLog
from .distributed import Ranks
from .validation import Measured


class _Noted(NamedTuple):
    """A step whose numbers are still on their way."""

    row: dict[str, Any]
    numbers: Tensor  # (3,) on the CPU once `arrived`: loss, gradient norm, told to stop
    arrived: torch.cuda.Event | None
    windows: Sequence[Window]


class Journal:
    """Writes the row of a step once its numbers are there; stops the training if they are none."""

    def __init__(self, log: TrainingLog, report: Callable[[dict[str, Any]], None], ranks: Ranks):
        """Only the first process writes to `log` and calls `report`."""
        self._log, self._report, self._writes = log, report, ranks.first
        self._noted: _Noted | None = None
        self._last: _Noted | None = None  # the last step that is done
        #: Whether any process had been told to stop; the same in all of them.
        self.stopping = False

    def note(self, row: dict[str, Any], numbers: Tensor, windows: Sequence[Window]) -> None:
        """Take a step's `numbers` from the device, and read those of the step before."""
        arrived = None
        if numbers.is_cuda:
            there = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            numbers = there.copy_(numbers, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        before, self._noted = self._noted, _Noted(row, numbers, arrived, windows)
        self._last = self._noted
        self._read(before)

    def catch_up(self) -> None:
        """Read the last step's numbers now: nothing may be saved that they would forbid."""
        before, self._noted = self._noted, None
        self._read(before)

    def write(self, row: dict[str, Any]) -> None:
        """Write a row that is complete."""
        if self._writes:
            self._log.append(row)
            self._report(row)

    def validated(self, place: dict[str, Any], measured: Measured) -> None:
        """Write what a validation found at `place`: a row of it all, one for each group.

        An update may leave weights of which only the validation tells that they are no good.
        """
        loss = measured.row["val_loss"]
        if self._last is not None and not math.isfinite(loss):
            raise _spoilt(f"The validation loss is {loss} after", self._last)
        for row in (measured.row, *measured.groups):
            self.write({**place, **row})

    def _read(self, noted: _Noted | None) -> None:
        if noted is None:
            return
        if noted.arrived is not None:
            noted.arrived.synchronize()
        loss, norm, stopping = noted.numbers.tolist()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise _spoilt(f"The loss is {loss} and its gradient {norm} at", noted)
        self.stopping = self.stopping or stopping > 0
        self.write({**noted.row, "loss": loss, "grad_norm": norm})


def _spoilt(what: str, noted: _Noted) -> DataError:
    """A step that ended in no number, with the recordings of its batch."""
    names = sorted({window.recording_id for window in noted.windows})
    return DataError(
        f"{what} step {noted.row['step']}; the batch held {', '.join(names)}",
        fix="look at these recordings' QC figures, or lower the learning rate; the checkpoint "
        "before is kept",
    )
