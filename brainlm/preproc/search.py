"""Where to start a registration: a coarse search for the pose with most mutual information.

Local optimisers find the nearest optimum. Headers may be off by centimetres or by a tilt
of the head, and a T1w may show the neck, so that centres of mass mislead. At 8 mm the whole
neighbourhood can simply be tried.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import minimize

from ..geometry import Array, pose_from_params
from ..images import Image
from .grids import shrink, world_points
from .pyramid import spline_coefficients

_COARSE_MM = 8.0
_BINS = 24
_SHIFTS_MM = (-48, -32, -16, 0, 16, 32, 48)
_PITCHES = np.deg2rad((-20, 0, 20))
#: How many of the best places on the lattice are refined.
_REFINED = 4
#: The header is believed unless another pose has this much more mutual information.
_TRUST_HEADER = 1.1


def search_start(
    fixed: NDArray, fixed_affine: Array, mask: NDArray[np.bool_], moving: Image
) -> Array:
    """The rigid transform (4, 4) from fixed to moving points from which to register.

    Mutual information is measured at the points of `mask`. Poses are tried about the header's
    own (identity) and about the one that matches centres of mass, then the best are refined.
    """
    step = np.maximum(1, np.round(_COARSE_MM / np.linalg.norm(fixed_affine[:3, :3], axis=0)))
    lattice = tuple(slice(None, None, int(value)) for value in step)
    sparse = np.zeros_like(mask)
    sparse[lattice] = mask[lattice]
    smooth = spline_coefficients(fixed, fixed_affine, _COARSE_MM, order=1)
    points, target = world_points(fixed_affine, sparse), binned(smooth[sparse])
    center = points[:3].mean(axis=1)

    small = shrink(moving, _COARSE_MM / 2)
    blurred = spline_coefficients(small.data, small.affine, _COARSE_MM, order=1)
    ceiling = float(np.percentile(blurred, 99.5))
    to_voxels = np.linalg.inv(small.affine)

    def score(params: Array) -> float:
        voxels = (to_voxels @ pose_from_params(params, center) @ points)[:3]
        values = ndimage.map_coordinates(blurred, voxels, order=1, mode="constant")
        return -mutual_information(target, binned(values, ceiling))

    def refine(start: Array) -> tuple[float, Array]:
        # Radians are scaled so that one unit moves the brain's surface by about a mm.
        units = np.array([1, 1, 1, 0.02, 0.02, 0.02])
        simplex = np.vstack([np.zeros(6), 6 * np.eye(6)])
        found = minimize(
            lambda x: score(start + x * units),
            np.zeros(6),
            method="Nelder-Mead",
            options={"initial_simplex": simplex, "maxfev": 250, "xatol": 0.3, "fatol": 1e-4},
        )
        return float(found.fun), start + found.x * units

    header_score, header = refine(np.zeros(6))
    to_mass = _center_of_mass(small) - center
    lattice_starts = [
        np.array([*(base + np.array(shift)), pitch, 0, 0])
        for base in (np.zeros(3), to_mass)
        for shift in product(_SHIFTS_MM, repeat=3)
        for pitch in _PITCHES
    ]
    order = np.argsort([score(start) for start in lattice_starts], kind="stable")[:_REFINED]
    best_score, best = min(
        (refine(lattice_starts[index]) for index in order), key=lambda result: result[0]
    )
    chosen = header if header_score <= best_score / _TRUST_HEADER else best
    return pose_from_params(chosen, center)


def mutual_information(first: NDArray[np.intp], second: NDArray[np.intp]) -> float:
    """Mutual information, in nats, of two binned samples (Mattes et al. 2003)."""
    joint = np.bincount(first * _BINS + second, minlength=_BINS**2).reshape(_BINS, _BINS)
    share = joint / joint.sum()
    expected = share.sum(axis=1, keepdims=True) * share.sum(axis=0, keepdims=True)
    filled = share > 0
    return float((share[filled] * np.log(share[filled] / expected[filled])).sum())


def binned(values: NDArray, ceiling: float | None = None) -> NDArray[np.intp]:
    """Values as numbers of bins from 0 to `ceiling` (default: nearly the largest value)."""
    top = np.percentile(values, 99.5) if ceiling is None else ceiling
    scaled = np.clip(values / (top if top > 0 else 1.0), 0, 1)
    return np.asarray((scaled * (_BINS - 1)).round(), dtype=np.intp)


def _center_of_mass(image: Image) -> Array:
    voxel = np.array([*ndimage.center_of_mass(np.clip(image.data, 0, None)), 1.0])
    return np.asarray((image.affine @ voxel)[:3])
