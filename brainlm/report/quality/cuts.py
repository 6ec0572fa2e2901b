"""Slices of volumes on the template's grid, always the same ones, as small pictures.

Drawn without matplotlib: a page has a dozen pictures of each recording, and a study thousands
of pages.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image as Picture

from ...geometry import Array
from ..slices import canonical

Map = NDArray[np.floating]
Bytes = NDArray[np.uint8]

_GAP = 2  # pixels between slices
_MARGIN = 2  # voxels about the brain
_AXIAL, _SAGITTAL, _CORONAL = 7, 4, 4


@dataclass(frozen=True)
class Cuts:
    """Where a grid is cut: seven axial slices above four sagittal and four coronal ones."""

    window: tuple[slice, slice, slice]  # of the canonical grid, around the brain
    axial: tuple[int, ...]
    sagittal: tuple[int, ...]
    coronal: tuple[int, ...]
    affine: Array  # (4, 4) of the grid as stored
    world: Array  # (4, 4) of the canonical grid

    @property
    def heights_mm(self) -> list[int]:
        """Of the axial slices, from left to right."""
        return [round(float(self.world[2, 2] * at + self.world[2, 3])) for at in self.axial]

    def lay_out(self, volume: NDArray, outside: float = 0) -> NDArray:
        """The slices of `volume` (x, y, z) side by side, up being up and left being left."""
        turned, _ = canonical(volume, self.affine)
        x, y, z = self.window
        rows = [
            [turned[x, y, index].T[::-1] for index in self.axial],
            [
                *(turned[index, y, z].T[::-1] for index in self.sagittal),
                *(turned[x, index, z].T[::-1] for index in self.coronal),
            ],
        ]
        strips = [_side_by_side(parts, outside) for parts in rows]
        width = max(strip.shape[1] for strip in strips)
        wide = [_pad(strip, strip.shape[0], width, outside) for strip in strips]
        gap = np.full((_GAP, width), outside, dtype=wide[0].dtype)
        return np.vstack([wide[0], gap, wide[1]])

    def axial_strip(self, volume: NDArray, step: int) -> NDArray:
        """The axial slices alone, every `step`-th voxel."""
        turned, _ = canonical(volume, self.affine)
        x, y, _ = self.window
        return _side_by_side([turned[x, y, index].T[::-1][::step, ::step] for index in self.axial])


def cuts_of(brain: NDArray[np.bool_], affine: Array) -> Cuts:
    """Cuts that show the whole of `brain` (x, y, z)."""
    inside, world = canonical(brain, affine)
    places = [np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    window = tuple(
        slice(max(int(at[0]) - _MARGIN, 0), min(int(at[-1]) + _MARGIN + 1, inside.shape[axis]))
        for axis, at in enumerate(places)
    )

    def spread(axis: int, count: int) -> tuple[int, ...]:
        low, high = np.quantile(places[axis], [0.12, 0.88])
        return tuple(int(index) for index in np.round(np.linspace(low, high, count)))

    assert len(window) == 3
    return Cuts(window, spread(2, _AXIAL), spread(0, _SAGITTAL), spread(1, _CORONAL), affine, world)


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of a laid-out mask (rows, columns) at its edge."""
    padded = np.pad(mask, 1)
    within = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~within)


def scaled(values: Map, low: float, high: float, levels: int) -> Bytes:
    """Numbers as levels 0 to `levels` - 1; what is no number becomes 0."""
    share = np.clip((np.nan_to_num(values) - low) / ((high - low) or 1), 0, 1)
    return np.asarray(np.round(share * (levels - 1)), dtype=np.uint8)


def grey_png(values: Map, high: float) -> bytes:
    """A picture in grey, from 0 to `high`."""
    levels = scaled(values, 0, high, 64)
    return indexed_png(levels, [(4 * n, 4 * n, 4 * n) for n in range(64)])


def color_table(name: str, levels: int) -> list[tuple[int, int, int]]:
    """So many colours of one of matplotlib's colour scales."""
    table = colormaps[name](np.linspace(0, 1, levels))[:, :3]
    return [(r, g, b) for r, g, b in np.round(255 * table).astype(int).tolist()]


def indexed_png(
    levels: Bytes, colors: list[tuple[int, int, int]], *, transparent: bool = False
) -> bytes:
    """A picture of numbered colours, number 0 being glass if `transparent`. No metadata."""
    picture = Picture.fromarray(np.ascontiguousarray(levels), mode="P")
    picture.putpalette([part for color in colors for part in color])
    buffer = io.BytesIO()
    if transparent:
        picture.save(buffer, format="png", optimize=True, transparency=0)
    else:
        picture.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _side_by_side(parts: list[NDArray], outside: float = 0) -> NDArray:
    tall = max(part.shape[0] for part in parts)
    gap = np.full((tall, _GAP), outside, dtype=parts[0].dtype)
    padded = [_pad(part, tall, part.shape[1], outside) for part in parts]
    return np.hstack([piece for part in padded for piece in (part, gap)][:-1])


def _pad(part: NDArray, tall: int, wide: int, outside: float) -> NDArray:
    missing = ((0, tall - part.shape[0]), (0, wide - part.shape[1]))
    return np.pad(part, missing, constant_values=outside)
