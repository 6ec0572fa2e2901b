"""Adam and AdamW with a cosine schedule, and their state as plain tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW

from .distributed import parted_like, whole

_BETAS = {
    "adamw": (0.9, 0.95),  # He et al. 2022, table 8
    "adam": (0.9, 0.999),  # Kingma & Ba 2015; what BrainLM's paper names
}
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def make_optimizer(
    weights: Mapping[str, nn.Parameter],
    learning_rate: float,
    weight_decay: float,
    kind: str = "adamw",
) -> Adam:
    """AdamW or Adam; matrices decay, biases, norms and single tokens do not.

    Adam's decay is a part of the gradient (L2), AdamW's is not. One fused kernel steps on all
    weights of a device.
    """
    trained = [parameter for parameter in weights.values() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim == 2]
    others = [parameter for parameter in trained if parameter.ndim != 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = {"adamw": AdamW, "adam": Adam}[kind]
    return optimizer(groups, lr=learning_rate, betas=_BETAS[kind], fused=True)


def learning_rate_at(step: int, total: int, peak: float, warmup: float) -> float:
    """Rate of step 0 ... total - 1: a linear rise over `warmup` of the steps, then a cosine."""
    rising = round(warmup * total)
    if step < rising:
        return peak * (step + 1) / rising
    share = (step - rising) / max(1, total - rising)
    return peak * 0.5 * (1 + math.cos(math.pi * share))


def set_learning_rate(optimizer: Adam, rate: float) -> None:
    """Give all groups the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_tensors(weights: Mapping[str, nn.Parameter], optimizer: Adam) -> dict[str, Tensor]:
    """The optimiser's state, named after the weights that it belongs to."""
    return {
        f"{moment}.{name}": value
        for name, weight in weights.items()
        for moment, value in optimizer.state.get(weight, {}).items()
    }


def restore_optimizer(
    weights: Mapping[str, nn.Parameter], optimizer: Adam, tensors: Mapping[str, Tensor]
) -> None:
    """Put the state of `optimizer_tensors` back, whole as it was saved."""
    for name, weight in weights.items():
        if f"step.{name}" in tensors:
            state = {moment: tensors[f"{moment}.{name}"] for moment in _MOMENTS}
            optimizer.state[weight] = {
                # Of its step counter each process keeps its own, beside the weight.
                moment: value.to(weight.device) if moment == "step" else parted_like(value, weight)
                for moment, value in state.items()
            }


def clip(weights: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scale the gradient down to norm `largest`; return its norm before, () on the device."""
    return whole(torch.nn.utils.clip_grad_norm_(weights, largest))
