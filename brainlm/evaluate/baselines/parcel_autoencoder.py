"""What networks have in common that learn to tell windows of parcels from parts of them."""

from __future__ import annotations

from torch import Tensor, nn


class ParcelAutoencoder(nn.Module):
    """Windows (windows, parcels, time), 0 where hidden or without data -> the whole windows."""

    def forward(self, shown: Tensor) -> tuple[Tensor, Tensor]:
        """The guess, (windows, parcels, time); and what else the loss has, ()."""
        raise NotImplementedError

    def represent(self, signal: Tensor) -> Tensor:
        """What the network makes of each parcel of whole windows, (windows, parcels, numbers)."""
        raise NotImplementedError
