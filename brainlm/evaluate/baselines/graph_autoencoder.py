"""Graph convolutions (Kipf & Welling 2017) that learn to tell windows from parts of them.

Four layers, as in BrainLM's paper; what stands after the second is what is made of a parcel. The
graph joins parcels that go along with each other in train recordings.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .parcel_autoencoder import ParcelAutoencoder

_WIDE = 256


class GraphAutoencoder(ParcelAutoencoder):
    """(windows, parcels, time) -> the same; each layer mixes parcels that are joined."""

    graph: Tensor

    def __init__(self, window: int, size: int, graph: Tensor):
        """`size` numbers in the middle; `graph` (parcels, parcels): how much of each is taken."""
        super().__init__()
        self.register_buffer("graph", graph)
        widths = (window, _WIDE, size, _WIDE, window)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, shown: Tensor) -> tuple[Tensor, Tensor]:
        """The guess; there is no other loss."""
        middle = self.represent(shown)
        guess = self._layer(3, F.relu(self._layer(2, F.relu(middle))))
        return guess, guess.new_zeros(())

    def represent(self, signal: Tensor) -> Tensor:
        """After two layers, (windows, parcels, size)."""
        return self._layer(1, F.relu(self._layer(0, signal)))

    def _layer(self, number: int, nodes: Tensor) -> Tensor:
        return self.graph @ self.layers[number](nodes)
