"""Masked-autoencoder pretraining: one loop that can be killed at any step.

Everything random in step `s` is drawn from (seed, s) or (seed, epoch, recording): windows,
masks, dropout. The state of a training is therefore its weights, its optimiser and `s`.

The processor runs ahead of a GPU: the numbers of a step are read when the next one is under way.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..model.config import ModelConfig
from ..model.kernels import attention_shapes, fastest_kernels
from ..model.mae import MaskedAutoencoder
from ..model.mask import TokenMask, generator
from ..shards.reader import ShardReader
from ..shards.sampler import Window, batches, check_any_window, random_windows
from .checkpointing import Checkpoints
from .data import Coverage, Source, ahead, fewest_parcels, open_source, share_out
from .distributed import ALONE, Ranks, gradients_stay_here
from .intact import DataCheck
from .journal import Journal
from .masking import Masking, count_targets
from .optim import learning_rate_at
from .precision import autocast
from .runtime import InterruptedTrainingError, StopRequest
from .settings import PretrainSettings
from .state import TrainState
from .validation import Look, fixed_windows, validate

#: Threads that make the batches of a GPU. A large batch's masks take a core some tens of ms.
_THREADS = 4

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Plan:
    """What a training will go through, known before it starts."""

    train: dict[str, int]  # recording_id -> time points
    val_windows: list[Window]
    masking: Masking  # of validation
    asking: Masking  # of steps: the same, but perhaps not all that is hidden is asked for
    steps_per_epoch: int
    total_steps: int
    windows_per_epoch: int
    validate_every: int  # steps
    by_epoch: bool = True  # validated at the end of each epoch besides

    def validates(self, step: int) -> bool:
        """Whether there is a validation after `step` steps."""
        ends = step == self.total_steps or (self.by_epoch and step % self.steps_per_epoch == 0)
        return ends or step % self.validate_every == 0


class Piece(NamedTuple):
    """What a process takes through the model at once."""

    fetched: Tensor  # of its windows, as the source has it ahead of the step
    mask: TokenMask
    entries: int  # that its loss is a mean of; 0: no window was left for it, it repeats one idly


class Step(NamedTuple):
    """What a process needs of a step; `windows` are those of the whole batch."""

    number: int
    windows: Sequence[Window]
    pieces: list[Piece]


def make_plan(
    reader: ShardReader, config: ModelConfig, settings: PretrainSettings, budget: int | None = None
) -> Plan:
    """Count windows and steps; refuse data that cannot be trained on.

    `budget`: so many steps instead of `settings.epochs`, and ten validations in all.
    """
    train, val = reader.lengths("train"), reader.lengths("val")
    for split, lengths in (("train", train), ("val", val)):
        check_any_window(lengths, config.timepoints, split)
    long_enough = sum(length >= config.timepoints for length in train.values())
    windows = long_enough * settings.windows_per_recording
    steps = math.ceil(windows / settings.batch_size)
    masking = Masking.of(
        config,
        settings.mask,
        settings.mask_ratio,
        reader.parcels,
        fewest_parcels(reader, ("train", "val")),
    )
    return Plan(
        train=train,
        val_windows=fixed_windows(reader.table, val, config.timepoints, settings.validate_windows),
        masking=masking,
        asking=masking.asking(settings.guessed, config.decoder),
        steps_per_epoch=steps,
        total_steps=budget or steps * settings.epochs,
        windows_per_epoch=windows,
        validate_every=settings.validate_every or math.ceil((budget or 0) / 10) or steps,
        by_epoch=budget is None,
    )


def epoch_batches(
    plan: Plan, config: ModelConfig, settings: PretrainSettings, seed: int, epoch: int
) -> list[Sequence[Window]]:
    """The batches of an epoch."""
    windows = random_windows(
        plan.train,
        window=config.timepoints,
        seed=seed,
        epoch=epoch,
        per_recording=settings.windows_per_recording,
    )
    return batches(windows, settings.batch_size)


def pretrain(
    reader: ShardReader,
    config: ModelConfig,
    settings: PretrainSettings,
    *,
    seed: int,
    device: torch.device,
    checkpoints: Checkpoints,
    report: Report,
    stop: StopRequest,
    ranks: Ranks = ALONE,
    look: Look | None = None,
    budget: int | None = None,
) -> MaskedAutoencoder:
    """Train from scratch, or on from the newest checkpoint; return the model of the last step.

    `report` gets each row of the log, on the first process; the log itself is `checkpoints.log`.
    `look` is shown each validation, on all processes. `budget`: see `make_plan`.
    """
    plan = make_plan(reader, config, settings, budget)
    state = TrainState(config, reader.parcels, settings, seed=seed, device=device, ranks=ranks)
    done = checkpoints.resume(state)
    if done > plan.total_steps:
        raise InputError(
            f"The checkpoint is of step {done}, but there are only {plan.total_steps} steps to do",
            file=checkpoints.folder,
            fix="raise pretrain.epochs, or delete this folder to start afresh",
        )
    source = open_source(settings.data, reader, config.timepoints, device)
    make_step = _step_maker(reader, plan, state, source, seed)
    journal = Journal(checkpoints.log, report, ranks)

    threads = _THREADS if device.type == "cuda" else 1
    steps = ahead(make_step, range(done, plan.total_steps), threads)
    intact = DataCheck(reader, ranks)
    with contextlib.closing(steps), _kernels(plan, state), checkpoints.settled(), intact:
        for step in steps:
            epoch = step.number // plan.steps_per_epoch
            rate = learning_rate_at(
                step.number, plan.total_steps, settings.peak_learning_rate, settings.warmup
            )
            outcome = _train_step(state, source, step, rate, seed, stopping=stop.wanted is not None)
            row = {"step": step.number + 1, "epoch": epoch + 1, "lr": rate}
            journal.note(row, outcome, step.windows)

            validates = plan.validates(step.number + 1)
            if validates:
                journal.catch_up()
                with state.averaged() as model:
                    measured = validate(
                        model,
                        reader,
                        plan.val_windows,
                        masking=plan.masking,
                        seed=seed,
                        batch_size=settings.batch_size,
                        precision=state.precision,
                        ranks=ranks,
                        passes=ranks.world * settings.accumulate,
                    )
                    place = {"step": step.number + 1, "epoch": epoch + 1}
                    journal.validated(place, measured)
                    if look is not None:
                        look(step.number + 1, model, measured)
            stopping = stop.wanted if ranks.world == 1 else journal.stopping
            if validates or (step.number + 1) % settings.checkpoint_every == 0 or stopping:
                journal.catch_up()
                intact.settle()
                checkpoints.save(step.number + 1, state)
            if stopping and step.number + 1 < plan.total_steps:
                checkpoints.settle()
                raise InterruptedTrainingError(
                    stop,
                    checkpoints.folder,
                    begun=done,
                    step=step.number + 1,
                    total=str(plan.total_steps),
                )
    return state.finished()


def _kernels(plan: Plan, state: TrainState) -> contextlib.AbstractContextManager[object]:
    """The block in which attention takes the fastest of PyTorch's kernels, where it may choose."""
    settings, config = state.settings, state.model.config
    if settings.attention != "sdpa":
        return contextlib.nullcontext()
    at_once = max(1, settings.batch_size // state.ranks.world // settings.accumulate)
    shapes = attention_shapes(config, state.tokenizer.tokens, at_once, plan.masking.n_visible)
    dtype = torch.float32 if state.precision == "float32" else torch.bfloat16
    return fastest_kernels(shapes, dtype, state.device)


def _step_maker(
    reader: ShardReader, plan: Plan, state: TrainState, source: Source, seed: int
) -> Callable[[int], Step]:
    """What draws and fetches the windows and masks of a step, whichever process asks.

    It is called in other threads, and works on the CPU alone.
    """
    config, settings, ranks = state.model.config, state.settings, state.ranks
    coverage = Coverage(reader)
    of_epoch = lru_cache(maxsize=2)(
        lambda epoch: epoch_batches(plan, config, settings, seed, epoch)
    )
    # Of 77,000 recordings it takes a second, which the threads must not all spend.
    one_draws = threading.Lock()

    def make_step(number: int) -> Step:
        epoch, place = divmod(number, plan.steps_per_epoch)
        with one_draws:
            windows = of_epoch(epoch)[place]
        pieces = []
        for rows in share_out(len(windows), ranks.rank, ranks.world, settings.accumulate):
            taken = list(rows) or [0]
            chosen = [windows[row] for row in taken]
            mask = plan.asking.of_rows(
                state.tokenizer, coverage, windows, taken, (seed, "mask", number)
            )
            entries = count_targets(state.tokenizer, coverage.of(chosen), mask) if rows else 0
            pieces.append(Piece(source.fetch(chosen), mask, entries))
        return Step(number, windows, pieces)

    return make_step


def _train_step(
    state: TrainState, source: Source, step: Step, rate: float, seed: int, *, stopping: bool
) -> Tensor:
    """One update; (3,) on the device: the loss, the gradient's norm, processes told to stop.

    The loss is the mean over all entries of the whole batch, however it is shared out: each part
    weighs as many entries as it has. Nothing here waits for the device.
    """
    ranks, device = state.ranks, state.device
    key = (
        (seed, "dropout", step.number)
        if ranks.first
        else (seed, "dropout", step.number, ranks.rank)
    )
    torch.manual_seed(generator(*key).initial_seed())
    passes = [
        (
            source.signal(piece.fetched),
            TokenMask(*(part.to(device, non_blocking=True) for part in piece.mask)),
        )
        for piece in step.pieces
    ]
    entries = torch.stack([torch.full((), piece.entries, device=device) for piece in step.pieces])
    flag = torch.full_like(entries[:1], int(stopping))
    in_all, told_to_stop = ranks.total(torch.cat([entries.sum()[None], flag]))
    in_all = in_all.clamp(min=1)

    state.weights.forget_gradients()
    loss = torch.zeros((), device=device)
    for number, (signal, mask) in enumerate(passes):
        later = number + 1 < len(passes) and not state.adds_up_itself
        with gradients_stay_here(state.trained, later):
            with autocast(state.precision, device):
                part = state.trained(signal, mask, state.settings.loss).loss
            part = part * (entries[number] / in_all)
            (part * ranks.world).backward()  # for the gradients of the processes are averaged
        state.weights.take_gradients()
        loss += part.detach()
    norm = state.update(rate)
    return torch.stack([ranks.total(loss), norm, told_to_stop.to(norm.dtype)])
