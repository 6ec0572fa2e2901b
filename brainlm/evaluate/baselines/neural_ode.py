"""Neural ODE (Chen et al. 2018): a state read from the last volumes moves on by learned dynamics.

The state has dimensions of its own (Dupont et al. 2019), for parcels' values alone do not tell
where they are going.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .networks import ForecastNetwork, begin_with_the_mean
from .odes import Dynamics, solve

#: Sizes and peak learning rates to choose from on validation.
SEARCH = [(size, rate) for size in (32, 128) for rate in (3e-3, 1e-3)]

#: Volumes that the first state is read from.
_READ = 20


class NeuralODEForecaster(ForecastNetwork):
    """(windows, parcels, time) -> what follows."""

    def __init__(self, parcels: int, state: int):
        """A state of `state` numbers."""
        super().__init__()
        self.start = nn.Sequential(
            nn.Linear(parcels * _READ, 2 * state), nn.Tanh(), nn.Linear(2 * state, state)
        )
        self.dynamics = Dynamics(state, 2 * state)
        self.head = nn.Linear(state, parcels)
        begin_with_the_mean(self.head)

    def follow(self, past: Tensor, timepoints: int) -> Tensor:
        """The next `timepoints`."""
        read = F.pad(past[:, :, -_READ:], (max(0, _READ - past.shape[2]), 0))
        start = self.start(read.flatten(1))
        states = solve(self.dynamics, start, timepoints)
        return self.head(states).transpose(1, 2)
