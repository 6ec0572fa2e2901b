"""Denoising as it comes, against what a phantom planted: what has to go, what has to stay.

Of the motion and physiology in the parcels at least 80% has to go, and neural signal must lose
less than 10% of its variance, with slices at their own times and interpolated to one moment.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brainlm.config import Denoise
from brainlm.denoise.components import REJECTED
from brainlm.denoise.design import Design, Noise, make_design
from brainlm.phantom.denoising import (
    agreement,
    left_of,
    neural_error,
    planted_causes,
    planted_noise,
    qc_fc,
    split_parcels,
    through,
)
from brainlm.phantom.parameters import Parameters

from .true_run import TrueRun, true_runs

SEED = 1
PLANTED = ("motion", "heart", "breath")


def components(run: TrueRun) -> Noise:
    judged = run.components()
    rejected = (judged.metrics["classification"] == REJECTED).to_numpy()
    return Noise(judged.mixing, rejected, judged.components.converged)


def design(run: TrueRun, noise: Noise, **change: object) -> Design:
    options = Denoise(**change).model_dump(mode="json")  # type: ignore[arg-type]
    wanted = noise if options["method"] == "aroma" else None
    return make_design(
        run.confounds, tr=run.run.tr, options=options, file=Path("x"), components=wanted
    )


@pytest.mark.slow
@pytest.mark.parametrize("slice_timing", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_planted_noise_goes_and_neural_signal_stays(slice_timing: bool) -> None:
    """Pooled over the runs of three subjects; motion24 is there to show what the bounds mean."""
    phantom = Parameters(
        subjects=3, two_runs=0, two_sessions=0, volumes=200, voxel_mm=3.5, seed=SEED
    )
    before = dict.fromkeys((*PLANTED, "neural"), 0.0)
    after = {method: dict.fromkeys(before, 0.0) for method in ("aroma", "motion24")}
    error = dict.fromkeys(after, 0.0)
    called, true = [], []
    for run in true_runs(phantom, 3.0, slice_timing=slice_timing):
        noise = components(run)
        filters = design(run, noise, method="none")
        causes = planted_causes(run.artefacts, run.run, SEED)
        parts = split_parcels(run.parcels, run.neural, causes, filters)
        for kind in before:
            before[kind] += left_of(parts, filters)[kind]
        for method in after:
            how = design(run, noise, method=method)
            for kind in before:
                after[method][kind] += left_of(parts, how)[kind]
            error[method] += neural_error(parts, how, filters)
        called.append(noise.rejected)
        true.append(planted_noise(noise.mixing.to_numpy(), run.neural, causes, filters))
    left = {
        method: sum(kept[kind] for kind in PLANTED) / sum(before[kind] for kind in PLANTED)
        for method, kept in after.items()
    }
    changed = {method: size / before["neural"] for method, size in error.items()}
    assert changed["aroma"] < 0.10 < 0.2 < changed["motion24"]
    assert left["aroma"] < 0.20 < 0.3 < left["motion24"]
    assert after["aroma"]["neural"] > 0.9 * before["neural"] > after["motion24"]["neural"]
    assert agreement(np.concatenate(called), np.concatenate(true))["f1"] > 0.8


@pytest.mark.slow
def test_connectivity_no_longer_follows_motion() -> None:
    """QC-FC of 16 heads that move a lot falls nearly to what the true signals have by chance.

    Small images, but each goes through the same ICA; 16 are enough to tell 0.3 from 0.2.
    """
    phantom = Parameters(
        subjects=16, two_runs=0, two_sessions=0, volumes=120, voxel_mm=5.0, motion_mm=2.0, seed=5
    )
    connectivity: dict[str, list[np.ndarray]] = {"true": [], "none": [], "aroma": []}
    mean_fd = []
    for run in true_runs(phantom, 4.0):
        noise = components(run)
        none, aroma = (design(run, noise, method=method) for method in ("none", "aroma"))
        series = {"true": through(none, run.neural), "none": through(none, run.parcels)}
        series["aroma"] = through(aroma, run.parcels)
        for name, found in series.items():
            full = np.full((424, 424), np.nan)
            full[np.ix_(run.shown, run.shown)] = np.corrcoef(found.T)
            connectivity[name].append(full[np.triu_indices(424, 1)])
        mean_fd.append(run.confounds["framewise_displacement"].mean())
    result = {name: qc_fc(np.stack(fc), np.array(mean_fd)) for name, fc in connectivity.items()}
    assert result["none"] > result["true"] + 0.05
    assert result["aroma"] - result["true"] < 0.4 * (result["none"] - result["true"])
