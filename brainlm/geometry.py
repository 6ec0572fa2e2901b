"""Affine geometry in world space: RAS+ millimetres, as NIfTI has it.

Conventions, used everywhere in this package:

- A *pose* `M` (4 x 4) moves the head: a point of the head at `x` in the reference lies at
  `M @ x` in the volume. The volume therefore is `V(x) = R(inv(M) @ x)` with reference `R`.
- Six rigid parameters are `(trans_x, trans_y, trans_z, rot_x, rot_y, rot_z)` in mm and rad,
  of the head's own movement, along +R, +A, +S and right-handed about those axes through the
  `center` of the reference grid: `M = T(center) T(trans) Rz Ry Rx T(-center)`.
- A *spatial transform* from A to B, as stored in `from-A_to-B` files, resamples an image of
  A onto the grid of B: it maps points of B to points of A (ITK's and BIDS's convention).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .files import write_text

Array = NDArray[np.float64]

#: Standard deviation of a Gaussian of full width at half maximum 1.
FWHM_TO_SIGMA = 1 / np.sqrt(8 * np.log(2))

#: Grids whose corners all lie closer than this (mm) are the same grid.
SAME_GRID_MM = 0.01

#: Column names of the six rigid parameters.
MOTION_NAMES = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def grid_center(shape: Sequence[int], affine: Array) -> Array:
    """World coordinate (3,) of the middle of a grid."""
    middle = (np.asarray(shape[:3], dtype=float) - 1) / 2
    return np.asarray(affine, dtype=float)[:3, :3] @ middle + np.asarray(affine)[:3, 3]


def rotation(angles: Sequence[float] | NDArray[np.floating]) -> Array:
    """`Rz Ry Rx` (3, 3) of three angles in rad, right-handed about +R, +A, +S."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def pose_from_params(params: Sequence[float] | NDArray[np.floating], center: Array) -> Array:
    """The 4 x 4 pose of six rigid parameters (mm, rad) about `center`."""
    pose = np.eye(4)
    pose[:3, :3] = rotation(params[3:6])
    pose[:3, 3] = np.asarray(params[:3]) + center - pose[:3, :3] @ center
    return pose


def params_from_pose(pose: Array, center: Array) -> Array:
    """The six rigid parameters (6,) of a pose: the inverse of `pose_from_params`."""
    turn = pose[:3, :3]
    rot_y = np.arcsin(np.clip(-turn[2, 0], -1, 1))
    rot_x = np.arctan2(turn[2, 1], turn[2, 2])
    rot_z = np.arctan2(turn[1, 0], turn[0, 0])
    shift = pose[:3, 3] - center + turn @ center
    return np.array([*shift, rot_x, rot_y, rot_z])


def framewise_displacement(params: Array, radius_mm: float) -> Array:
    """FD (T,) of Power et al. 2012 (NeuroImage 59:2142); the first volume's is NaN.

    The sum of the absolute changes of the three shifts (mm) and of the three rotations,
    taken as arcs on a sphere of `radius_mm`.
    """
    change = np.abs(np.diff(params, axis=0))
    moved = change[:, :3].sum(axis=1) + radius_mm * change[:, 3:].sum(axis=1)
    return np.concatenate([[np.nan], moved])


def template_grid(
    affine: Array, shape: Sequence[int], zoom: float, *, with_origin: bool = False
) -> tuple[Array, tuple]:
    """A grid of isotropic `zoom` mm covering another grid, in the same orientation.

    The corner voxel keeps its centre, so grids of one template nest where zooms divide. On an
    upright RAS grid, `with_origin` starts at the first whole multiple of `zoom` instead, so
    that some voxel's centre lies at 0, 0, 0.
    """
    old = np.sqrt((np.asarray(affine)[:3, :3] ** 2).sum(axis=0))
    corner = np.array(affine, dtype=float)[:3, 3]
    start = np.ceil(np.round(corner / zoom, 6)) * zoom if with_origin else corner
    extent = (np.asarray(shape[:3]) - 1) * old - (start - corner)
    new_shape = tuple(int(np.floor(length / zoom)) + 1 for length in extent)
    new_affine = np.array(affine, dtype=float)
    new_affine[:3, :3] = new_affine[:3, :3] / old * zoom
    new_affine[:3, 3] = start
    return new_affine, new_shape


def write_itk_affines(path: str | Path, matrices: Sequence[Array]) -> None:
    """Write 4 x 4 RAS world matrices (pull direction) as one ITK text transform file."""
    lines = ["#Insight Transform File V1.0"]
    for number, matrix in enumerate(matrices):
        lps = _LPS @ matrix @ _LPS
        values = [*lps[:3, :3].ravel(), *lps[:3, 3]]
        lines += [
            f"#Transform {number}",
            "Transform: AffineTransform_double_3_3",
            "Parameters: " + " ".join(repr(float(value)) for value in values),
            "FixedParameters: 0 0 0",
        ]
    write_text(path, "\n".join(lines) + "\n")


def read_itk_affines(path: str | Path) -> list[Array]:
    """Read what `write_itk_affines` wrote (any affine ITK text file): 4 x 4 RAS matrices."""
    matrices, parameters = [], None
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _, rest = line.partition(":")
        if key == "Parameters":
            parameters = np.array([float(value) for value in rest.split()])
        elif key == "FixedParameters":
            center = np.array([float(value) for value in rest.split()])
            if parameters is None or parameters.size != 12 or center.size != 3:
                raise DataError(
                    "This ITK file does not hold 3-D affine transforms",
                    file=path,
                    fix="delete it and rerun the stage that makes it",
                )
            lps = np.eye(4)
            lps[:3, :3] = parameters[:9].reshape(3, 3)
            lps[:3, 3] = parameters[9:] + center - lps[:3, :3] @ center
            matrices.append(_LPS @ lps @ _LPS)
            parameters = None
    if not matrices:
        raise DataError("This ITK transform file is empty", file=path)
    return matrices


def same_grid(a: Array, shape_a: Sequence[int], b: Array, shape_b: Sequence[int]) -> bool:
    """Whether two grids hold the same voxels at the same places of the world.

    Affines (4, 4) and shapes; the affines may differ by rounding (0.01 mm at the corners).
    """
    if tuple(shape_a[:3]) != tuple(shape_b[:3]):
        return False
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape_a[:3]], [1])).reshape(4, -1)
    return bool(np.abs(((a - b) @ corners)[:3]).max() < SAME_GRID_MM)
