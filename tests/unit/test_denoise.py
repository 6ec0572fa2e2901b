from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from brainlm.denoise.carpet import ROWS, sample_carpet
from brainlm.denoise.filters import (
    check_freedom,
    motion_regressors,
    nuisance_basis,
    settling_regressors,
)
from brainlm.denoise.regression import regress_out, variance_removed
from brainlm.errors import DataError
from brainlm.geometry import MOTION_NAMES
from brainlm.images import read_image
from brainlm.preproc.confounds import expand
from brainlm.preproc.steady_state import spikes
from brainlm.series import open_series

from .synthetic_head import brainlm, bytes_below, centered_affine, make_study, moving_run

COUNT, TR = 200, 2.0


def confounds(seed: int = 0) -> pd.DataFrame:
    steps = np.random.default_rng(seed).normal(0, 0.05, (COUNT, 6)).cumsum(axis=0)
    return expand(pd.DataFrame(steps, columns=list(MOTION_NAMES)))


def oscillation(period_s: float) -> np.ndarray:
    return np.sin(2 * np.pi * np.arange(COUNT) * TR / period_s)


def test_planted_noise_goes_and_planted_signal_stays() -> None:
    table = confounds()
    basis = nuisance_basis(motion_regressors(table, "motion24"), tr=TR, high_pass_s=100)
    rng = np.random.default_rng(1)
    signal = rng.standard_normal(COUNT)
    signal -= basis @ (basis.T @ signal)  # orthogonal to the regressors, so nothing may be lost
    artefact = (
        30 * table["rot_x"] / table["rot_x"].std()
        + 20 * table["trans_z_power2"] / table["trans_z_power2"].std()
        + 40 * np.linspace(-1, 1, COUNT)
    ).to_numpy()
    series = (900 + 5 * signal + artefact)[:, None] + np.zeros((1, 3))
    cleaned = regress_out(series.astype(np.float32), basis)
    drift_left = 40 * np.linspace(-1, 1, COUNT)
    drift_left -= basis @ (basis.T @ drift_left)  # a straight line is not quite cosines
    expected = series.mean() + 5 * signal + drift_left
    np.testing.assert_allclose(cleaned[:, 0], expected, atol=0.01)
    assert np.corrcoef(cleaned[:, 0], signal)[0, 1] > 0.98
    assert np.corrcoef(series[:, 0], signal)[0, 1] < 0.3
    assert variance_removed(series.astype(np.float32), cleaned) > 0.95


def test_volumes_before_the_steady_state_do_not_bend_the_fit() -> None:
    """The rest of the run comes out as if those volumes were not there."""
    table = confounds().assign(**spikes(3, COUNT))
    motion = motion_regressors(table, "motion24")
    regressors = np.hstack([motion, settling_regressors(table)])
    rng = np.random.default_rng(4)
    quiet = (900 + rng.normal(0, 5, (COUNT, 6))).astype(np.float32)
    bright = quiet.copy()
    bright[:3] *= np.array([1.6, 1.4, 1.2], np.float32)[:, None]
    basis = nuisance_basis(regressors, tr=TR, high_pass_s=100)
    with_spikes = regress_out(bright, basis)
    kept = with_spikes[3:] - with_spikes[3:].mean(axis=0)
    expected = regress_out(quiet, basis)[3:]
    np.testing.assert_allclose(kept, expected - expected.mean(axis=0), atol=2e-3)
    np.testing.assert_allclose(with_spikes[:3], np.tile(bright.mean(axis=0), (3, 1)), rtol=1e-5)
    bent = regress_out(bright, nuisance_basis(motion, tr=TR, high_pass_s=100))[3:]
    assert np.abs(bent - bent.mean(axis=0) - kept).max() > 5
    assert settling_regressors(confounds()).shape == (COUNT, 0)


def test_carpet_is_not_made_pale_by_settling_volumes() -> None:
    rng = np.random.default_rng(5)
    labels = np.repeat([1, 2, 3], 50).astype(np.int8)
    series = rng.normal(500, 10, (40, 150)).astype(np.float32)
    expected = sample_carpet(series[2:], series[2:], labels)["before"]
    series[:2] *= 1.5
    found = sample_carpet(series, series, labels, unsteady=2)["before"]
    np.testing.assert_array_equal(found[:, 2:], expected)


