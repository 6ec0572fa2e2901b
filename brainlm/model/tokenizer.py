"""From signals to tokens: a patch of 20 time points of one parcel, and where that parcel is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .mask import generator

#: Reach of the coordinates' features: parcels this far apart (mm) have much in common, those
#: three times as far nothing.
REACH_MM = 40.0


class ParcelTokenizer(nn.Module):
    """Token = linear(patch) + where + when (Ortega Caro et al., ICLR 2024, section 3.2)."""

    def __init__(self, xyz_mm: Tensor, patch: int, patches: int, hidden: int):
        """`xyz_mm`: (parcels, 3) centroids in MNI mm."""
        super().__init__()
        self.patch = patch
        self.signal_projection = nn.Linear(patch, hidden)
        self.place = TokenPlace(xyz_mm, patches, hidden)

    def cut(self, signal: Tensor) -> Tensor:
        """Cut (batch, parcels, time) into patches (batch, tokens, patch)."""
        return signal.reshape(len(signal), -1, self.patch)

    def forward(self, patches: Tensor, index: Tensor) -> Tensor:
        """Tokens (batch, k, hidden) of chosen patches (batch, k, patch) at `index` (batch, k)."""
        tokens: Tensor = self.signal_projection(patches) + self.place(index)
        return tokens


class TokenPlace(nn.Module):
    """Where and when a token is: projected features of its coordinates + a fixed sinusoid.

    Raw millimetres through a linear layer make far and near parcels hard to tell apart, so
    coordinates first become sines and cosines along random directions (Rahimi & Recht 2007),
    whose dot product is a Gaussian of the distance with a width of `REACH_MM`.
    """

    xyz: Tensor
    time: Tensor
    directions: Tensor

    def __init__(self, xyz_mm: Tensor, patches: int, hidden: int):
        """`xyz_mm`: (parcels, 3) centroids in MNI mm; `patches`: patches of each parcel."""
        super().__init__()
        self.patches = patches
        self.xyz_projection = nn.Linear(hidden, hidden)
        # These two are rebuilt from parcels.tsv and config.json; the directions are saved.
        self.register_buffer("xyz", xyz_mm.float(), persistent=False)
        self.register_buffer("time", sinusoids(patches, hidden), persistent=False)
        drawn = torch.randn(3, hidden // 2, generator=generator("directions", hidden))
        self.register_buffer("directions", drawn / REACH_MM)

    def forward(self, index: Tensor) -> Tensor:
        """Embeddings (batch, k, hidden) of the tokens `index` (batch, k)."""
        phase = self.xyz @ self.directions
        place: Tensor = self.xyz_projection(torch.cat([phase.sin(), phase.cos()], dim=1))
        return place[index // self.patches] + self.time[index % self.patches]


def sinusoids(length: int, width: int) -> Tensor:
    """Fixed position table (length, width): sines in even columns, cosines in odd ones.

    As Vaswani et al. (2017), section 3.5, but with wavelengths up to 2 pi x 4 x `length`, not
    2 pi x 10,000, along which ten patches would all look alike.
    """
    position = torch.arange(length, dtype=torch.float64)[:, None]
    longest = max(4.0 * length, 2.0)
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(longest) / width))
    table = torch.zeros(length, width, dtype=torch.float64)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)
    return table.float()
