"""A phantom's run on the template grid by the true transforms: what denoising would be given.

Registration and motion estimates lose next to nothing on phantoms (docs/phantom.md), so the truth
stands in for both, and a run costs seconds.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainlm.atlas import load_table
from brainlm.atlas.build import approximate_labels
from brainlm.config import Confounds, Ica
from brainlm.denoise.judge import Judged, find_and_judge
from brainlm.denoise.regions import template_regions
from brainlm.geometry import grid_center
from brainlm.images import write_image
from brainlm.phantom.dataset import Job, make_head, measure
from brainlm.phantom.motion import motion_table, poses
from brainlm.phantom.parameters import SPACE, Parameters, Run, plan_runs
from brainlm.phantom.traits import draw_traits
from brainlm.preproc.confounds import confounds_table, tissue_voxels
from brainlm.preproc.resample import Resampler, StandardGrid
from brainlm.preproc.slicetiming import to_one_moment
from brainlm.series import open_series
from brainlm.tissues import Tissues, load_tissues
from brainlm.warps import Warp

_FEWEST_VOXELS = 4


@dataclass(frozen=True)
class TrueRun:
    """T volumes of n voxels, what is known of them, and the parcels that have enough voxels."""

    run: Run
    series: NDArray[np.float32]  # (T, n)
    mask: NDArray[np.bool_]  # (x, y, z)
    tissues: Tissues
    confounds: pd.DataFrame
    parcels: NDArray[np.float64]  # (T, parcels), in % of their means
    shown: NDArray[np.intp]  # (parcels,), which of the atlas these are
    neural: NDArray[np.float64]  # (T, parcels)
    artefacts: pd.DataFrame

    def components(self, **change: object) -> Judged:
        """The run's independent components, judged, with default options but for `change`."""
        return find_and_judge(
            self.series.copy(),
            self.mask,
            self.tissues.affine,
            self.confounds,
            template_regions(self.tissues, self.mask),
            tr=self.run.tr,
            options={**Ica().model_dump(), **change},
        )


def true_runs(parameters: Parameters, zoom: float, *, slice_timing: bool = True) -> list[TrueRun]:
    """Every run of a phantom on the template's grid of `zoom` mm; slices at one moment or not."""
    table, tissues = load_table(), load_tissues(SPACE, zoom)
    labels = approximate_labels(table, SPACE, 2.0)
    job = Job(Path("none"), parameters, table, labels, draw_traits(parameters))
    parcels = approximate_labels(table, SPACE, zoom).data.astype(int)
    return [_true_run(job, run, tissues, parcels, slice_timing) for run in plan_runs(parameters)]


def _true_run(
    job: Job, run: Run, tissues: Tissues, labels: NDArray[np.int_], slice_timing: bool
) -> TrueRun:
    scan = measure(job, run)
    measured = scan.measured
    head = make_head(job.parameters, run.session)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bold.nii"
        write_image(path, measured.bold.data, measured.bold.affine, tr=run.tr)
        raw = open_series(path)
        source, _ = to_one_moment(
            raw,
            measured.slice_times,
            tr=run.tr,
            reference=0.5,
            ignored=0,
            switched_off=not slice_timing,
        )
        resampler = Resampler(
            source,
            np.stack(poses(measured.params, grid_center(raw.shape[:3], raw.affine))),
            scan.since_t1w,
            StandardGrid(tissues.affine, tissues.brain),
            order=3,
            warp=Warp(head.total_displacement(), head.grid),
        )
        volumes = [volume[tissues.brain] for volume in resampler.volumes()]
        mask = resampler.mask()
    series = np.stack(volumes)[:, mask[tissues.brain]].astype(np.float32)
    motion = motion_table(measured.params)
    confounds, _ = confounds_table(
        series,
        motion.assign(rmsd=motion["framewise_displacement"]),
        tissue_voxels(tissues, mask),
        tr=run.tr,
        **Confounds().model_dump(),
    )
    here, sizes = labels[mask], np.bincount(labels[mask], minlength=len(job.table) + 1)[1:]
    shown = np.flatnonzero(sizes >= _FEWEST_VOXELS)
    means = np.stack([series[:, here == k + 1].mean(axis=1, dtype=float) for k in shown], axis=1)
    return TrueRun(
        run=run,
        series=series,
        mask=mask,
        tissues=tissues,
        confounds=confounds,
        parcels=100 * means / means.mean(axis=0),
        shown=shown,
        neural=measured.timeseries[:, shown].astype(float),
        artefacts=measured.artefacts,
    )
