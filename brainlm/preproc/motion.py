"""Head motion: the pose of the head in every volume, relative to a reference of the run itself.

The run is read twice. First, at 8 mm smoothness, all volumes are aligned to the most typical
one; the mean of those that then agree best becomes the reference, so that a moved or
spoilt first volume does no harm (those before the steady state are never chosen). Second,
all are aligned to it at 4 mm. `alignment.py` holds the equations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..geometry import (
    MOTION_NAMES,
    Array,
    framewise_displacement,
    grid_center,
    params_from_pose,
)
from ..series import HeldSeries
from ..threads import map_in_order
from .alignment import Alignment, align
from .masks import dilate, foreground_mask
from .pyramid import Level, make_level, sample, spline_coefficients, voxel_sizes
from .steady_state import global_means, non_steady_volumes, spikes

COARSE_MM, FINE_MM = 8.0, 4.0
#: The coarse level only starts the fine one, so it may stop this much earlier.
_COARSE_SLACK = 30
#: Volumes looked at to find the most typical one, and averaged for the reference.
_SAMPLED, _AVERAGED = 40, 40
#: The ball over which `rmsd` is taken: FSL's, and so fMRIPrep's.
RMS_RADIUS_MM = 80.0


@dataclass(frozen=True)
class MotionEstimate:
    """What `estimate_motion` finds out about a run of T volumes."""

    poses: Array  # (T, 4, 4), the head's pose in each volume
    params: Array  # (T, 6), mm and rad
    framewise_displacement: Array  # (T,), mm; the first is NaN
    rms_displacement: Array  # (T,), mm; the first is NaN
    boldref: NDArray[np.float32]  # (x, y, z), mean of the best-aligned volumes
    mask: NDArray[np.bool_]  # (x, y, z), the brain in boldref
    averaged: NDArray[np.int_]  # the volumes in boldref
    converged: NDArray[np.bool_]  # (T,), whether the alignment settled
    unsteady: int  # volumes at the start that are not at steady state

    @property
    def table(self) -> pd.DataFrame:
        """One row per volume: parameters, FD, `rmsd`, and a column per volume not yet steady."""
        table = pd.DataFrame(self.params, columns=list(MOTION_NAMES))
        table["framewise_displacement"] = self.framewise_displacement
        table["rmsd"] = self.rms_displacement
        return table.assign(**spikes(self.unsteady, len(table)))


def estimate_motion(
    bold: HeldSeries,
    *,
    iterations: int,
    tolerance_mm: float,
    fd_radius_mm: float,
    threads: int = 1,
) -> MotionEstimate:
    """Estimate the head's pose in every volume of `bold`.

    Poses and parameters follow `brainlm.geometry`: the head's own movement in mm and rad
    along +R, +A, +S about the grid's centre, whatever the storage order of the voxels. The
    result does not depend on `threads`.
    """
    affine, center = bold.affine, grid_center(bold.shape, bold.affine)
    unsteady = non_steady_volumes(global_means(bold.volumes()))
    typical = bold.volume(most_typical_volume(bold, unsteady))
    settle = partial(_align_all, bold, iterations=iterations, threads=threads)

    coarse = make_level(typical, affine, _head_mask(typical, affine), center, COARSE_MM)
    still = [np.eye(4)] * bold.shape[3]
    rough = settle(coarse, still, tolerance_mm=tolerance_mm * _COARSE_SLACK)
    reference, _ = _mean_of_best(bold, rough, threads, unsteady)

    fine = make_level(reference, affine, _head_mask(reference, affine), center, FINE_MM)
    starts = [found.pose for found in rough]
    final = settle(fine, starts, tolerance_mm=tolerance_mm)
    boldref, averaged = _mean_of_best(bold, final, threads, unsteady)

    poses = np.array([found.pose for found in final])
    params = np.array([params_from_pose(pose, center) for pose in poses])
    return MotionEstimate(
        poses=poses,
        params=params,
        framewise_displacement=framewise_displacement(params, fd_radius_mm),
        rms_displacement=rms_displacement(poses, center),
        boldref=boldref,
        mask=foreground_mask(boldref, voxel_sizes(affine)),
        averaged=averaged,
        converged=np.array([found.converged for found in final]),
        unsteady=unsteady,
    )


def rms_displacement(poses: Array, center: Array, radius_mm: float = RMS_RADIUS_MM) -> Array:
    """Relative RMS displacement (T,), mm, of Jenkinson et al. 2002 (NeuroImage 17:825).

    The root mean square, over a solid ball of `radius_mm` about `center` (3,), of how far each
    point moves from one of the `poses` (T, 4, 4) to the next; the first is NaN. In closed form
    (Jenkinson 1999, FMRIB TR99MJ1), with `A x + b` the difference of the two poses at `x`,

        rmsd^2  =  radius^2 / 5  trace(A'A)  +  |A center + b|^2.
    """
    change = np.diff(poses, axis=0)
    turn, shift = change[:, :3, :3], change[:, :3, :3] @ center + change[:, :3, 3]
    squares = radius_mm**2 / 5 * (turn**2).sum(axis=(1, 2)) + (shift**2).sum(axis=1)
    return np.concatenate([[np.nan], np.sqrt(squares)])


def most_typical_volume(bold: HeldSeries, first: int = 0) -> int:
    """The volume, from `first` on, that correlates best with others spread over the run."""
    affine, count = bold.affine, bold.shape[3]
    wanted = min(count - first, _SAMPLED)
    chosen = np.unique(np.linspace(first, count - 1, wanted).round().astype(int))
    stride = np.maximum(1, (COARSE_MM / voxel_sizes(affine)).astype(int))
    lattice = tuple(slice(None, None, int(step)) for step in stride)
    rows = [
        spline_coefficients(bold.volume(index), affine, COARSE_MM, order=1)[lattice].ravel()
        for index in chosen
    ]
    agreement = np.corrcoef(np.array(rows, dtype=float)).mean(axis=1)
    return int(chosen[np.nanargmax(agreement)])


def _head_mask(volume: NDArray, affine: Array) -> NDArray[np.bool_]:
    """The head and a rim of air, whose edge tells most about the pose."""
    sizes = voxel_sizes(affine)
    smooth = spline_coefficients(volume, affine, FINE_MM, order=1)
    return dilate(foreground_mask(smooth, sizes), sizes, FINE_MM)


def _align_all(
    bold: HeldSeries,
    level: Level,
    starts: list[Array],
    *,
    iterations: int,
    tolerance_mm: float,
    threads: int,
) -> list[Alignment]:
    def one(index: int) -> Alignment:
        coefficients = spline_coefficients(bold.volume(index), bold.affine, level.fwhm_mm)
        search = partial(
            align,
            coefficients,
            bold.affine,
            level,
            iterations=iterations,
            tolerance_mm=tolerance_mm,
        )
        found = search(starts[index])
        if found.converged or np.array_equal(starts[index], np.eye(4)):
            return found
        # A start from the coarse level may itself be what went wrong.
        again = search(np.eye(4))
        return again if again.correlation > found.correlation else found

    return list(map_in_order(one, range(bold.shape[3]), threads))


def _mean_of_best(
    bold: HeldSeries,
    alignments: list[Alignment],
    threads: int,
    first: int,
) -> tuple[NDArray[np.float32], NDArray[np.int_]]:
    """The mean of the best-aligned volumes from `first` on, and which they are.

    At most a quarter of a long run.
    """
    correlations = np.array([found.correlation for found in alignments])
    correlations[:first] = -np.inf
    wanted = min(_AVERAGED, max(5, len(alignments) // 4), len(alignments) - first)
    best = np.sort(np.argsort(-correlations, kind="stable")[:wanted])
    affine, shape = bold.affine, bold.shape[:3]
    grid = np.reshape(np.indices(shape, dtype=float), (3, -1))
    grid = np.vstack([grid, np.ones(grid.shape[1])])

    def realigned(index: int) -> NDArray[np.float32]:
        to_voxels = np.linalg.inv(affine) @ alignments[index].pose @ affine
        return sample(spline_coefficients(bold.volume(index), affine), (to_voxels @ grid)[:3])

    total = np.zeros(grid.shape[1])
    for values in map_in_order(realigned, best.tolist(), threads):
        total += values
    mean = np.clip(total / wanted, 0, None).reshape(shape)
    return mean.astype(np.float32), best
