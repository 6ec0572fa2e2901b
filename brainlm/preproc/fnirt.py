"""FSL's nonlinear warps (FNIRT, convertwarp, FEAT) as a matrix and a `Warp` in world mm.

FSL measures in the millimetres of each image's own voxels, not of the world: a voxel index times
the voxel size, the first axis counted from its end where the image is stored from left to right
(the determinant of its affine is positive). A *relative* field on the grid of the reference (the
template) holds, at the point `p` of the reference, the move `u` to the point `p + u` of the run;
an *absolute* one holds `p + u` itself. FEAT's `example_func2standard_warp` holds the whole way, the
affine included. What a field says about the world therefore depends on both images' headers
(Jenkinson et al. 2012, NeuroImage 62:782). nitransforms 25.1 takes a field for world mm with one
axis turned, whatever the run (59 mm off in our tests' warp), so that we read it ourselves.

The way is split as the pipeline keeps its own normalisations: a template point `x` lies at
`matrix @ (x + d(x))`. The matrix is the best affine for the whole field and goes on where the field
ends, as in FSL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, InputError
from ..geometry import Array
from ..images import READ_ERRORS, unreadable
from ..series import Series
from ..warps import Warp

#: NIfTI intent codes that FSL gives its files.
_FIELD = 2006
_COEFFICIENTS = {
    2007: "cubic spline coefficients",
    2008: "cosine coefficients",
    2009: "quadratic spline coefficients",
}
_TOPUP = (2016, 2017, 2018)
#: Points of the field along each axis from which its affine part is found.
_FIT_POINTS = 24
#: Change of volume by the affine that no pair of heads has.
_SMALLEST, _LARGEST = 0.2, 5.0


@dataclass(frozen=True)
class RunToTemplate:
    """Where the template's points lie in a run: `matrix @ (x + warp(x))`, RAS mm."""

    matrix: Array  # (4, 4), template to run
    warp: Warp  # on the grid of FSL's field
    absolute: bool  # whether the file held coordinates instead of moves

    def to_run(self, points: Array) -> Array:
        """World points (3, n) of the template, mm, as world points of the run."""
        moved = points + self.warp.at(points)
        return np.asarray(self.matrix[:3, :3] @ moved + self.matrix[:3, 3:])


def fsl_from_voxel(shape: Sequence[int], affine: Array, zooms: Sequence[float]) -> Array:
    """The matrix (4, 4) from voxel indices of an image to the millimetres that FSL counts in."""
    x, y, z = (float(zoom) for zoom in zooms[:3])
    if np.linalg.det(affine[:3, :3]) < 0:
        return np.diag([x, y, z, 1.0])
    turned = np.diag([-x, y, z, 1.0])
    turned[0, 3] = (shape[0] - 1) * x
    return turned


def read_fnirt_field(path: str | Path, run: Series) -> RunToTemplate:
    """Read FSL's field from the template to `run` (its header says where FSL's mm lie)."""
    data, header, affine = _read(Path(path))
    to_fsl = fsl_from_voxel(data.shape, affine, header.get_zooms())
    own = _coordinates(data.shape[:3], to_fsl)
    # FSL's rule: a field written by fnirt is relative; else the smaller spread is the moves'.
    absolute = int(header["intent_code"]) != _FIELD and _spread(data) > _spread(data - own)
    there = data if absolute else data + own
    run_from_fsl = run.affine @ np.linalg.inv(
        fsl_from_voxel(run.shape, run.affine, run.header.get_zooms())
    )
    there = there @ run_from_fsl[:3, :3].T + run_from_fsl[:3, 3]
    world = _coordinates(data.shape[:3], affine)
    matrix = _best_affine(world, there)
    _check_matrix(matrix, path)
    back = np.linalg.inv(matrix)
    moves = there @ back[:3, :3].T + back[:3, 3] - world
    return RunToTemplate(matrix, Warp(moves.astype(np.float32), affine), absolute)


def _read(path: Path) -> tuple[Array, Any, Array]:
    """The vectors (x, y, z, 3) of a field, its header and its affine; other files are refused."""
    try:
        image: Any = nib.load(path)
        header, shape = image.header, tuple(image.shape)
        code = int(header["intent_code"])
        if code in _COEFFICIENTS:
            raise InputError(
                f"This file holds {_COEFFICIENTS[code]}, not a displacement at each voxel",
                file=path,
                fix="`fnirtfileutils --in=COEFFICIENTS --ref=TEMPLATE --out=FIELD --withaff`, or "
                "`convertwarp --ref=TEMPLATE --premat=FUNC2T1.mat --warp1=COEFFICIENTS "
                "--out=FIELD` where they lead from the T1w; then give FIELD",
            )
        if len(shape) != 4 or shape[3] != 3 or code in _TOPUP:
            whose = "a file of topup" if code in _TOPUP else f"an image of shape {shape}"
            whose = "a field of ITK (ANTs)" if shape[3:] == (1, 3) else whose
            raise InputError(
                f"This is no displacement field of FSL but {whose}",
                file=path,
                fix="give the field from FNIRT or convertwarp, such as "
                "reg/example_func2standard_warp.nii.gz",
            )
        data = np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"), dtype=float)
    except FileNotFoundError:
        raise DataError("The warp does not exist", file=path, fix="restore it") from None
    except READ_ERRORS as error:
        raise unreadable(error, path) from error
    if not np.isfinite(data).all():
        raise DataError("The warp holds NaN or inf", file=path, fix="make it anew")
    return data, header, np.asarray(image.affine, dtype=float)


def _coordinates(shape: Sequence[int], matrix: Array) -> Array:
    """`matrix @ index` (x, y, z, 3) at every voxel of a grid."""
    x, y, z = (np.arange(size, dtype=float) for size in shape)
    turn = matrix[:3, :3]
    planes = (
        x[:, None, None, None] * turn[:, 0]
        + y[None, :, None, None] * turn[:, 1]
        + z[None, None, :, None] * turn[:, 2]
    )
    return np.asarray(planes + matrix[:3, 3])


def _spread(vectors: NDArray) -> float:
    """Sum over the three components of their standard deviation."""
    return float(vectors.reshape(-1, 3).std(axis=0).sum())


def _best_affine(points: Array, moved: Array) -> Array:
    """The affine (4, 4) that brings `points` (x, y, z, 3) nearest to `moved`, least squares."""
    steps = tuple(slice(None, None, max(1, size // _FIT_POINTS)) for size in points.shape[:3])
    source, target = points[steps].reshape(-1, 3), moved[steps].reshape(-1, 3)
    design = np.column_stack([source, np.ones(len(source))])
    found, _, rank, _ = np.linalg.lstsq(design, target, rcond=None)
    matrix = np.eye(4)
    if rank == 4:
        matrix[:3] = found.T
    return matrix


def _check_matrix(matrix: Array, path: str | Path) -> None:
    """Refuse a field that mirrors, or shrinks or blows up a head beyond belief."""
    volume = float(np.linalg.det(matrix[:3, :3]))
    if volume < 0:
        raise DataError(
            "The warp swaps left and right between the template and the run",
            file=path,
            fix="the header of the warp or of the run is not the one that FSL saw",
        )
    if not _SMALLEST < volume < _LARGEST:
        raise DataError(
            f"The warp makes the head {volume:.2g} times as large: it does not belong to this run",
            file=path,
            fix="look at the registration, or give the warp from the run to the template",
        )
