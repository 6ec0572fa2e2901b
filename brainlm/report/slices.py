"""Axial slices of an image, oriented in the world and not in the file."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ..geometry import Array


@dataclass(frozen=True)
class AxialSlice:
    """One slice with rows from posterior to anterior, columns from left to right."""

    z_mm: float
    image: NDArray[np.float32]  # (anterior, right)
    mask: NDArray[np.bool_]  # (anterior, right)


def canonical(data: NDArray, affine: Array) -> tuple[NDArray, Array]:
    """Permute and flip the axes of a volume so that they point right, anterior, superior.

    Files may store any order and direction; only the affine knows which side is left.
    """
    orientation = nib.orientations.io_orientation(affine)
    turned = nib.orientations.apply_orientation(data, orientation)
    return turned, affine @ nib.orientations.inv_ornt_aff(orientation, data.shape)


def axial_slices(
    data: NDArray, mask: NDArray, affine: Array, count: int
) -> tuple[list[AxialSlice], float]:
    """`count` slices spread over the height of the mask, cropped to it with a margin.

    Returns them from bottom to top with the ratio of voxel height (anterior) to width (right).
    """
    if not mask.any():
        mask = np.ones(data.shape, dtype=bool)
    image, world = canonical(data, affine)
    inside, _ = canonical(mask.astype(bool), affine)
    window = tuple(_bounds(inside, axis, margin=3) for axis in (0, 1))
    heights = np.flatnonzero(inside.any(axis=(0, 1)))
    low, high = np.quantile(heights, [0.08, 0.92])
    middle = np.argwhere(inside).mean(axis=0)
    slices = []
    for index in np.unique(np.round(np.linspace(low, high, count)).astype(int)):
        z = float((world @ [middle[0], middle[1], index, 1])[2])
        slices.append(
            AxialSlice(z, image[(*window, index)].T.astype(np.float32), inside[(*window, index)].T)
        )
    zooms = np.sqrt((world[:3, :3] ** 2).sum(axis=0))
    return slices, float(zooms[1] / zooms[0])


def _bounds(mask: NDArray, axis: int, margin: int) -> slice:
    others = tuple(other for other in range(3) if other != axis)
    where = np.flatnonzero(mask.any(axis=others))
    return slice(max(int(where[0]) - margin, 0), int(where[-1]) + margin + 1)
