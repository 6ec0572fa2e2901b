"""The ceiling: the phantom's own transforms must find the phantom's own parcels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainlm.atlas.labels import resample_labels
from brainlm.cli.phantom import load_atlas
from brainlm.geometry import pose_from_params, write_itk_affines
from brainlm.images import Image, load_template
from brainlm.phantom.ceiling import ceilings
from brainlm.phantom.dataset import Job, write_run, write_session
from brainlm.phantom.parameters import SPACE, TRUTH, Parameters, plan_runs
from brainlm.phantom.score import score_series
from brainlm.phantom.traits import draw_traits


@pytest.mark.slow
def test_true_transforms_find_the_parcels_and_wrong_ones_do_not(tmp_path: Path) -> None:
    # A head that moves would have regressors, which on so few volumes take most of the signal.
    parameters = Parameters(
        subjects=1, sites=1, volumes=40, voxel_mm=5, t1w_mm=12, deform_mm=4, motion_mm=0
    )
    table, labels, _ = load_atlas("A424approx")
    job = Job(tmp_path, parameters, table, labels, draw_traits(parameters))
    (run,) = plan_runs(parameters)
    write_session(job, run.session)
    write_run(job, run)
    truth = tmp_path / TRUTH / "sub-01/func" / run.id
    series = pd.read_parquet(f"{truth}_desc-truth_timeseries.parquet")
    grid = load_template(SPACE, "brain", 4.0)
    atlas = Image(resample_labels(labels, grid.affine, grid.data.shape), grid.affine)

    def medians() -> dict[str, float]:
        bold = tmp_path / "sub-01/func" / f"{run.id}_bold.nii.gz"
        found = ceilings(job, run, bold, truth, atlas, table["index"].to_numpy())
        return {
            kind: float(
                score_series(
                    pd.DataFrame(values, columns=list(table["name"])), series, run.tr, 100.0
                ).median()
            )
            for kind, values in found.items()
        }

    best = medians()
    assert best["noiseless"] > 0.98 and best["noisy"] > 0.7
    wrong = pose_from_params([0, 8, 0, 0, 0, 0], np.zeros(3))
    write_itk_affines(f"{truth}_from-boldref_to-T1w_mode-image_desc-truth_xfm.txt", [wrong])
    shifted = medians()
    assert shifted["noiseless"] < best["noiseless"] - 0.05
    assert shifted["noisy"] < best["noisy"] - 0.1
