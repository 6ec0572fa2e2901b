"""The loop of fine-tuning, whatever is learned: it can be killed at any step, as pretraining.

All that is random in step `s` is drawn from (seed, s) or (seed, epoch, recording), so the state
is the weights that learn, their optimiser, and `s`. The checkpoint of the epoch with the lowest
validation loss is what it ends with.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import DataError
from ..model.mask import generator
from ..shards.sampler import Window, batches, random_windows
from .checkpointing import Checkpoints, best_step
from .data import ahead, share_out
from .distributed import ALONE, Ranks
from .intact import DataCheck
from .journal import Journal
from .learners import TuneState
from .optim import learning_rate_at
from .precision import Precision, autocast
from .runtime import InterruptedTrainingError, StopRequest
from .task import Pace, Task
from .validation import Look, Measured

_WARMUP = 0.05

Report = Callable[[dict[str, Any]], None]


class Circumstances(NamedTuple):
    """What surrounds a fine-tuning."""

    checkpoints: Checkpoints
    report: Report
    stop: StopRequest
    precision: Precision = "float32"
    checkpoint_every: int = 100
    ranks: Ranks = ALONE
    look: Look | None = None  # what is shown each validation
    look_at_kept: Look | None = None  # what is shown the epoch that is kept, in the end
    intact: DataCheck | None = None  # of the shards: nothing is saved before it is through


class Step(NamedTuple):
    """What a process needs of a step."""

    windows: Sequence[Window]  # of the whole batch
    fetched: Any  # its part of them, as `Task.fetch` makes it
    counts: int  # 0: there was no window left for it, and it repeats another for nothing


def tune(task: Task, pace: Pace, seed: int, around: Circumstances) -> dict[str, Any]:
    """Train, or go on; return the row of the epoch with the lowest validation loss.

    The network of `task` is then that epoch's, in all processes.
    """
    checkpoints, stop, ranks = around.checkpoints, around.stop, around.ranks
    state = TuneState(task, pace, around.precision, seed, ranks)
    done = checkpoints.resume(state)
    per_epoch = math.ceil(len(task.train) / pace.batch_size)
    total = per_epoch * pace.epochs
    journal = Journal(checkpoints.log, around.report, ranks)
    peak = pace.learning_rate or task.usual_rate
    make_step = _step_maker(task, pace.batch_size, seed, ranks)
    with contextlib.closing(ahead(make_step, range(done, total))) as steps:
        for number, made in enumerate(steps, done):
            epoch, place = divmod(number, per_epoch)
            if place == 0 and _gone_stale(checkpoints, epoch, pace.patience, ranks):
                break
            rate = learning_rate_at(number, total, peak, _WARMUP)
            outcome = _train_step(task, state, made, number, rate, seed, around)
            journal.note(
                {"step": number + 1, "epoch": epoch + 1, "lr": rate}, outcome, made.windows
            )

            epoch_ends = place + 1 == per_epoch
            if epoch_ends:
                journal.catch_up()
                measured = _validated(task, around)
                journal.validated({"step": number + 1, "epoch": epoch + 1}, measured)
                if around.look is not None and task.autoencoder is not None:
                    around.look(number + 1, task.autoencoder, measured)
            stopping = stop.wanted if ranks.world == 1 else journal.stopping
            if epoch_ends or (number + 1) % around.checkpoint_every == 0 or stopping:
                journal.catch_up()
                if around.intact is not None:
                    around.intact.settle()
                checkpoints.save(number + 1, state)
            if stopping and number + 1 < total:
                checkpoints.settle()
                raise InterruptedTrainingError(
                    stop, checkpoints.folder, begun=done, step=number + 1, total=f"at most {total}"
                )
    checkpoints.settle()  # before the others read what the first process wrote
    best = ranks.from_first(best_step(checkpoints.log.rows()) if ranks.first else 0)
    checkpoints.load(best, state)
    state.finish()
    if around.look_at_kept is not None and task.autoencoder is not None:
        around.look_at_kept(best, task.autoencoder, _validated(task, around))
    return next(r for r in _validations(checkpoints) if r["step"] == best)


def _train_step(
    task: Task,
    state: TuneState,
    made: Step,
    number: int,
    rate: float,
    seed: int,
    around: Circumstances,
) -> Tensor:
    """One update; (3,) on the device: the loss, the gradient's norm, processes told to stop.

    The loss is that of the whole batch, however it is shared out: the processes' errors and what
    they weigh are added up one by one. A process without a window goes through the motions.
    """
    ranks, device = around.ranks, device_of(task.model)
    key = (seed, "dropout", number, *([] if ranks.first else [ranks.rank]))
    torch.manual_seed(generator(*key).initial_seed())
    task.model.train()
    state.weights.forget_gradients()
    with autocast(around.precision, device):
        loss = task.loss(state.trained, made.fetched)
    stopping = torch.tensor(float(around.stop.wanted is not None), device=device)
    weight, told_to_stop = ranks.total(torch.stack([loss.weight.float() * made.counts, stopping]))
    part = loss.total.float() * (made.counts / weight)
    (part * ranks.world).backward()  # for the gradients of the processes are averaged
    state.weights.take_gradients()
    norm = state.update(rate)
    return torch.stack([ranks.total(part.detach().clone()), norm, told_to_stop])


def device_of(model: nn.Module) -> torch.device:
    """Where a network's weights are."""
    return next(model.parameters()).device


def _step_maker(task: Task, batch_size: int, seed: int, ranks: Ranks) -> Callable[[int], Step]:
    """What fetches a step's part of this process; it is called in another thread.

    An epoch takes one random window of each recording, in random order.
    """

    @lru_cache(maxsize=2)
    def of_epoch(epoch: int) -> list[Sequence[Window]]:
        window = task.window
        windows = random_windows(task.train, window=window, seed=seed, epoch=epoch, per_recording=1)
        return batches(windows, batch_size)

    def make_step(number: int) -> Step:
        epoch, place = divmod(number, math.ceil(len(task.train) / batch_size))
        windows = of_epoch(epoch)[place]
        rows = share_out(len(windows), ranks.rank, ranks.world, passes=1)[0]
        return Step(windows, task.fetch(windows, rows or [0], number), int(len(rows) > 0))

    return make_step


@torch.no_grad()
def _validated(task: Task, around: Circumstances) -> Measured:
    task.model.eval()
    with autocast(around.precision, device_of(task.model)):
        found = task.validate(around.ranks)
    loss = found.row["val_loss"]
    if not math.isfinite(loss):
        raise DataError(f"The validation loss is {loss}", fix="lower the learning rate")
    return found


def _gone_stale(checkpoints: Checkpoints, epoch: int, patience: int, ranks: Ranks) -> bool:
    """Whether the last `patience` of `epoch` epochs brought no lower validation loss.

    The first process reads it in its log, and tells all.
    """
    rows = _validations(checkpoints) if epoch and ranks.first else []
    best = best_step(rows)
    stale = any(row["step"] == best and epoch - row["epoch"] >= patience for row in rows)
    return bool(ranks.from_first(int(stale)))


def _validations(checkpoints: Checkpoints) -> list[dict[str, Any]]:
    return [row for row in checkpoints.log.rows() if "val_loss" in row]
