"""Displacement fields: the part of the way from the template to a head that no matrix describes.

A template point `x` lies at `matrix @ (x + d(x))`: the displacement `d` comes first, in the
template's space, then the matrix of the `_xfm.txt` beside it. Files hold what ITK calls a
displacement field (a five-dimensional NIfTI, intent 1007, vectors in LPS mm), so ANTs applies
both as `-t warp.nii.gz -t matrix.txt`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .errors import DataError
from .geometry import Array
from .images import read_image, write_image

#: RAS vectors to LPS vectors, and back.
_FLIP = np.array([-1, -1, 1], dtype=np.float32)


@dataclass(frozen=True)
class Warp:
    """A displacement (mm, along +R, +A, +S) at each point of a grid; 0 outside the grid."""

    displacement: NDArray[np.float32]  # (x, y, z, 3)
    affine: Array  # (4, 4), voxel index to RAS mm

    def at(self, points: Array) -> Array:
        """The displacement (3, n), linearly interpolated, at world points (3 or 4, n)."""
        to_voxel = np.linalg.inv(self.affine)
        voxels = to_voxel[:3, :3] @ points[:3] + to_voxel[:3, 3:]
        return np.stack(
            [
                ndimage.map_coordinates(part, voxels, order=1, mode="constant", output=float)
                for part in np.moveaxis(self.displacement, -1, 0)
            ]
        )

    def jacobian(self) -> Array:
        """Determinant (x, y, z) of `I + grad d`, the change of volume; below 0 space folds."""
        to_voxel = np.linalg.inv(self.affine[:3, :3])
        slopes = np.stack(
            [
                np.stack(np.gradient(part), axis=-1)
                for part in np.moveaxis(self.displacement, -1, 0)
            ],
            axis=-2,
        )  # (x, y, z, component, voxel axis)
        return np.asarray(np.linalg.det(np.eye(3) + slopes @ to_voxel))


def write_warp(path: str | Path, warp: Warp) -> None:
    """Write as an ITK displacement field, to a temporary path that the caller gave."""
    vectors = (warp.displacement * _FLIP)[:, :, :, None, :].astype(np.float32)
    write_image(path, vectors, warp.affine, in_mni=True, intent="vector", atomic=False)


def read_warp(path: str | Path) -> Warp:
    """Read what `write_warp` or ANTs wrote."""
    image = read_image(path)
    if image.data.ndim != 5 or image.data.shape[3:] != (1, 3):
        raise DataError(
            f"This is no displacement field: its shape is {image.data.shape}",
            file=path,
            fix="delete it and rerun the stage that makes it",
        )
    return Warp(np.ascontiguousarray(image.data[:, :, :, 0] * _FLIP), image.affine)
