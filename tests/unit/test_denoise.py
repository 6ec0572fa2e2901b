from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from brainlm.config import Config, Denoise
from brainlm.denoise.carpet import ROWS, carpet_voxels, make_carpet
from brainlm.denoise.design import Design, check_freedom, make_design, orthonormal
from brainlm.denoise.filters import fast_cosines
from brainlm.denoise.regression import clean
from brainlm.denoise.regressors import nuisance_columns
from brainlm.errors import DataError
from brainlm.geometry import MOTION_NAMES
from brainlm.images import read_image
from brainlm.preproc.confounds import expand
from brainlm.preproc.steady_state import spikes
from brainlm.series import open_series
from brainlm.temporal import cosine_drifts

from .synthetic_head import brainlm, bytes_below, centered_affine, make_study, moving_run

COUNT, TR = 200, 2.0


def confounds(seed: int = 0, count: int = COUNT) -> pd.DataFrame:
    """A table of confounds with every column that a method names; FD is 0.1 mm throughout."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 0.05, (count, 6)).cumsum(axis=0)
    signals = rng.normal(0, 5, (count, 3)) + 500
    table = pd.concat(
        [
            expand(pd.DataFrame(steps, columns=list(MOTION_NAMES))),
            expand(pd.DataFrame(signals, columns=["global_signal", "csf", "white_matter"])),
        ],
        axis=1,
    )
    for tissue in "acwt":
        for number in range(7):
            table[f"{tissue}_comp_cor_{number:02d}"] = rng.standard_normal(count)
    table["framewise_displacement"] = np.where(np.arange(count), 0.1, np.nan)
    table["std_dvars"] = np.where(np.arange(count), 1.0, np.nan)
    return table


def design(table: pd.DataFrame, **options: object) -> Design:
    full = Denoise(**options).model_dump(mode="json")  # type: ignore[arg-type]
    return make_design(table, tr=TR, options=full, file=Path("bold.nii.gz"))


def cleaned(series: np.ndarray, table: pd.DataFrame, **options: object) -> np.ndarray:
    result = series.astype(np.float32)
    clean(result, design(table, **options))
    return result


def oscillation(period_s: float, phase: float = 0) -> np.ndarray:
    return np.sin(2 * np.pi * np.arange(COUNT) * TR / period_s + phase)


def test_planted_noise_goes_and_planted_signal_stays() -> None:
    table = confounds()
    plan = design(table, method="motion24")
    rng = np.random.default_rng(1)
    signal = rng.standard_normal(COUNT)
    signal -= plan.basis @ (plan.basis.T @ signal)  # orthogonal: nothing of it may be lost
    artefact = (
        30 * table["rot_x"] / table["rot_x"].std()
        + 20 * table["trans_z_power2"] / table["trans_z_power2"].std()
        + 40 * np.linspace(-1, 1, COUNT)
    ).to_numpy()
    series = ((900 + 5 * signal + artefact)[:, None] + np.zeros((1, 3))).astype(np.float32)
    mean = series.mean()
    assert np.corrcoef(series[:, 0], signal)[0, 1] < 0.3
    removed = clean(series, plan)
    drift_left = 40 * np.linspace(-1, 1, COUNT)
    drift_left -= plan.basis @ (plan.basis.T @ drift_left)  # a line is not quite cosines
    np.testing.assert_allclose(series[:, 0], mean + 5 * signal + drift_left, atol=0.01)
    assert np.corrcoef(series[:, 0], signal)[0, 1] > 0.98
    assert removed > 0.95


@pytest.mark.parametrize("high_pass", ["cosine", "gaussian"])
def test_volumes_before_the_steady_state_do_not_bend_the_fit(high_pass: str) -> None:
    """The rest of the run comes out as if those volumes held anything else."""
    table = confounds().assign(**spikes(3, COUNT))
    rng = np.random.default_rng(4)
    quiet = (900 + rng.normal(0, 5, (COUNT, 6))).astype(np.float32)
    bright = quiet.copy()
    bright[:3] *= np.array([1.6, 1.4, 1.2], np.float32)[:, None]
    expected = cleaned(quiet, table, high_pass=high_pass)
    found = cleaned(bright, table, high_pass=high_pass)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found[:3], np.tile(bright[3:].mean(axis=0), (3, 1)), rtol=1e-5)
    bent = cleaned(bright, confounds(), high_pass=high_pass)
    assert np.abs(bent[3:] - expected[3:]).max() > 5


def test_carpet_is_not_made_pale_by_settling_volumes() -> None:
    rng = np.random.default_rng(5)
    labels = np.repeat([1, 2, 3], 50).astype(np.int8)
    series = rng.normal(500, 10, (40, 150)).astype(np.float32)
    expected = make_carpet(series[2:], series[2:], labels, np.ones(38, bool))["before"]
    series[:2] *= 1.5
    found = make_carpet(series, series, labels, np.arange(40) >= 2)["before"]
    np.testing.assert_array_equal(found[:, 2:], expected)


def test_only_slow_drifts_are_filtered() -> None:
    slow, fast = oscillation(250), oscillation(40)
    series = (700 + np.column_stack([slow, fast])).astype(np.float32)
    left = cleaned(series, confounds(), method="none")
    assert left[:, 0].std() < 0.15 * slow.std()
    assert left[:, 1].std() > 0.97 * fast.std()
    np.testing.assert_allclose(left.mean(axis=0), series.mean(axis=0), rtol=1e-6)


def test_methods_differ_as_they_say() -> None:
    table = confounds()
    widths = {
        name: nuisance_columns(table, name).shape[1]  # type: ignore[arg-type]
        for name in ("none", "motion6", "motion24", "36p", "acompcor")
    }
    assert widths == {"none": 0, "motion6": 6, "motion24": 24, "36p": 36, "acompcor": 34}
    names = set(nuisance_columns(table, "36p"))
    assert {"csf_derivative1_power2", "global_signal", "white_matter_power2"} < names
    assert {"c_comp_cor_04", "w_comp_cor_00"} < set(nuisance_columns(table, "acompcor"))
    squared = (100 + table[["rot_y_power2"]].to_numpy() * 1e4).astype(np.float32)
    left = [
        cleaned(squared, table, method=name, high_pass_s=0).std()
        for name in ("none", "motion6", "motion24")
    ]
    assert left[0] > left[1] > 100 * left[2]
    assert not nuisance_columns(table, "36p").isna().any(axis=None)  # n/a in row 0 became 0


def test_repeated_and_constant_regressors_do_no_harm() -> None:
    motion = confounds()[list(MOTION_NAMES)].to_numpy()
    spoilt = np.hstack([motion, motion[:, :3] * 7, np.full((COUNT, 2), 3.0), np.zeros((COUNT, 1))])
    one = np.ones((COUNT, 1))
    plain, other = orthonormal(np.hstack([one, motion])), orthonormal(np.hstack([one, spoilt]))
    assert plain.shape == other.shape == (COUNT, 7)
    np.testing.assert_allclose(plain @ plain.T, other @ other.T, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    voxels=st.integers(1, 30),
    method=st.sampled_from(["none", "motion6", "motion24", "36p"]),
    high_pass=st.sampled_from(["cosine", "gaussian"]),
    cutoffs=st.sampled_from([(0, 0), (60, 0), (200, 0), (100, 5), (0, 6)]),
    scrub=st.sampled_from(["off", "censor", "interpolate"]),
)
def test_residuals_are_orthogonal_to_what_was_fitted(
    voxels: int, method: str, high_pass: str, cutoffs: tuple[float, float], scrub: str
) -> None:
    """To the confounds after their own filtering, to every filtered cosine and to a constant."""
    rng = np.random.default_rng(voxels)
    table = confounds(voxels)
    table.loc[[40, 41, 120], "framewise_displacement"] = 2.0
    plan = design(
        table,
        method=method,
        high_pass=high_pass,
        high_pass_s=cutoffs[0],
        low_pass_s=cutoffs[1],
        scrub=scrub,
    )
    np.testing.assert_allclose(plan.basis.T @ plan.basis, np.eye(plan.basis.shape[1]), atol=1e-9)
    before = rng.normal(300, 5, (COUNT, voxels)).astype(np.float32)
    after = before.copy()
    clean(after, plan)
    left = after[plan.kept].astype(float)
    np.testing.assert_allclose(left.mean(axis=0), before[plan.kept].mean(axis=0), rtol=1e-5)
    left -= left.mean(axis=0)
    columns = nuisance_columns(table, method).to_numpy()[plan.kept]  # type: ignore[arg-type]
    columns = (columns - columns.mean(axis=0)) / (columns.std(axis=0) + 1e-12)
    if plan.trend is not None:
        columns = columns - plan.trend @ columns
    else:
        columns = np.hstack([columns, cosine_drifts(COUNT, TR, cutoffs[0])[plan.kept]])
    columns = np.hstack([columns, fast_cosines(COUNT, TR, cutoffs[1])[plan.kept]])
    if columns.size:
        assert np.abs(columns.T @ left).max() < 0.01 * np.linalg.norm(columns, axis=0).max()


def test_constant_voxels_stay_exactly() -> None:
    series = np.full((COUNT, 2), 123.4567, np.float32)
    for high_pass in ("cosine", "gaussian"):
        np.testing.assert_array_equal(cleaned(series, confounds(), high_pass=high_pass), series)


def test_results_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    series = np.random.default_rng(0).normal(500, 9, (COUNT, 50)).astype(np.float32)
    options = {"high_pass": "gaussian", "low_pass_s": 8, "scrub": "interpolate"}
    table = confounds()
    table.loc[50:53, "framewise_displacement"] = 1.0
    whole = cleaned(series, table, **options)
    monkeypatch.setattr("brainlm.denoise.regression._BLOCK", 7)
    np.testing.assert_allclose(cleaned(series, table, **options), whole, atol=1e-3)


@pytest.mark.parametrize(("volumes", "left"), [(40, 7), (30, 9), (15, 9), (100, 19)])
def test_too_few_volumes_are_refused(volumes: int, left: int) -> None:
    with pytest.raises(DataError, match=f"{left} degrees of freedom"):
        check_freedom(volumes, left, Path("bold.nii.gz"))


def test_enough_volumes_pass() -> None:
    check_freedom(220, 187, Path("bold.nii.gz"))
    check_freedom(50, 10, Path("bold.nii.gz"))
    check_freedom(490, 41, Path("bold.nii.gz"), fast=417)


def test_freedom_counts_every_column_and_the_running_line() -> None:
    table = confounds()
    band = design(table, method="motion24", low_pass_s=10)
    slow, fast = cosine_drifts(COUNT, TR, 100), fast_cosines(COUNT, TR, 10)
    assert (band.drifts, band.fast) == (slow.shape[1], fast.shape[1]) == (8, 119)
    assert band.freedom == COUNT - 1 - 8 - 119 - 24
    line = design(table, high_pass="gaussian", method="motion6")
    impulses = np.eye(COUNT, dtype=np.float32)
    clean(impulses, line)  # the trace of what maps series to residuals (and the mean back)
    assert line.freedom == pytest.approx(np.trace(impulses.astype(float)) - 1, abs=1e-3)
    with pytest.raises(DataError) as caught:
        design(table, method="36p", low_pass_s=40)
    assert "denoise.low_pass_s: 0" in str(caught.value)


def test_carpet_is_sorted_small_and_in_units_of_before() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 5000).astype(np.int8)
    before = rng.normal(500, 10, (30, 5000)).astype(np.float32)
    constant = np.flatnonzero(labels == 3)[-1]
    before[:, constant] = 7  # cannot be shown
    after = (before - before.mean(axis=0)) / 2 + before.mean(axis=0)
    every = np.ones(30, bool)
    shown = carpet_voxels(before, labels, every)
    assert constant not in shown
    carpet = make_carpet(before[:, shown], after[:, shown], labels[shown], every)
    assert carpet["before"].shape == (1200, 30) and carpet["before"].dtype == np.float16
    assert carpet["tissue"].dtype == np.int8
    values, counts = np.unique(carpet["tissue"], return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == ROWS
    assert (np.diff(carpet["tissue"]) >= 0).all()
    np.testing.assert_allclose(carpet["before"].astype(float).std(axis=1), 1, atol=2e-3)
    np.testing.assert_allclose(carpet["after"].astype(float).std(axis=1), 0.5, atol=2e-3)
    few = carpet_voxels(before[:, -50:], labels[-50:], every)
    still = (before[:, -50:].std(axis=0) == 0).sum()
    assert len(few) == (labels[-50:] > 0).sum() - still


def test_acompcor_without_components_and_bands_without_width_are_refused() -> None:
    with pytest.raises(ValueError, match="compcor_components above 0"):
        Config(denoise={"method": "acompcor"}, confounds={"compcor_components": 0})
    with pytest.raises(ValueError, match="leave a band"):
        Denoise(high_pass_s=100, low_pass_s=100)
    assert Denoise(scrub=False).scrub == "off"  # how YAML reads a bare off


CONFIG = """
space: {resolution_mm: 4}
normalize: {resolution_mm: 4, transform: affine}
denoise: {method: motion24}
"""


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A small moving run without T1w, brought through every stage up to denoising.

    Its 186 s hold three cosines of 100 s and longer, not two.
    """
    root = tmp_path_factory.mktemp("chain")
    shape = (31, 37, 31)
    params = np.random.default_rng(0).normal(0, [0.3] * 3 + [0.005] * 3, (60, 6))
    run, affine = moving_run(params, affine=centered_affine(shape, 6.0), shape=shape)
    study, identifier = make_study(root, run, affine, tr=3.1, config=CONFIG)
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
    assert sidecar["VarianceRemoved"] > 0.3
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


def test_gaps_before_the_steady_state_do_no_harm() -> None:
    """fMRIPrep leaves columns without a number where its own fits left volumes out."""
    table = confounds().assign(non_steady_state_outlier00=np.eye(1, COUNT)[0])
    table.loc[0, "csf"] = np.nan
    how = nuisance_columns(table, "36p")
    assert np.isfinite(how.to_numpy()).all()
    table.loc[1, "csf"] = np.nan
    with pytest.raises(DataError, match="csf of the confounds has no number for volume 1"):
        nuisance_columns(table, "36p")
