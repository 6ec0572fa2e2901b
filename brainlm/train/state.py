"""Everything that a training changes: the model, the optimiser, the running mean of the weights.

It is laid down as named tensors, whole and in float32 whatever the precision and however many
processes share them, so that a training may go on in other circumstances.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping

import pandas as pd
import torch
from torch import Tensor, nn

from ..errors import DataError, InputError
from ..model.checkpoint import build_model
from ..model.config import ModelConfig
from ..model.mae import MaskedAutoencoder
from ..model.mask import generator
from .distributed import ALONE, Ranks, averaging_gradients, parted_like, shard, whole
from .optim import (
    clip,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)
from .precision import MasterWeights, choose_precision, weights_of
from .settings import PretrainSettings

_MODEL, _EMA = "model.", "ema."


class TrainState:
    """The state of a training on one of `ranks` processes."""

    def __init__(
        self,
        config: ModelConfig,
        parcels: pd.DataFrame,
        settings: PretrainSettings,
        *,
        seed: int,
        device: torch.device,
        ranks: Ranks = ALONE,
    ):
        """An untrained model; all processes draw the same one."""
        self.settings, self.ranks, self.device = settings, ranks, device
        self._parcels = parcels
        self.precision = choose_precision(settings.precision, device)
        self.model = _plain(config, parcels)
        self.model.initialize(generator(seed, "weights"))
        #: On the CPU, whole, for drawing masks.
        self.tokenizer = copy.deepcopy(self.model.tokenizer)
        self.model.set_attention(settings.attention)
        self.model.checkpoint_blocks(settings.checkpoint_blocks)
        self.model.to(device).train()
        sharded = ranks.world > 1 and settings.parallel == "fsdp"
        if sharded and settings.optimizer == "muon":
            raise InputError(
                "pretrain.optimizer is muon, which needs matrices whole, but pretrain.parallel is "
                "fsdp, which parts them",
                fix="set pretrain.parallel: ddp, or pretrain.optimizer: adamw",
            )
        if sharded:
            shard(self.model, ranks, device)
        self.weights = weights_of(self.model, self.precision, sharded=sharded)
        self.optimizer = make_optimizer(
            self.weights.named,
            settings.peak_learning_rate,
            settings.weight_decay,
            settings.optimizer,
        )
        self.ema = (
            {name: weight.detach().clone() for name, weight in self.weights.named.items()}
            if settings.ema_decay
            else {}
        )
        #: What a training step calls; `model` is for all else.
        self.trained: nn.Module = averaging_gradients(self.model, ranks)
        if settings.compile:
            # What `set_up` chose, which the compiler has not been told.
            torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())
            self.trained = torch.compile(self.trained)  # type: ignore[assignment]

    @property
    def adds_up_itself(self) -> bool:
        """Whether gradients leave the model after each pass, so that each must be averaged."""
        return isinstance(self.weights, MasterWeights)

    def update(self, rate: float) -> Tensor:
        """Clip the gradients and step; return their norm before, () on the device."""
        norm = clip(self.weights.named.values(), self.settings.clip_norm)
        set_learning_rate(self.optimizer, rate)
        self.optimizer.step()
        self.weights.give_back()
        if self.ema:
            with torch.no_grad():
                for name, weight in self.weights.named.items():
                    self.ema[name].lerp_(weight.detach(), 1 - self.settings.ema_decay)
        return norm

    @contextlib.contextmanager
    def averaged(self) -> Iterator[MaskedAutoencoder]:
        """Within the block, the model has the weights it would end with: the mean, if one runs."""
        parameters = dict(self.model.named_parameters())
        before = {name: parameters[name].detach().clone() for name in self.ema}
        with torch.no_grad():
            for name, mean in self.ema.items():
                parameters[name].copy_(mean)
            yield self.model
            for name, value in before.items():
                parameters[name].copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state where it lies, each process its part; not copied."""
        return {
            **{_MODEL + name: value for name, value in self._weights_and_buffers().items()},
            **optimizer_tensors(self.weights.named, self.optimizer),
            **{_EMA + name: value for name, value in self.ema.items()},
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put the state of `tensors` back."""
        own = self._weights_and_buffers()
        wanted = {_MODEL + name: tuple(value.shape) for name, value in own.items()}
        wanted |= {_EMA + name: tuple(value.shape) for name, value in self.ema.items()}
        wrong = [
            name
            for name, shape in wanted.items()
            if name not in tensors or tuple(tensors[name].shape) != shape
        ]
        if wrong:
            raise DataError(
                f"The checkpoint is of another model: {len(wrong)} tensors differ, e.g. {wrong[0]}",
                fix="go on with the options that it was made with, or delete its folder to start "
                "afresh",
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(parted_like(tensors[_MODEL + name], value))
            for name, mean in self.ema.items():
                mean.copy_(parted_like(tensors[_EMA + name], mean))
        self.weights.give_back()
        restore_optimizer(self.weights.named, self.optimizer, tensors)

    def finished(self) -> MaskedAutoencoder:
        """The trained model, whole, in float32, on the CPU; all processes must call it."""
        model = _plain(self.model.config, self._parcels)
        final = {**self._weights_and_buffers(), **self.ema}
        model.load_state_dict({name: whole(value.detach()).cpu() for name, value in final.items()})
        return model.eval()

    def _weights_and_buffers(self) -> dict[str, Tensor]:
        """What the model's file holds, with the float32 weights, on this process."""
        return {**self.model.state_dict(), **self.weights.named}


def _plain(config: ModelConfig, parcels: pd.DataFrame) -> MaskedAutoencoder:
    model = build_model(config, parcels)
    assert isinstance(model, MaskedAutoencoder)
    return model
