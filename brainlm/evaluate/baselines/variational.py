"""A variational autoencoder of one parcel's window (Kingma & Welling 2014), the same for all.

Three layers in, three out, as in BrainLM's paper. It is shown a window of which patches are hidden,
and learns to tell all of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .parcel_autoencoder import ParcelAutoencoder

_WIDE, _NARROW = 256, 128
#: Weight of the divergence from the prior: per state, beside an error per entry.
_KL_SHARE = 1e-3


class VariationalAutoencoder(ParcelAutoencoder):
    """(windows, parcels, time) -> the same, through a few numbers for each parcel."""

    def __init__(self, window: int, size: int, graph: Tensor):
        """`size` numbers; `graph` counts for nothing."""
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(window, _WIDE),
            nn.ReLU(),
            nn.Linear(_WIDE, _NARROW),
            nn.ReLU(),
            nn.Linear(_NARROW, 2 * size),
        )
        self.decoder = nn.Sequential(
            nn.Linear(size, _NARROW),
            nn.ReLU(),
            nn.Linear(_NARROW, _WIDE),
            nn.ReLU(),
            nn.Linear(_WIDE, window),
        )

    def forward(self, shown: Tensor) -> tuple[Tensor, Tensor]:
        """The guess, drawn in training; and the divergence, ()."""
        mean, log_variance = self.encoder(shown).chunk(2, dim=-1)
        log_variance = log_variance.clamp(-10, 10)
        drawn = mean
        if self.training:
            drawn = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return self.decoder(drawn), _KL_SHARE * divergence

    def represent(self, signal: Tensor) -> Tensor:
        """The most probable state, (windows, parcels, size)."""
        return self.encoder(signal).chunk(2, dim=-1)[0]
