"""Latent ODE (Chen et al. 2018; Rubanova et al. 2019): a variational autoencoder of trajectories.

A recurrent network reads the past and tells a distribution of the state some volumes before its
end; from there learned dynamics run through the known end of the past into the future. What was
known holds the state fast; the future is the forecast. The past is read in its own order, not
backwards as where the state is that of the beginning: what was last tells most of what follows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .networks import ForecastNetwork, begin_with_the_mean, squared_error
from .odes import Dynamics, solve

#: Sizes and peak learning rates to choose from on validation.
SEARCH = [(size, rate) for size in (16, 64) for rate in (3e-3, 1e-3)]

#: Volumes of the past that the trajectory must go through.
_LEAD = 20
#: Weight of the divergence from the prior: per state, beside an error per entry.
_KL_SHARE = 1e-3


class LatentODEForecaster(ForecastNetwork):
    """(windows, parcels, time) -> what follows."""

    def __init__(self, parcels: int, state: int):
        """A state of `state` numbers."""
        super().__init__()
        self.reader = nn.GRU(parcels, 4 * state, batch_first=True)
        self.told = nn.Linear(4 * state, 2 * state)
        self.dynamics = Dynamics(state, 4 * state)
        self.head = nn.Linear(state, parcels)
        begin_with_the_mean(self.head)

    def follow(self, past: Tensor, timepoints: int) -> Tensor:
        """The next `timepoints`, from the most probable state."""
        mean, _ = self._state(past)
        return self._run(mean, past, timepoints)[:, :, -timepoints:]

    def loss(self, past: Tensor, truth: Tensor) -> Tensor:
        """Squared error of the end of the past and of the future, and the state's divergence."""
        mean, log_variance = self._state(past.nan_to_num(nan=0.0))
        drawn = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        guessed = self._run(drawn, past, truth.shape[2])
        lead = guessed.shape[2] - truth.shape[2]
        known = squared_error(guessed[:, :, :lead], past[:, :, -lead:])
        future = squared_error(guessed[:, :, lead:], truth)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return known + future + _KL_SHARE * divergence

    def _state(self, past: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the state before the trajectory, (windows, state)."""
        read, _ = self.reader(past.transpose(1, 2))
        mean, log_variance = self.told(read[:, -1]).chunk(2, dim=1)
        return mean, log_variance.clamp(-10, 10)

    def _run(self, state: Tensor, past: Tensor, timepoints: int) -> Tensor:
        """(windows, parcels, lead + timepoints)."""
        lead = min(_LEAD, past.shape[2])
        return self.head(solve(self.dynamics, state, lead + timepoints)).transpose(1, 2)
