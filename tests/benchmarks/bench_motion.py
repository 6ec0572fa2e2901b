"""Head motion against ANTs' BOLDRigid: time per volume and error, one thread, one process.

A synthetic head of 64 x 64 x 36 voxels of 3.5 mm, moving by up to 2 mm and 2 degrees with jerks,
Rician noise and one bright spike. ANTs sees fewer volumes, since it takes a second for each.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"

import time

import ants
import numpy as np

from brainlm.geometry import grid_center, pose_from_params
from brainlm.preproc.motion import estimate_motion
from brainlm.preproc.registration import _read_linear, to_ants
from brainlm.series import HeldSeries
from tests.unit.synthetic_head import (
    brain_points,
    centered_affine,
    mean_displacement,
    moving_run,
)

SHAPE, ZOOM, COUNT, COUNT_ANTS, REFERENCE = (64, 64, 36), 3.5, 40, 6, 3


def wander(seed: int) -> np.ndarray:
    """Smooth motion with jerks (COUNT, 6), mm and rad."""
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((COUNT, 6)).cumsum(axis=0)
    steps[COUNT // 2 :] += 4 * rng.standard_normal(6)
    return steps / np.abs(steps).max(axis=0) * ([2.0] * 3 + [np.deg2rad(2)] * 3)


def main(seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Print one line per seed."""
    affine = centered_affine(SHAPE, ZOOM)
    center = grid_center(SHAPE, affine)
    print("seed  brainlm ms/volume  error mm   ANTs ms/volume  error mm   ratio")
    for seed in seeds:
        params = wander(seed)
        run, _ = moving_run(params, affine=affine, shape=SHAPE, noise=20, seed=seed)
        run[..., COUNT // 3] *= 1.1
        true = np.array([pose_from_params(row, center) for row in params])
        began = time.process_time()
        found = estimate_motion(
            HeldSeries(run, affine), iterations=12, tolerance_mm=0.001, fd_radius_mm=50
        )
        ours = (time.process_time() - began) / COUNT
        points = brain_points()
        error = mean_displacement(found.poses, true, points, relative_to=REFERENCE)

        fixed = to_ants(run[..., REFERENCE], affine)
        poses = []
        began = time.process_time()
        for index in range(COUNT_ANTS):
            moving = to_ants(run[..., index], affine)
            done = ants.registration(fixed, moving, "BOLDRigid", random_seed=1)
            poses.append(_read_linear(done["fwdtransforms"]))
        theirs = (time.process_time() - began) / COUNT_ANTS
        their_error = mean_displacement(
            np.array(poses), true[:COUNT_ANTS], points, relative_to=REFERENCE
        )
        print(
            f"{seed:4d}  {1000 * ours:17.0f}  {error:8.3f}  {1000 * theirs:15.0f}"
            f"  {their_error:8.3f}  {theirs / ours:6.1f}x",
            flush=True,
        )


if __name__ == "__main__":
    main()
