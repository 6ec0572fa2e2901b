"""AdamW with a cosine schedule, and its state as plain tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import AdamW

_BETAS = (0.9, 0.95)  # He et al. 2022, table 8
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def make_optimizer(model: nn.Module, learning_rate: float, weight_decay: float) -> AdamW:
    """AdamW; matrices decay, biases, norms and single tokens do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim == 2]
    others = [parameter for parameter in trained if parameter.ndim != 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=learning_rate, betas=_BETAS)


def learning_rate_at(step: int, total: int, peak: float, warmup: float) -> float:
    """Rate of step 0 ... total - 1: a linear rise over `warmup` of the steps, then a cosine."""
    rising = round(warmup * total)
    if step < rising:
        return peak * (step + 1) / rising
    share = (step - rising) / max(1, total - rising)
    return peak * 0.5 * (1 + math.cos(math.pi * share))


def set_learning_rate(optimizer: AdamW, rate: float) -> None:
    """Give all groups the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_tensors(model: nn.Module, optimizer: AdamW) -> dict[str, Tensor]:
    """The optimiser's state, named after the parameters that it belongs to."""
    tensors = {}
    for name, parameter in model.named_parameters():
        for moment, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{moment}.{name}"] = value
    return tensors


def restore_optimizer(model: nn.Module, optimizer: AdamW, tensors: Mapping[str, Tensor]) -> None:
    """Put the state of `optimizer_tensors` back."""
    for name, parameter in model.named_parameters():
        if f"step.{name}" in tensors:
            state = {moment: tensors[f"{moment}.{name}"] for moment in _MOMENTS}
            # AdamW keeps its step counter on the CPU and its moments beside the parameter.
            optimizer.state[parameter] = {
                moment: value.clone() if moment == "step" else value.to(parameter.device)
                for moment, value in state.items()
            }


def clip(model: nn.Module, largest: float) -> float:
    """Scale the gradient down to norm `largest`; return its norm before."""
    return float(torch.nn.utils.clip_grad_norm_(model.parameters(), largest))
