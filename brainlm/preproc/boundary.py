"""The boundary between white and grey matter in a T1w brain, as points with their normals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import DataError
from ..geometry import Array
from ..images import Image
from ..tissues import Tissues
from .grids import shrink, world_points
from .masks import Mask, dilate, largest_component
from .pyramid import voxel_sizes

#: The boundary is looked for on voxels of no less than about this, smoothed by this SD.
_FINE_MM = 1.0
_SMOOTH_MM = 0.7
#: Both sides are looked at so far from the boundary: about the middle of the cortex.
_STEP_MM = 1.5
#: The T1w must show white matter on one side and none on the other (0 grey, 1 white).
_WHITE_INSIDE, _WHITE_OUTSIDE = 0.7, 0.3
#: The template's white matter, carried over by the affine, misses the subject's by no more.
_PRIOR_MM = 5.0
_MOST_POINTS = 20_000


@dataclass(frozen=True)
class Boundary:
    """Points on the surface of the white matter, and which way is out."""

    points: Array  # (3, n) world mm
    normals: Array  # (3, n) unit vectors, from white to grey

    @property
    def outside(self) -> Array:
        """Points (3, n) in the grey matter."""
        return self.points + _STEP_MM * self.normals

    @property
    def inside(self) -> Array:
        """Points (3, n) in the white matter."""
        return self.points - _STEP_MM * self.normals

    def hemispheres(self, t1w_to_mni: Array) -> tuple[Boundary, Boundary]:
        """What lies left and right of the template's midline."""
        to_template = np.linalg.inv(t1w_to_mni)
        left = to_template[0, :3] @ self.points + to_template[0, 3] < 0
        return (
            Boundary(self.points[:, left], self.normals[:, left]),
            Boundary(self.points[:, ~left], self.normals[:, ~left]),
        )


def find_boundary(t1w_brain: Image, t1w_to_mni: Array, tissues: Tissues) -> Boundary:
    """The surface between grey and white matter in a bias-corrected brain (x, y, z).

    Halfway between the intensities of the two, which are found by k-means from the template's
    tissues, at voxel edges that cross that level near the template's white matter.
    """
    brain = _cropped(shrink(t1w_brain, _FINE_MM))
    to_template = np.asarray(np.linalg.inv(t1w_to_mni), dtype=float)
    grey, white = _grey_and_white(brain, t1w_to_mni, tissues)
    sizes = voxel_sizes(brain.affine)
    share = ndimage.gaussian_filter(brain.data, _SMOOTH_MM / sizes)
    share = (share - grey) / max(white - grey, 1e-6)  # 0 in grey matter, 1 in white matter
    body = largest_component(share > 0.5)
    voxels = _crossings(share, body)
    world = brain.affine[:3, :3] @ voxels + brain.affine[:3, 3:]
    voxels = np.compress(_near_template_white(world, to_template, tissues), voxels, axis=1)

    slope = np.stack(
        [ndimage.map_coordinates(part, voxels, order=1) for part in np.gradient(share)]
    )
    slope = np.linalg.inv(brain.affine[:3, :3]).T @ slope
    steep = np.linalg.norm(slope, axis=0)
    voxels, slope, steep = voxels[:, steep > 0], slope[:, steep > 0], steep[steep > 0]
    found = Boundary(
        points=brain.affine[:3, :3] @ voxels + brain.affine[:3, 3:], normals=-slope / steep
    )
    shown = (_at(share, brain.affine, found.inside) > _WHITE_INSIDE) & (
        _at(share, brain.affine, found.outside) < _WHITE_OUTSIDE
    )
    chosen = np.flatnonzero(shown)
    chosen = chosen[:: max(1, len(chosen) // _MOST_POINTS)]
    return Boundary(found.points[:, chosen], found.normals[:, chosen])


def _cropped(brain: Image) -> Image:
    """The part of a brain image that holds the brain, and a voxel around it."""
    boxes = ndimage.find_objects((brain.data > 0).astype(np.int8))
    if not boxes:
        raise DataError("The T1w's brain is empty", fix="rerun normalize-anat, look at its T1w")
    low = np.array([max(part.start - 1, 0) for part in boxes[0]])
    part = tuple(slice(first, one.stop + 1) for first, one in zip(low, boxes[0], strict=True))
    shift = np.eye(4)
    shift[:3, 3] = low
    return Image(brain.data[part], brain.affine @ shift)


def _grey_and_white(brain: Image, t1w_to_mni: Array, tissues: Tissues) -> tuple[float, float]:
    """Intensities of grey and white matter: k-means of three tissues from the template's."""
    points = (t1w_to_mni @ world_points(tissues.affine, tissues.brain))[:3]
    values = _at(brain.data, brain.affine, points)
    maps = [part[tissues.brain] for part in (tissues.csf, tissues.gm, tissues.wm)]
    best = np.argmax(maps, axis=0)
    seen = values > 0
    values, best = values[seen], best[seen]
    centers = np.array([np.median(values[best == k]) for k in range(3)])
    centers.sort()
    for _ in range(20):
        nearest = np.abs(values[:, None] - centers).argmin(axis=1)
        centers = np.array(
            [values[nearest == k].mean() if (nearest == k).any() else centers[k] for k in range(3)]
        )
    return float(centers[1]), float(centers[2])


def _crossings(share: NDArray, body: Mask) -> Array:
    """Where the level 0.5 crosses the voxel edges of `body`'s surface: voxel coordinates (3, n)."""
    found = []
    for axis in range(3):
        ahead = np.take(share, range(1, share.shape[axis]), axis=axis)
        here = np.take(share, range(share.shape[axis] - 1), axis=axis)
        of_body = np.take(body, range(1, share.shape[axis]), axis=axis) | np.take(
            body, range(share.shape[axis] - 1), axis=axis
        )
        cross = ((here > 0.5) != (ahead > 0.5)) & of_body
        places = np.argwhere(cross).T.astype(float)
        places[axis] += (here[cross] - 0.5) / (here[cross] - ahead[cross])
        found.append(places)
    return np.concatenate(found, axis=1)


def _near_template_white(points: Array, to_template: Array, tissues: Tissues) -> Mask:
    """Which world points (3, n) of the T1w lie near the template's white matter."""
    near = dilate(tissues.wm > 0.5, voxel_sizes(tissues.affine), _PRIOR_MM)
    mapped = to_template[:3, :3] @ points + to_template[:3, 3:]
    return np.asarray(_at(near.astype(np.float32), tissues.affine, mapped, order=0) > 0)


def _at(data: NDArray, affine: Array, points: Array, order: int = 1) -> NDArray:
    """Values (n,) at world points (3, n); 0 outside."""
    pull = np.linalg.inv(affine)
    voxels = pull[:3, :3] @ points + pull[:3, 3:]
    return np.asarray(ndimage.map_coordinates(data, voxels, order=order, mode="constant"))
