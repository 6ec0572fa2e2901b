"""The one interpolation against nilearn's resample_img: CPU seconds, memory, difference.

A 64 x 64 x 36 x 30 run of 3.5 mm onto the 2 mm template, cubic, the same affine for both. Ours
also takes a head pose for each volume (here the identity) and computes the brain alone.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from nilearn.image import resample_img
from scipy.ndimage import affine_transform

from brainlm.images import load_template, write_image
from brainlm.preproc.resample import Resampler, StandardGrid
from brainlm.series import open_series
from tests.unit.synthetic_head import centered_affine, moving_run

SHAPE, ZOOM, COUNT = (64, 64, 36), 3.5, 30


def main() -> None:
    """Print one line."""
    affine = centered_affine(SHAPE, ZOOM)
    run, _ = moving_run(np.zeros((COUNT, 6)), affine=affine, shape=SHAPE, noise=20)
    template = load_template("MNI152NLin2009aSym", "brain", 2.0)
    grid = StandardGrid(template.affine, template.data > 0.5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bold.nii.gz"
        write_image(path, run, affine, tr=2.0)

        began = time.process_time()
        poses = np.broadcast_to(np.eye(4), (COUNT, 4, 4))
        resampler = Resampler(open_series(path), poses, np.eye(4), grid, order=3)
        ours = np.stack([volume[grid.brain] for volume in resampler.volumes()])
        our_time = time.process_time() - began

        began = time.process_time()
        resample_img(
            nib.load(path),
            target_affine=template.affine,
            target_shape=template.data.shape,
            interpolation="continuous",
            force_resample=True,
            copy_header=True,
        ).get_fdata(dtype=np.float32)
        their_time = time.process_time() - began
    # Half a voxel beyond the outermost centres, we still read the edge and scipy fades to 0.
    indices = np.argwhere(grid.brain).T
    points = np.vstack([indices, np.ones(indices.shape[1])])
    pull = np.linalg.inv(affine) @ template.affine
    voxels = (pull @ points)[:3]
    between = ((voxels >= 0) & (voxels <= np.array(SHAPE)[:, None] - 1)).all(axis=0)
    seen = resampler.mask()[grid.brain] & between
    gap = 0.0
    for index in range(COUNT):
        reference = affine_transform(
            run[..., index].astype(float), pull[:3, :3], pull[:3, 3], template.data.shape, order=3
        )
        gap = max(gap, np.abs(ours[index] - np.clip(reference[grid.brain], 0, None))[seen].max())
    print(
        f"brainlm {1000 * our_time / COUNT:.0f} ms per volume   "
        f"nilearn {1000 * their_time / COUNT:.0f} ms   {their_time / our_time:.1f}x"
    )
    print(f"largest difference from scipy {gap / np.ptp(run):.1e} of the range")


if __name__ == "__main__":
    main()
