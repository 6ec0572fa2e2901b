"""Susceptibility distortion: from a field in Hz to where EPI shows each point of the head.

Convention, here, in the phantom and in the files: with `PhaseEncodingDirection` "j", a positive
field moves signal towards +j, by

    shift = field * TotalReadoutTime    voxels,

and with "j-" towards -j (likewise i and k). The tissue at voxel `v` is seen at `v + shift(v)`, and
where shifts converge its signal piles up, so the undistorted image is

    U(v) = I(v + shift(v)) * (1 + d shift / d v)

(Jezzard & Balaban 1995, Magn. Reson. Med. 34:65). Axes are those of the stored voxels, whatever
their orientation in the world.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..geometry import Array
from ..images import Image
from .pyramid import sample, spline_coefficients, voxel_sizes

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Shift:
    """Where EPI shows the tissue of each voxel: displaced along one axis of the grid."""

    voxels: Floats  # (x, y, z), along `axis`, positive towards higher indices
    axis: int
    affine: Array  # (4, 4)

    def at(self, points: Array) -> Array:
        """The displacement (3, n) in mm of world points (3 or 4, n); constant beyond the grid."""
        to_voxel = np.linalg.inv(self.affine)
        places = to_voxel[:3, :3] @ points[:3] + to_voxel[:3, 3:]
        return np.outer(self.affine[:3, self.axis], _linear(self.voxels, places))

    def jacobian_at(self, points: Array) -> Array:
        """By how much the shift stretches tissue (n,) at world points (3 or 4, n)."""
        to_voxel = np.linalg.inv(self.affine)
        places = to_voxel[:3, :3] @ points[:3] + to_voxel[:3, 3:]
        return _linear(self.jacobian, places)

    @property
    def jacobian(self) -> Floats:
        """By how much the shift stretches tissue (x, y, z): signal is diluted by it."""
        return np.asarray(1 + np.gradient(self.voxels, axis=self.axis), dtype=np.float32)

    @property
    def mm(self) -> Floats:
        """The shift (x, y, z) in mm."""
        return np.asarray(self.voxels * voxel_sizes(self.affine)[self.axis], dtype=np.float32)


def axis_and_sign(direction: str) -> tuple[int, int]:
    """Voxel axis and sign of a BIDS `PhaseEncodingDirection`, e.g. (1, -1) of "j-"."""
    return "ijk".index(direction[0]), -1 if direction.endswith("-") else 1


def shift_from_field(field: Image, direction: str, readout_s: float) -> Shift:
    """The shift that a field (x, y, z) in Hz causes on its own grid."""
    axis, sign = axis_and_sign(direction)
    return Shift((sign * readout_s * field.data).astype(np.float32), axis, field.affine)


def unwarp(image: Image, shift: Shift, *, modulate: bool = True) -> Floats:
    """The undistorted image (x, y, z), on the same grid as the `shift`, by cubic spline.

    `modulate` takes the pile-up of signal away as well.
    """
    places = np.indices(image.data.shape, dtype=float).reshape(3, -1)
    places[shift.axis] += shift.voxels.ravel()
    coefficients = spline_coefficients(image.data, image.affine)
    values = np.clip(sample(coefficients, places), 0, None).reshape(image.data.shape)
    return np.asarray(values * np.clip(shift.jacobian, 0, None) if modulate else values)


def unwarp_mask(mask: Image, shift: Shift) -> NDArray[np.bool_]:
    """The undistorted mask (x, y, z)."""
    places = np.indices(mask.data.shape, dtype=float).reshape(3, -1)
    places[shift.axis] += shift.voxels.ravel()
    return np.asarray(_linear(mask.data, places).reshape(mask.data.shape) > 0.5)


def size_of(shift: Shift, mask: NDArray[np.bool_]) -> dict[str, float]:
    """How large and how smooth a shift is inside `mask`, as sidecar fields."""
    mm, jacobian = np.abs(shift.mm[mask]), shift.jacobian[mask]
    return {
        "MedianShift": round(float(np.median(mm)), 3),
        "LargestShift": round(float(mm.max()), 3),
        "SmallestJacobian": round(float(jacobian.min()), 3),
    }


def _linear(values: NDArray, places: Array) -> Array:
    found: Array = ndimage.map_coordinates(values, places, order=1, mode="nearest", output=float)
    return found
