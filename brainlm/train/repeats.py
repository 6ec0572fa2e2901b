"""The same fine-tuning with several seeds: how much of a result is luck."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from ..model.mask import generator
from .tuning import Circumstances

Model = TypeVar("Model")


@dataclass(frozen=True)
class Repeated(Generic[Model]):
    """The model of the best repeat, and how all went."""

    model: Model
    best: int  # number of that repeat, from 0
    rows: Sequence[dict[str, Any]]  # of the log: each repeat's best epoch
    told: Sequence[Any]  # what each repeat's model was asked, see `repeat`

    def summary(self) -> dict[str, Any]:
        """For provenance and the model card: validation loss over repeats, SD with n - 1."""
        losses = [row["val_loss"] for row in self.rows]
        return {
            "repeats": len(losses),
            "best_repeat": self.best + 1,
            "epoch": self.rows[self.best]["epoch"],
            "val_loss": losses[self.best],
            "val_loss_of_each": losses,
            "val_loss_mean": float(np.mean(losses)),
            "val_loss_sd": float(np.std(losses, ddof=1)) if len(losses) > 1 else None,
        }


def repeat(
    once: Callable[[int, Circumstances], tuple[Model, dict[str, Any]]],
    count: int,
    seed: int,
    around: Circumstances,
    ask: Callable[[Model], Any] = lambda model: None,
) -> Repeated[Model]:
    """`once` of `count` seeds; the model of the lowest validation loss is kept.

    What `ask` hears of each model is kept of all: predictions need less room than weights.

    Each has checkpoints of its own, so that one that is done is not done again after a stop.
    """
    rows: list[dict[str, Any]] = []
    told: list[Any] = []
    best: tuple[float, int, Model] | None = None
    for number in range(count):
        own = around.checkpoints.folder / f"repeat-{number + 1}"
        checkpoints = replace(around.checkpoints, folder=own)
        with checkpoints.settled():
            model, row = once(
                seed_of_repeat(seed, number), around._replace(checkpoints=checkpoints)
            )
        rows.append(row)
        told.append(ask(model))
        if best is None or row["val_loss"] < best[0]:
            best = (row["val_loss"], number, model)
    assert best is not None
    return Repeated(best[2], best[1], rows, told)


def seed_of_repeat(seed: int, number: int) -> int:
    """Seed of head, windows, views and dropout; the first repeat's is the study's."""
    return seed if number == 0 else generator(seed, "repeat", number).initial_seed()


def all_rows(around: Circumstances, count: int) -> list[dict[str, Any]]:
    """The logs of all repeats, one after the other."""
    rows = []
    for number in range(count):
        own = around.checkpoints.folder / f"repeat-{number + 1}"
        log = replace(around.checkpoints, folder=own).log
        rows += [{"repeat": number + 1, **row} for row in log.rows()]
    return rows
