"""Heads under a known smooth deformation, for the tests of nonlinear normalisation."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from brainlm.geometry import pose_from_params
from brainlm.images import Image
from brainlm.warps import Warp

from .synthetic_head import brain_points, centered_affine

AFFINE = pose_from_params([4, -6, 8, 0.1, 0.03, -0.05], np.zeros(3)) @ np.diag(
    [1.05, 0.96, 1.04, 1]
)
COARSE = 6.0  # mm of the registrations here: an eighth of the default's time


def smooth_field(points: np.ndarray, size_mm: float = 4.0) -> np.ndarray:
    """A displacement (3, n) that no affine describes: waves of 90 mm at world points (3+, n)."""
    x, y, z = points[:3] * 2 * np.pi / 90
    return size_mm * np.stack([np.sin(y + 0.4), np.sin(z + 1.0), np.sin(x + 2.0)])


def to_head(points: np.ndarray) -> np.ndarray:
    """Where the template's points (4, n) truly lie."""
    moved = points.copy()
    moved[:3] += smooth_field(points)
    return AFFINE @ moved


def deformed(data: np.ndarray, source: np.ndarray, zoom: float, edge: int) -> Image:
    """`data` on the grid `source`, as a head deformed by `to_head` shows it to a scanner."""
    affine = centered_affine((edge, edge, edge), zoom, (4, -24, 18))
    points = affine @ np.vstack([np.indices((edge,) * 3).reshape(3, -1), np.ones(edge**3)])
    straight = np.linalg.inv(AFFINE) @ points
    found = straight.copy()
    for _ in range(12):
        found[:3] = straight[:3] - smooth_field(found)
    voxels = (np.linalg.inv(source) @ found)[:3]
    values = ndimage.map_coordinates(data, voxels, order=1, output=np.float32)
    return Image(values.reshape((edge,) * 3), affine)


def errors(to_mni: np.ndarray, warp: Warp | None) -> float:
    """Median distance (mm) of the brain's points from where they truly lie."""
    points = brain_points()
    moved = points.copy()
    if warp is not None:
        moved[:3] += warp.at(points)
    return float(np.median(np.linalg.norm((to_mni @ moved - to_head(points))[:3], axis=0)))
