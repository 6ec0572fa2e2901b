"""Smoothed levels of a volume as cubic B-splines: what alignment samples and differentiates.

Interpolation is by cubic B-splines (Unser 1999, IEEE Signal Process. Mag. 16:22): the volume
is turned once into spline coefficients, from which values and exact gradients follow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..geometry import FWHM_TO_SIGMA, Array

#: The cubic B-spline and its derivative at the whole numbers -1, 0, 1.
_SPLINE = (1 / 6, 4 / 6, 1 / 6)
_SPLINE_SLOPE = (-1 / 2, 0, 1 / 2)


def voxel_sizes(affine: Array) -> Array:
    """Voxel edge lengths (3,) in mm."""
    return np.asarray(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)))


def spline_coefficients(
    volume: NDArray, affine: Array, fwhm_mm: float = 0, order: int = 3
) -> NDArray[np.float32]:
    """B-spline coefficients (x, y, z) of a volume, smoothed by a Gaussian of `fwhm_mm` first."""
    data = np.asarray(volume, dtype=np.float32)
    if fwhm_mm > 0:
        sigma = fwhm_mm * FWHM_TO_SIGMA / voxel_sizes(affine)
        data = ndimage.gaussian_filter(data, sigma, mode="nearest", truncate=3)
    if order < 2:
        return np.ascontiguousarray(data)
    return np.asarray(ndimage.spline_filter(data, order, output=np.float32, mode="mirror"))


def sample(coefficients: NDArray, voxels: Array, order: int = 3) -> NDArray[np.float32]:
    """Values (n,) at the voxel coordinates (3, n) of a volume given by its coefficients."""
    if order == 3:
        from .splines import sample_cubic  # numba takes a moment to start

        return sample_cubic(coefficients, voxels)
    return np.asarray(
        ndimage.map_coordinates(
            coefficients, voxels, order=order, prefilter=False, mode="mirror", output=np.float32
        )
    )


def inside(voxels: Array, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which voxel coordinates (3, n) lie in the field of view, to the outer faces of its voxels."""
    last = np.asarray(shape[:3], dtype=float)[:, None] - 0.5
    return np.asarray(((voxels >= -0.5) & (voxels <= last)).all(axis=0))


def world_gradient(coefficients: NDArray, affine: Array) -> NDArray[np.float32]:
    """The exact gradient of the spline at the voxel centres, per mm of world: (3, x, y, z)."""
    along = []
    for axis in range(3):
        part = coefficients
        for other in range(3):
            kernel = _SPLINE_SLOPE if other == axis else _SPLINE
            part = ndimage.correlate1d(part, kernel, axis=other, mode="mirror")
        along.append(part)
    return np.asarray(np.tensordot(np.linalg.inv(affine[:3, :3]).T, np.array(along), axes=1))


@dataclass(frozen=True)
class Level:
    """The reference at one smoothness, at the points where volumes are compared with it."""

    fwhm_mm: float
    points: Array  # (4, n), homogeneous world coordinates, mm
    center: Array  # (3,), world point about which rotations turn
    design: Array  # (n, 7), six steepest-descent images, then the reference itself


def make_level(
    reference: NDArray, affine: Array, mask: NDArray[np.bool_], center: Array, fwhm_mm: float
) -> Level:
    """Prepare a level: intensities and steepest-descent images at points inside `mask`.

    Smoothed neighbours repeat one another, so points stand about as far apart as the image is
    smooth: on every `fwhm_mm / size`-th voxel along each axis and, of those, on every second
    one as on the black squares of a chessboard.
    """
    coefficients = spline_coefficients(reference, affine, fwhm_mm)
    gradient = world_gradient(coefficients, affine)
    chosen = np.zeros_like(mask)
    stride = np.maximum(1, (fwhm_mm / voxel_sizes(affine) + 1e-6).astype(int))
    lattice = tuple(slice(None, None, int(step)) for step in stride)
    chosen[lattice] = mask[lattice]
    chosen[lattice] &= np.indices(chosen[lattice].shape).sum(axis=0) % 2 == 0
    voxels = np.argwhere(chosen).T
    points = affine @ np.vstack([voxels, np.ones(voxels.shape[1])])
    slope = gradient[:, chosen].astype(float)
    turn = np.cross((points[:3] - center[:, None]).T, slope.T)
    values = sample(coefficients, voxels.astype(float))
    return Level(fwhm_mm, points, center, np.column_stack([slope.T, turn, values]))
