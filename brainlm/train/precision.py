"""Numbers of 16 bits where they are enough, of 32 where they are not.

bf16 keeps 8 significant bits. Products of matrices stand that; a weight does not: an update
below 1/256 of it is rounded away, and late in training nearly all are. So the optimiser always
steps on float32 weights (Micikevicius et al. 2018, mixed precision training):

float32     everything in 32 bits
bf16        float32 weights, cast for each product (autocast)
bf16-full   the model holds bf16 matrices; float32 masters of them are stepped on, and rounded
            into the model: half the memory traffic, and no cast
"""

from __future__ import annotations

import contextlib
from typing import Literal, get_args

import torch
from torch import nn

from ..errors import InputError

Precision = Literal["float32", "bf16", "bf16-full"]


def choose_precision(wanted: str, device: torch.device) -> Precision:
    """`pretrain.precision` on this device; `auto` is bf16 on a GPU that has it, else float32."""
    if wanted not in ("auto", *get_args(Precision)):
        raise InputError(
            f"There is no precision {wanted!r}",
            fix=f"choose of auto, {', '.join(get_args(Precision))}",
        )
    has_bf16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "auto":
        return "bf16" if device.type == "cuda" and has_bf16 else "float32"
    if wanted != "float32" and not has_bf16:
        raise InputError(
            f"pretrain.precision is {wanted}, but this GPU has no bf16",
            fix="set pretrain.precision to auto or float32",
        )
    if wanted == "bf16":
        return "bf16"
    return "bf16-full" if wanted == "bf16-full" else "float32"


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """The block in which a forward pass belongs.

    With bf16-full too: what comes in is float32, and sums, norms and losses stay so.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision != "float32")


class Weights:
    """The float32 weights that an optimiser steps on: those of the model itself."""

    def __init__(self, model: nn.Module):
        """Of all the parameters of `model` that are trained."""
        self.named: dict[str, nn.Parameter] = dict(model.named_parameters())

    def take_gradients(self) -> None:
        """After a backward pass: bring the model's gradients to the weights."""

    def give_back(self) -> None:
        """After a step: bring the weights to the model."""

    def forget_gradients(self) -> None:
        """Before the first backward pass of a step."""
        for weight in self.named.values():
            weight.grad = None


class MasterWeights(Weights):
    """Float32 copies of the matrices of a model that holds them in bf16.

    Gradients are added up in float32 as well, pass by pass. Vectors (norms, biases: few, and norms
    are taken in float32 anyway) and buffers (places in mm, tables) stay float32 in the model.
    """

    def __init__(self, model: nn.Module):
        """Copy the matrices of `model`, and make them bf16."""
        super().__init__(model)
        self._held = {name: held for name, held in self.named.items() if held.ndim > 1}
        for name, held in self._held.items():
            self.named[name] = nn.Parameter(held.detach().clone(), held.requires_grad)
            held.data = held.data.bfloat16()

    def take_gradients(self) -> None:
        """Add the model's gradients to those of the masters."""
        for name, held in self._held.items():
            if held.grad is not None:
                master, gradient = self.named[name], held.grad.float()
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                held.grad = None

    @torch.no_grad()
    def give_back(self) -> None:
        """Round the masters into the model."""
        for name, held in self._held.items():
            held.copy_(self.named[name])


def weights_of(model: nn.Module, precision: Precision, *, sharded: bool) -> Weights:
    """What the optimiser steps on. FSDP's shards (`sharded`) stay float32: they are the masters."""
    if precision == "bf16-full" and not sharded:
        return MasterWeights(model)
    return Weights(model)
