"""The loop of fine-tuning, whatever is learned: it can be killed at any step, as pretraining.

All that is random in step `s` is drawn from (seed, s) or (seed, epoch, recording), so the state
is the weights that learn, their optimiser, and `s`. The checkpoint of the epoch with the lowest
validation loss is what it ends with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from ..errors import DataError
from ..model.mae import MaskedAutoencoder
from ..model.mask import generator
from ..shards.sampler import Window, batches, random_windows
from .checkpointing import Checkpoints, best_step
from .distributed import ALONE
from .journal import Journal
from .lora import adapt, merge
from .optim import clip, learning_rate_at, optimizer_tensors, restore_optimizer
from .precision import Precision, autocast, weights_of
from .runtime import InterruptedTrainingError, StopRequest
from .settings import FinetuneSettings

_CLIP_NORM = 1.0
_WARMUP = 0.05
_BETAS = (0.9, 0.999)
_MODEL = "model."

Report = Callable[[dict[str, Any]], None]


class Task(Protocol):
    """What is learned."""

    @property
    def model(self) -> nn.Module:
        """The network, on its device; it is changed."""

    @property
    def autoencoder(self) -> MaskedAutoencoder:
        """The pretrained part of it."""

    @property
    def decodes(self) -> bool:
        """Whether the decoder is used, and learns too."""

    @property
    def train(self) -> Mapping[str, int]:
        """Recordings to learn from -> time points."""

    def loss(self, windows: Sequence[Window], step: int) -> Tensor:
        """Of a batch, ()."""

    def validate(self) -> dict[str, float]:
        """`val_loss`, and what else is measured; the network is in eval mode."""


class Circumstances(NamedTuple):
    """What surrounds a fine-tuning."""

    checkpoints: Checkpoints
    report: Report
    stop: StopRequest
    precision: Precision = "float32"
    checkpoint_every: int = 100


class TuneState:
    """The weights that learn, and their optimiser."""

    ranks = ALONE

    def __init__(self, task: Task, settings: FinetuneSettings, precision: Precision, seed: int):
        """Choose what learns, and at which share of the rate."""
        choose_learners(task, settings, seed)
        self.model = task.model
        self.weights = weights_of(self.model, precision, sharded=False)
        self.learning = {name: w for name, w in self.weights.named.items() if w.requires_grad}
        layers = len(task.autoencoder.encoder)
        self.optimizer = AdamW(
            [
                {
                    "params": [weight],
                    "share": rate_share(name, layers, settings.layer_decay),
                    "weight_decay": settings.weight_decay if weight.ndim == 2 else 0.0,
                }
                for name, weight in self.learning.items()
            ],
            betas=_BETAS,
            fused=True,
        )

    def update(self, rate: float) -> Tensor:
        """Clip the gradients and step; return their norm before, ()."""
        norm = clip(self.learning.values(), _CLIP_NORM)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self.optimizer.step()
        self.weights.give_back()
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """All that changes, by name, where it lies."""
        return {
            **{_MODEL + name: weight for name, weight in self.learning.items()},
            **optimizer_tensors(self.learning, self.optimizer),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put `tensors` back."""
        with torch.no_grad():
            for name, weight in self.learning.items():
                weight.copy_(tensors[_MODEL + name])
        self.weights.give_back()
        restore_optimizer(self.learning, self.optimizer, tensors)

    @torch.no_grad()
    def finish(self) -> None:
        """Leave the network whole, in float32."""
        for name, held in self.model.named_parameters():
            held.data = self.weights.named[name].detach()
        merge(self.model)
        self.model.eval()


def choose_learners(task: Task, settings: FinetuneSettings, seed: int) -> None:
    """By `finetune.mode`: what lies behind the encoder learns always (the decoder if it is used).

    With lora the decoder, where it is used, learns by low rank as well.
    """
    autoencoder = task.autoencoder
    autoencoder.requires_grad_(settings.mode == "full")
    autoencoder.decoder.requires_grad_(task.decodes and settings.mode != "lora")
    if settings.mode == "lora":
        parts = [autoencoder.encoder, *([autoencoder.decoder] if task.decodes else [])]
        for number, part in enumerate(parts):
            adapt(part, settings.lora_rank, generator(seed, "lora", number))