def test_only_slow_drifts_are_filtered() -> None:
    basis = nuisance_basis(motion_regressors(confounds(), "none"), tr=TR, high_pass_s=100)
    slow, fast = oscillation(250), oscillation(40)
    series = (700 + np.column_stack([slow, fast])).astype(np.float32)
    cleaned = regress_out(series, basis)
    assert cleaned[:, 0].std() < 0.15 * slow.std()
    assert cleaned[:, 1].std() > 0.97 * fast.std()
    np.testing.assert_allclose(cleaned.mean(axis=0), series.mean(axis=0), rtol=1e-6)


def test_methods_differ_as_they_say() -> None:
    table = confounds()
    widths = [motion_regressors(table, name).shape[1] for name in ("none", "motion6", "motion24")]  # type: ignore[arg-type]
    assert widths == [0, 6, 24]
    squared = (100 + table[["rot_y_power2"]].to_numpy() * 1e4).astype(np.float32)
    left = [
        regress_out(
            squared,
            nuisance_basis(motion_regressors(table, name), tr=TR, high_pass_s=0),  # type: ignore[arg-type]
        ).std()
        for name in ("none", "motion6", "motion24")
    ]
    assert left[0] > left[1] > 100 * left[2]
    assert not np.isnan(motion_regressors(table, "motion24")).any()  # n/a in row 0 became 0


