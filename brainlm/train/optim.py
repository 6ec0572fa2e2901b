"""Adam, AdamW and Muon with a cosine schedule, and their state as plain tensors.

Muon (Jordan et al. 2024) takes a matrix's gradient, averaged over steps, as a whole: its singular
values are all made about 1. It is meant for the matrices inside a network; what reads the input
and what makes the output, biases, norms and single tokens are AdamW's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Muon

from .distributed import parted_like, whole

_BETAS = {
    "adamw": (0.9, 0.95),  # He et al. 2022, table 8
    "adam": (0.9, 0.999),  # Kingma & Ba 2015; what BrainLM's paper names
}
#: What an optimiser keeps of a weight.
_ADAM, _MUON = ("step", "exp_avg", "exp_avg_sq"), ("momentum_buffer",)
#: Where the matrices lie that Muon takes: in blocks of the encoder and of the decoder.
_BLOCKS = ("encoder.", "decoder.blocks.")


class Optimizer(Protocol):
    """What a training asks of an optimiser: `torch.optim.Optimizer`, or two of them."""

    param_groups: list[dict[str, Any]]
    state: Any  # weight -> moment -> tensor

    def step(self) -> Any:
        """Change the weights by their gradients."""


class MuonAdamW:
    """Muon on some matrices, AdamW on all else: to a training they are one."""

    def __init__(self, muon: Muon, adamw: AdamW):
        """They share one table of moments."""
        self._both = (muon, adamw)
        self.param_groups: list[dict[str, Any]] = [*muon.param_groups, *adamw.param_groups]
        self.state = adamw.state = muon.state

    def step(self) -> None:
        """Change the weights by their gradients."""
        for optimizer in self._both:
            optimizer.step()


def make_optimizer(
    weights: Mapping[str, nn.Parameter],
    learning_rate: float,
    weight_decay: float,
    kind: str = "adamw",
) -> Optimizer:
    """AdamW, Adam or Muon (with AdamW); matrices decay, biases, norms and single tokens do not.

    Adam's decay is a part of the gradient (L2), AdamW's is not. One fused kernel steps on all
    weights of a device. Muon's steps are scaled to be as large as AdamW's (RMS 0.2 of the rate: Liu
    et al. 2025, "Muon is scalable for LLM training"), so that AdamW's rate and decay suit it.
    """
    trained = {name: weight for name, weight in weights.items() if weight.requires_grad}
    whole_matrices = {
        name: weight
        for name, weight in trained.items()
        if kind == "muon" and weight.ndim == 2 and name.startswith(_BLOCKS)
    }
    rest = [weight for name, weight in trained.items() if name not in whole_matrices]
    groups = [
        {"params": [weight for weight in rest if weight.ndim == 2], "weight_decay": weight_decay},
        {"params": [weight for weight in rest if weight.ndim != 2], "weight_decay": 0.0},
    ]
    if kind != "muon":
        optimizer = {"adamw": AdamW, "adam": Adam}[kind]
        return optimizer(groups, lr=learning_rate, betas=_BETAS[kind], fused=True)
    return MuonAdamW(
        Muon(
            whole_matrices.values(),
            lr=learning_rate,
            weight_decay=weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        AdamW(groups, lr=learning_rate, betas=_BETAS["adamw"], fused=True),
    )


def learning_rate_at(step: int, total: int, peak: float, warmup: float) -> float:
    """Rate of step 0 ... total - 1: a linear rise over `warmup` of the steps, then a cosine."""
    rising = round(warmup * total)
    if step < rising:
        return peak * (step + 1) / rising
    share = (step - rising) / max(1, total - rising)
    return peak * 0.5 * (1 + math.cos(math.pi * share))


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Give all groups the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_tensors(
    weights: Mapping[str, nn.Parameter], optimizer: Optimizer
) -> dict[str, Tensor]:
    """The optimiser's state, named after the weights that it belongs to."""
    return {
        f"{moment}.{name}": value
        for name, weight in weights.items()
        for moment, value in optimizer.state.get(weight, {}).items()
    }


def restore_optimizer(
    weights: Mapping[str, nn.Parameter], optimizer: Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Put the state of `optimizer_tensors` back, whole as it was saved.

    A weight of which another kind of optimiser left its moments begins without any.
    """
    wanted = {
        weight: _MUON if "ns_steps" in group else _ADAM
        for group in optimizer.param_groups
        for weight in group["params"]
    }
    for name, weight in weights.items():
        moments = wanted.get(weight, ())
        if moments and all(f"{moment}.{name}" in tensors for moment in moments):
            state = {moment: tensors[f"{moment}.{name}"] for moment in moments}
            optimizer.state[weight] = {
                # Of its step counter each process keeps its own, beside the weight.
                moment: value.to(weight.device) if moment == "step" else parted_like(value, weight)
                for moment, value in state.items()
            }


def clip(weights: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scale the gradient down to norm `largest`; return its norm before, () on the device."""
    return whole(torch.nn.utils.clip_grad_norm_(weights, largest))