def rate_share(name: str, layers: int, decay: float) -> float:
    """The share of the learning rate that a weight gets: `decay` per layer below the head.

    As BEiT and ViT-MAE do (Bao et al. 2022): tokens are layer 0, blocks 1 to `layers`.
    """
    parts = name.removeprefix("autoencoder.").split(".")
    if parts[0] == "encoder":
        return decay ** (layers - int(parts[1]))
    below = parts[0] in ("tokenizer", "cls")
    return decay ** (layers + 1) if below else 1.0


def tune(
    task: Task, settings: FinetuneSettings, seed: int, around: Circumstances
) -> dict[str, Any]:
    """Train, or go on; return the row of the epoch with the lowest validation loss.

    The network of `task` is then that epoch's.
    """
    checkpoints, stop = around.checkpoints, around.stop
    device = task.autoencoder.cls.device
    state = TuneState(task, settings, around.precision, seed)
    done = checkpoints.resume(state)
    per_epoch = math.ceil(len(task.train) / settings.batch_size)
    total = per_epoch * settings.epochs
    journal = Journal(checkpoints.log, around.report, ALONE)
    for step in range(done, total):
        epoch, place = divmod(step, per_epoch)
        if place == 0 and _gone_stale(checkpoints, epoch, settings.patience):
            break
        if place == 0 or step == done:
            chosen = _epoch_batches(task, settings.batch_size, seed, epoch)
        rate = learning_rate_at(step, total, settings.learning_rate, _WARMUP)
        torch.manual_seed(generator(seed, "dropout", step).initial_seed())
        task.model.train()
        state.weights.forget_gradients()
        with autocast(around.precision, device):
            loss = task.loss(chosen[place], step)
        loss.backward()
        state.weights.take_gradients()
        norm = state.update(rate)
        numbers = torch.stack([loss.detach().float(), norm, torch.zeros_like(norm)])
        journal.note({"step": step + 1, "epoch": epoch + 1, "lr": rate}, numbers, chosen[place])

        epoch_ends = place + 1 == per_epoch
        if epoch_ends:
            journal.catch_up()
            journal.write({"step": step + 1, "epoch": epoch + 1, **_validated(task, around)})
        stopping = stop.wanted
        if epoch_ends or (step + 1) % around.checkpoint_every == 0 or stopping:
            journal.catch_up()
            checkpoints.save(step + 1, state)
        if stopping and step + 1 < total:
            checkpoints.settle()
            raise InterruptedTrainingError(
                f"Stopped by {stopping} after step {step + 1} of at most {total}; a checkpoint is "
                "safe",
                fix="run the same command again (or let Snakemake do so): it goes on there",
            )
    best = best_step(checkpoints.log.rows())
    checkpoints.load(best, state)
    state.finish()
    return next(r for r in _validations(checkpoints) if r["step"] == best)


def _epoch_batches(task: Task, batch_size: int, seed: int, epoch: int) -> list[Sequence[Window]]:
    """One random window of each recording, in random order."""
    windows = random_windows(
        task.train,
        window=task.autoencoder.config.timepoints,
        seed=seed,
        epoch=epoch,
        per_recording=1,
    )
    return batches(windows, batch_size)


@torch.no_grad()
def _validated(task: Task, around: Circumstances) -> dict[str, float]:
    task.model.eval()
    with autocast(around.precision, task.autoencoder.cls.device):
        found = task.validate()
    if not math.isfinite(found["val_loss"]):
        raise DataError(
            f"The validation loss is {found['val_loss']}", fix="lower finetune.learning_rate"
        )
    return found


def _gone_stale(checkpoints: Checkpoints, epoch: int, patience: int) -> bool:
    """Whether the last `patience` of `epoch` epochs brought no lower validation loss."""
    rows = _validations(checkpoints) if epoch else []
    best = best_step(rows)
    return any(row["step"] == best and epoch - row["epoch"] >= patience for row in rows)


def _validations(checkpoints: Checkpoints) -> list[dict[str, Any]]:
    return [row for row in checkpoints.log.rows() if "val_loss" in row]
