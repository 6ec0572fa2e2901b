"""Moving images between grids for registration: anti-aliased, whatever their orientation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..geometry import Array
from ..images import Image
from ..warps import Warp
from .pyramid import inside, sample, spline_coefficients, voxel_sizes


def shrink(image: Image, zoom: float) -> Image:
    """Average whole blocks of voxels until they are about, and never more than, `zoom` mm.

    A 0.7 mm T1w has 40 million voxels; registration at 3 mm needs a hundredth of them.
    """
    factors = np.maximum(1, np.floor(zoom / voxel_sizes(image.affine) + 1e-6)).astype(int)
    data = image.data
    for axis, factor in enumerate(factors):
        if factor > 1:
            whole = data.shape[axis] // factor * factor
            cut = np.take(data, range(whole), axis=axis)
            split = (*cut.shape[:axis], whole // factor, factor, *cut.shape[axis + 1 :])
            data = cut.reshape(split).mean(axis=axis + 1, dtype=np.float32)
    # A block's centre lies (factor - 1) / 2 old voxels beyond its first voxel's centre.
    to_old = np.diag([*factors.astype(float), 1.0])
    to_old[:3, 3] = (factors - 1) / 2
    return Image(data, image.affine @ to_old)


def resample_onto(
    image: Image,
    grid: Array,
    shape: tuple[int, ...],
    transform: Array | None = None,
    order: int = 1,
    warp: Warp | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Sample `image` on a grid through `transform` (grid points to image points, mm).

    A `warp` moves the grid's points before the transform does.
    Returns the values (shape), 0 where the image has none, and where it has some.
    """
    pull = np.linalg.inv(image.affine) @ (np.eye(4) if transform is None else transform) @ grid
    indices = np.reshape(np.indices(shape[:3], dtype=float), (3, -1))
    voxels = pull[:3, :3] @ indices + pull[:3, 3:]
    if warp is not None:
        moves = warp.at(grid[:3, :3] @ indices + grid[:3, 3:])
        voxels = voxels + (pull @ np.linalg.inv(grid))[:3, :3] @ moves
    seen = inside(voxels, image.data.shape)
    values = np.zeros(indices.shape[1], dtype=np.float32)
    coefficients = spline_coefficients(image.data, image.affine, order=order)
    values[seen] = sample(coefficients, voxels[:, seen], order)
    return values.reshape(shape[:3]), seen.reshape(shape[:3])


def world_points(affine: Array, mask: NDArray[np.bool_]) -> Array:
    """Homogeneous world coordinates (4, n) of the voxels of a mask."""
    voxels = np.argwhere(mask).T
    return np.asarray(affine @ np.vstack([voxels, np.ones(voxels.shape[1])]))
