"""What parcel series could be at best: the phantom's own transforms in place of estimates.

Neighbouring parcels share voxels of the scanner, so that not even the truth transforms give a
correlation of 1 with the true series. What a pipeline loses on top is the pipeline's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..geometry import MOTION_NAMES, Array, grid_center, pose_from_params, read_itk_affines
from ..images import Image, read_image, write_image
from ..parcellate.extract import mean_series
from ..preproc.distortion import Shift, shift_from_field
from ..preproc.resample import Resampler, StandardGrid
from ..preproc.slicetiming import to_one_moment
from ..series import Series, open_series
from ..warps import Warp
from .dataset import Job, measure
from .distortion import READOUT_S, phase_encoding
from .parameters import SPACE, Run
from .scene import slice_times

#: Cubic, as in the pipeline.
_ORDER = 3


def ceiling_series(
    series: Series,
    run: Run,
    params: Array,
    since_t1w: Array,
    deformation: Warp,
    shift: Shift | None,
    atlas: Image,
    parcels: NDArray,
) -> NDArray[np.float32]:
    """Parcel series (T, parcels) of a raw run by the truth transforms, nothing regressed out.

    `params` (T, 6) is the head's true motion, `since_t1w` (4, 4) maps T1w to BOLD points,
    `deformation` template to T1w points, and `shift` is the distortion. Slices are brought to
    the volume's middle.
    """
    times, _ = slice_times(series.shape[2], run.tr, run.session.site)
    source, _ = to_one_moment(
        series, times, tr=run.tr, reference=0.5, ignored=0, switched_off=False
    )
    center = grid_center(series.shape[:3], series.affine)
    poses = np.stack([pose_from_params(row, center) for row in params])
    grid = StandardGrid(atlas.affine, atlas.data > 0)
    resampler = Resampler(
        source, poses, since_t1w, grid, order=_ORDER, warp=deformation, shift=shift
    )
    volumes: Iterator[NDArray] = (volume.ravel(order="F") for volume in resampler.volumes())
    return mean_series(volumes, atlas.data, grid.brain, parcels, 0.0).series


def ceilings(
    job: Job, run: Run, bold: Path, truth: Path, atlas: Image, parcels: NDArray
) -> dict[str, NDArray[np.float32]]:
    """The ceilings of one run: of its `noisy` data, and of the same run measured `noiseless`.

    `truth` is the path of the run's truth, up to `_desc-truth`.
    """
    table = pd.read_csv(f"{truth}_desc-truth_motion.tsv", sep="\t", na_values="n/a")
    params = table[list(MOTION_NAMES)].to_numpy(dtype=float)
    (since_t1w,) = read_itk_affines(f"{truth}_from-boldref_to-T1w_mode-image_desc-truth_xfm.txt")
    name = f"{run.session.id}_from-{SPACE}_to-T1w_mode-image_desc-truth_xfm.nii.gz"
    displacement = read_image(truth.parents[1] / "anat" / name)
    deformation = Warp(displacement.data, displacement.affine)

    def series_of(source: Series, shift: Shift | None) -> NDArray[np.float32]:
        return ceiling_series(source, run, params, since_t1w, deformation, shift, atlas, parcels)

    quiet = replace(job.parameters, noise=0.0, artefacts=False, distortion_mm=0.0)
    measured = measure(replace(job, parameters=quiet), run).measured
    with tempfile.TemporaryDirectory(prefix="brainlm-") as folder:
        path = Path(folder) / "noiseless_bold.nii"
        write_image(path, measured.bold.data, measured.bold.affine, tr=run.tr)
        noiseless = series_of(open_series(path), None)
    shift = None
    if job.parameters.distortion_mm:
        field = read_image(f"{truth}_desc-truth_fieldmap.nii.gz")
        direction = phase_encoding(run.session.site)
        shift = shift_from_field(field, direction, READOUT_S)
    return {"noiseless": noiseless, "noisy": series_of(open_series(bold), shift)}
