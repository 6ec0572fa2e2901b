"""Masked-autoencoder pretraining: one loop that can be killed at any step.

Everything random in step `s` is drawn from (seed, s) or (seed, epoch, recording): windows,
masks, dropout. The state of a training is therefore its weights, its optimiser and `s`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import DataError
from ..model.checkpoint import build_model
from ..model.config import ModelConfig
from ..model.mae import MaskedAutoencoder
from ..model.mask import count_visible, generator, random_mask
from ..model.tokenizer import fewest_tokens
from ..shards.reader import ShardReader
from ..shards.sampler import Window, batches, check_any_window, even_windows, random_windows
from .checkpointing import Checkpoints
from .data import Batch, fewest_parcels, load_batch
from .optim import clip, learning_rate_at, make_optimizer, set_learning_rate
from .runtime import InterruptedTrainingError, StopRequest
from .settings import PretrainSettings
from .validation import validate

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Plan:
    """What a training will go through, known before it starts."""

    train: dict[str, int]  # recording_id -> time points
    val_windows: list[Window]
    n_visible: int
    steps_per_epoch: int
    total_steps: int


def make_plan(reader: ShardReader, config: ModelConfig, settings: PretrainSettings) -> Plan:
    """Count windows and steps; refuse data that cannot be trained on."""
    train, val = reader.lengths("train"), reader.lengths("val")
    for split, lengths in (("train", train), ("val", val)):
        check_any_window(lengths, config.timepoints, split)
    long_enough = sum(length >= config.timepoints for length in train.values())
    windows = long_enough * settings.windows_per_recording
    steps = math.ceil(windows / settings.batch_size)
    return Plan(
        train=train,
        val_windows=even_windows(val, config.timepoints),
        n_visible=count_visible(
            settings.mask_ratio, fewest_tokens(config, fewest_parcels(reader, ("train", "val")))
        ),
        steps_per_epoch=steps,
        total_steps=steps * settings.epochs,
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
) -> MaskedAutoencoder:
    """Train from scratch, or on from the newest checkpoint; return the model of the last step.

    `report` gets each row of the log; the log itself is `checkpoints.log`.
    """
    plan = make_plan(reader, config, settings)
    model = build_model(config, reader.parcels)
    assert isinstance(model, MaskedAutoencoder)
    model.initialize(generator(seed, "weights"))
    model.to(device).train()
    optimizer = make_optimizer(model, settings.learning_rate, settings.weight_decay)
    log = checkpoints.log
    done = checkpoints.resume(model, optimizer)

    todo: list[Sequence[Window]] = []
    for step in range(done, plan.total_steps):
        epoch, place = divmod(step, plan.steps_per_epoch)
        if place == 0 or not todo:
            todo = epoch_batches(plan, config, settings, seed, epoch)
        batch = load_batch(reader, todo[place], config.timepoints, device)

        rate = learning_rate_at(step, plan.total_steps, settings.learning_rate, settings.warmup)
        set_learning_rate(optimizer, rate)
        loss, norm = _train_step(
            model, optimizer, batch, plan.n_visible, settings.clip_norm, seed, step
        )
        row = {"step": step + 1, "epoch": epoch + 1, "loss": loss, "lr": rate, "grad_norm": norm}
        log.append(row)
        report(row)

        epoch_ends = place + 1 == plan.steps_per_epoch
        if epoch_ends:
            measured = validate(
                model,
                reader,
                plan.val_windows,
                n_visible=plan.n_visible,
                seed=seed,
                batch_size=settings.batch_size,
            )
            row = {"step": step + 1, "epoch": epoch + 1, **measured}
            log.append(row)
            report(row)
        if epoch_ends or (step + 1) % settings.checkpoint_every == 0 or stop.signal:
            checkpoints.save(step + 1, model, optimizer)
        if stop.signal and step + 1 < plan.total_steps:
            raise InterruptedTrainingError(
                f"Stopped by {stop.signal} after step {step + 1} of {plan.total_steps}; "
                "a checkpoint is safe",
                fix="run the same command again (or let Snakemake do so): it goes on from there",
            )
    return model.eval()


def _train_step(
    model: MaskedAutoencoder,
    optimizer: torch.optim.AdamW,
    batch: Batch,
    n_visible: int,
    clip_norm: float,
    seed: int,
    step: int,
) -> tuple[float, float]:
    """One update; return the loss and the norm of the gradient before clipping."""
    torch.manual_seed(generator(seed, "dropout", step).initial_seed())
    source = generator(seed, "mask", step)
    mask = random_mask(model.tokenizer.available(batch.covered), n_visible, source)
    loss = model(batch.signal, mask).loss
    value = float(loss.detach())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = clip(model, clip_norm)
    if not (math.isfinite(value) and math.isfinite(norm)):
        raise DataError(
            f"The loss is {value} and its gradient {norm} at step {step + 1}; the batch held "
            f"{', '.join(sorted(batch.recording_ids))}",
            fix="look at these recordings' QC figures, or lower pretrain.learning_rate; "
            "the checkpoint before is kept",
        )
    optimizer.step()
    return value, norm
