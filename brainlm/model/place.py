"""Where a token stands, in space and time, as the network is told it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .mask import generator

#: Reach of the coordinates' features: parcels this far apart (mm) have much in common, those
#: three times as far nothing.
REACH_MM = 40.0

#: Longest wavelength of published positions, over 2 pi (Vaswani et al. 2017).
_LONGEST = 10_000.0


class ParcelPlace(nn.Module):
    """A parcel's coordinates, projected, + a fixed sinusoid of the patch's number.

    Raw millimetres through a linear layer make far and near parcels hard to tell apart, so
    coordinates first become sines and cosines along random directions (Rahimi & Recht 2007),
    whose dot product is a Gaussian of the distance with a width of `REACH_MM`.
    """

    xyz: Tensor
    time: Tensor
    directions: Tensor

    def __init__(self, xyz_mm: Tensor, patches: int, width: int):
        """`xyz_mm`: (parcels, 3) centroids in MNI mm; `patches`: patches of each parcel."""
        super().__init__()
        self.patches = patches
        self.xyz_projection = nn.Linear(width, width)
        # These two are rebuilt from parcels.tsv and config.json; the directions are saved.
        self.register_buffer("xyz", xyz_mm.float(), persistent=False)
        table = sinusoids(patches, width, longest=max(4.0 * patches, 2.0))
        self.register_buffer("time", table, persistent=False)
        source = generator("directions", width)
        drawn = torch.randn(3, width // 2, generator=source, device="cpu")
        self.register_buffer("directions", drawn / REACH_MM)

    def forward(self, index: Tensor) -> Tensor:
        """Embeddings (batch, k, width) of the tokens `index` (batch, k)."""
        with torch.autocast(self.xyz.device.type, enabled=False):  # 16 bits: half a mm at 100 mm
            phase = self.xyz @ self.directions
        place: Tensor = self.xyz_projection(torch.cat([phase.sin(), phase.cos()], dim=1))
        return place[index // self.patches] + self.time[index % self.patches]


class RawParcelPlace(nn.Module):
    """As published with the 13M: millimetres through a linear layer, the usual sinusoid."""

    xyz: Tensor
    time: Tensor

    def __init__(self, xyz_mm: Tensor, patches: int, width: int):
        """`xyz_mm`: (parcels, 3) centroids in MNI mm; `patches`: patches of each parcel."""
        super().__init__()
        self.patches = patches
        self.xyz_projection = nn.Linear(3, width)
        self.register_buffer("xyz", xyz_mm.float(), persistent=False)
        self.register_buffer("time", sinusoids(patches, width), persistent=False)

    def forward(self, index: Tensor) -> Tensor:
        """Embeddings (batch, k, width) of the tokens `index` (batch, k)."""
        weight, bias = (part.to(self.xyz.dtype) for part in self.xyz_projection.parameters())
        with torch.autocast(self.xyz.device.type, enabled=False):  # 16 bits: half a mm at 100 mm
            place = F.linear(self.xyz, weight, bias)
        return place[index // self.patches] + self.time[index % self.patches]


class ImagePlace(nn.Module):
    """Fixed sines and cosines of a token's row and column in the published square image.

    Rows and columns are counted in the square, so weights fit with and without its padding.
    """

    table: Tensor

    def __init__(self, rows: Tensor, columns: Tensor, width: int):
        """`rows`, `columns`: (tokens,) place of each token in the square's grid."""
        super().__init__()
        half = [_axis(axis, width // 2) for axis in (columns, rows)]
        self.register_buffer("table", torch.cat(half, dim=1).float(), persistent=False)

    def forward(self, index: Tensor) -> Tensor:
        """Embeddings (batch, k, width) of the tokens `index` (batch, k)."""
        return self.table[index]


def sinusoids(length: int, width: int, longest: float = _LONGEST) -> Tensor:
    """Fixed position table (length, width): sines in even columns, cosines in odd ones, on the CPU.

    As Vaswani et al. (2017), section 3.5. Their `longest` wavelength, 2 pi x 10,000, makes ten
    patches all look alike; our own models take a shorter one.
    """
    steps = torch.arange(max(length, width), dtype=torch.float64, device="cpu")
    position = steps[:length, None]
    rate = torch.exp(steps[:width:2] * (-math.log(longest) / width))
    table = torch.zeros_like(position).repeat(1, width)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate)
    return table.float()


def _axis(position: Tensor, width: int) -> Tensor:
    """(tokens, width): sines, then cosines, of one coordinate (He et al. 2022)."""
    steps = torch.arange(width // 2, dtype=torch.float64, device=position.device)
    rate = _LONGEST ** -(steps / (width / 2))
    phase = position.double()[:, None] * rate
    return torch.cat([phase.sin(), phase.cos()], dim=1)