def test_repeated_and_constant_regressors_do_no_harm() -> None:
    motion = confounds()[list(MOTION_NAMES)].to_numpy()
    plain = nuisance_basis(motion, tr=TR, high_pass_s=100)
    spoilt = np.hstack([motion, motion[:, :3] * 7, np.full((COUNT, 2), 3.0), np.zeros((COUNT, 1))])
    basis = nuisance_basis(spoilt, tr=TR, high_pass_s=100)
    assert basis.shape == plain.shape
    series = np.random.default_rng(0).normal(500, 9, (COUNT, 5)).astype(np.float32)
    np.testing.assert_allclose(regress_out(series, basis), regress_out(series, plain), atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    voxels=st.integers(1, 30), regressors=st.integers(0, 12), cutoff=st.sampled_from([0, 60, 200])
)
def test_residuals_are_orthogonal_to_every_regressor(
    voxels: int, regressors: int, cutoff: float
) -> None:
    rng = np.random.default_rng(voxels)
    motion = rng.normal(0, 10.0 ** rng.integers(-6, 3, regressors), (90, regressors))
    series = rng.normal(300, 5, (90, voxels)).astype(np.float32)
    basis = nuisance_basis(motion, tr=2.0, high_pass_s=cutoff)
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-9)
    cleaned = regress_out(series, basis).astype(float)
    centered = cleaned - cleaned.mean(axis=0)
    for column in (motion - motion.mean(axis=0)).T:
        assert np.abs(column / np.linalg.norm(column) @ centered).max() < 0.01
    np.testing.assert_allclose(cleaned.mean(axis=0), series.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(regress_out(cleaned.astype(np.float32), basis), cleaned, atol=1e-3)


def test_constant_voxels_stay_exactly() -> None:
    series = np.full((COUNT, 2), 123.4567, np.float32)
    basis = nuisance_basis(motion_regressors(confounds(), "motion24"), tr=TR, high_pass_s=100)
    np.testing.assert_array_equal(regress_out(series, basis), series)


@pytest.mark.parametrize(("volumes", "rank"), [(40, 33), (30, 21), (15, 6)])
def test_too_few_volumes_are_refused(volumes: int, rank: int) -> None:
    with pytest.raises(DataError, match=f"{volumes - rank} degrees of freedom"):
        check_freedom(volumes, rank, "bold.nii.gz")


def test_enough_volumes_pass() -> None:
    check_freedom(220, 33, "bold.nii.gz")
    check_freedom(50, 40, "bold.nii.gz")


def test_carpet_is_sorted_small_and_in_units_of_before() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 5000).astype(np.int8)
    before = rng.normal(500, 10, (30, 5000)).astype(np.float32)
    before[:, np.flatnonzero(labels == 3)[-1]] = 7  # constant: cannot be shown
    after = (before - before.mean(axis=0)) / 2 + before.mean(axis=0)
    carpet = sample_carpet(before, after, labels)
    assert carpet["before"].shape == (1200, 30) and carpet["before"].dtype == np.float16
    assert carpet["tissue"].dtype == np.int8
    values, counts = np.unique(carpet["tissue"], return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == ROWS
    assert (np.diff(carpet["tissue"]) >= 0).all()
    np.testing.assert_allclose(carpet["before"].astype(float).std(axis=1), 1, atol=2e-3)
    np.testing.assert_allclose(carpet["after"].astype(float).std(axis=1), 0.5, atol=2e-3)
    few = sample_carpet(before[:, -50:], after[:, -50:], labels[-50:])
    constant = int((before[:, -50:].std(axis=0) == 0).sum())
    assert len(few["tissue"]) == (labels[-50:] > 0).sum() - constant


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A small moving run without T1w, brought through every stage up to denoising."""
    root = tmp_path_factory.mktemp("chain")
    shape = (31, 37, 31)
    params = np.random.default_rng(0).normal(0, [0.3] * 3 + [0.005] * 3, (60, 6))
    run, affine = moving_run(params, affine=centered_affine(shape, 6.0), shape=shape)
    study, identifier = make_study(root, run, affine, tr=3.1)  # 186 s: three cosines, not two
    for verb in ("motion", "normalize-bold", "resample", "confounds", "denoise"):
        brainlm(verb, identifier, "--study", study)
    return study, identifier


def test_chain_of_stages_removes_motion(chain: tuple[Path, str]) -> None:
    study, identifier = chain
    func = study / "derivatives/brainlm/sub-01/func"
    grid = f"{identifier}_space-MNI152NLin2009aSym_res-4"
    mask = read_image(func / f"{grid}_desc-brain_mask.nii.gz").data > 0
    before = open_series(func / f"{grid}_desc-preproc_bold.nii.gz")
    after = open_series(func / f"{grid}_desc-denoised_bold.nii.gz")
    assert before.shape == after.shape == (*mask.shape, 60)
    np.testing.assert_allclose(before.affine, after.affine)
    one, other = before.in_mask(mask), after.in_mask(mask)
    np.testing.assert_allclose(other.mean(axis=0), one.mean(axis=0), rtol=1e-4)
    assert variance_removed(one, other) > 0.3
    outside = next(iter(after.volumes()))[~mask]
    assert (outside == 0).all()
    table = pd.read_csv(
        func / f"{identifier}_desc-confounds_timeseries.tsv", sep="\t", na_values="n/a"
    )
    assert len(table) == 60
    assert table.filter(regex="^cosine").shape[1] == 3
    assert after.header.get_zooms() == pytest.approx((4, 4, 4, 3.1))
    carpet = load_file(func / f"{grid}_desc-carpet_bold.safetensors")
    assert carpet["before"].shape == carpet["after"].shape == (len(carpet["tissue"]), 60)
    sidecar = json.loads((func / f"{grid}_desc-denoised_bold.json").read_text())
    assert sidecar["Regressors"] == 1 + 3 + 24
    assert sidecar["DegreesOfFreedom"] + sidecar["Regressors"] == 60
    assert len(sidecar["Sources"]) == 3


def test_chain_again_gives_the_same_bytes(chain: tuple[Path, str]) -> None:
    study, identifier = chain
    first = bytes_below(study / "derivatives")
    brainlm("resample", identifier, "--study", study, "--threads", "2")
    brainlm("denoise", identifier, "--study", study)
    assert bytes_below(study / "derivatives") == first


def test_tombstones_are_passed_on_and_files_of_others_refused(chain: tuple[Path, str]) -> None:
    study, identifier = chain
    func = study / "derivatives/brainlm/sub-01/func"
    confounds_file = func / f"{identifier}_desc-confounds_timeseries.tsv"
    sidecar = confounds_file.with_suffix(".json")
    content, about = confounds_file.read_bytes(), sidecar.read_text()
    sidecar.write_text(about.replace('"sub": "01"', '"sub": "02"'))
    assert "not of" in brainlm("denoise", identifier, "--study", study, code=3)
    denoised = func / f"{identifier}_space-MNI152NLin2009aSym_res-4_desc-denoised_bold.nii.gz"
    sidecar.unlink()  # or not visible yet on a network file system: not the recording's fault
    assert "no sidecar" in brainlm(
        "denoise", identifier, "--study", study, "--on-data-error", "record", code=1
    )
    assert denoised.stat().st_size > 0
    assert not (study / "qc/failures" / f"{identifier}.json").exists()
    sidecar.write_text(about)
    confounds_file.write_bytes(b"")
    brainlm("denoise", identifier, "--study", study, "--on-data-error", "record")
    assert denoised.stat().st_size == 0
    confounds_file.write_bytes(content)
    sidecar.write_text(about)
