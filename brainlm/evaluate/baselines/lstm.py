"""LSTM: reads the past of all parcels step by step, then goes on by its own guesses.

A guess is what the units tell and a share of the value before, learned for each parcel: units alone
must first learn to copy what they read, and on small cohorts never do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .networks import ForecastNetwork, begin_with_the_mean

#: Sizes and peak learning rates to choose from on validation.
SEARCH = [(size, rate) for size in (128, 512) for rate in (3e-3, 1e-3)]


class LSTMForecaster(ForecastNetwork):
    """(windows, parcels, time) -> what follows."""

    def __init__(self, parcels: int, hidden: int):
        """`hidden` units in one layer."""
        super().__init__()
        self.cell = nn.LSTM(parcels, hidden, batch_first=True)
        self.head = nn.Linear(hidden, parcels)
        self.stays = nn.Parameter(torch.zeros(parcels))
        begin_with_the_mean(self.head)

    def follow(self, past: Tensor, timepoints: int) -> Tensor:
        """The next `timepoints`, trained as used: each guess is what the next one reads."""
        shown = past.transpose(1, 2)
        read, state = self.cell(shown)
        guesses = [self.head(read[:, -1:]) + self.stays * shown[:, -1:]]
        while len(guesses) < timepoints:
            read, state = self.cell(guesses[-1], state)
            guesses.append(self.head(read) + self.stays * guesses[-1])
        return torch.cat(guesses, dim=1).transpose(1, 2)
