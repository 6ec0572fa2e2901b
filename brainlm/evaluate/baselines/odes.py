"""What the two kinds of neural differential equations share: dynamics, and a solver."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ResourceError


class Dynamics(nn.Module):
    """dz/dt as a function of z alone, a network of two layers; time is counted in volumes."""

    def __init__(self, size: int, hidden: int):
        """Of a state of `size` numbers."""
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(size, hidden),
            nn.Tanh(),
            nn.Linear(hidden, hidden),
            nn.Tanh(),
            nn.Linear(hidden, size),
        )

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        """`t` counts for nothing; the solver gives it."""
        return self.net(state)


def solve(dynamics: nn.Module, start: Tensor, steps: int) -> Tensor:
    """States 1, ..., `steps` volumes after `start` (windows, size): (windows, steps, size).

    Runge-Kutta of the fourth order, one step per volume: the same operations each time, so the same
    bytes, which solvers of adaptive steps do not promise among batches.
    """
    times = torch.arange(steps + 1, dtype=start.dtype, device=start.device)
    states: Tensor = _odeint()(dynamics, start, times, method="rk4")
    return states[1:].transpose(0, 1)


def _odeint() -> Any:
    try:
        from torchdiffeq import odeint
    except ImportError:
        raise ResourceError(
            "The package torchdiffeq is not installed",
            fix="pip install torchdiffeq, or leave neural-ode and latent-ode out of "
            "evaluate.forecast_methods",
        ) from None
    return odeint
