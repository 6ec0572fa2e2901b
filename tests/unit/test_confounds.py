from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.geometry import MOTION_NAMES
from brainlm.preproc.confounds import (
    confounds_table,
    dvars,
    expand,
    outlier_volumes,
    tissue_voxels,
)
from brainlm.preproc.steady_state import spikes
from brainlm.temporal import cosine_drifts

from .synthetic_head import tissues


def motion_table(count: int, seed: int = 0) -> pd.DataFrame:
    values = np.random.default_rng(seed).normal(0, 0.1, (count, 6))
    table = pd.DataFrame(values, columns=list(MOTION_NAMES))
    table["framewise_displacement"] = [np.nan, *np.full(count - 1, 0.1)]
    table["rmsd"] = [np.nan, *np.full(count - 1, 0.05)]
    return table


OPTIONS = {
    "tr": 2.0,
    "fd_threshold_mm": 0.5,
    "dvars_threshold": 1.5,
    "high_pass_s": 40.0,
    "compcor_components": 4,
}


def test_dvars_by_the_formula_voxel_by_voxel() -> None:
    rng = np.random.default_rng(0)
    series = (1000 + rng.normal(0, 10, (40, 7)).cumsum(axis=0)).astype(np.float32)
    plain, standardised = dvars(series)
    expected_steps, squares = [], np.zeros(39)
    for voxel in series.T.astype(float):
        ordered = sorted(voxel)
        spread = (ordered[29] - ordered[9]) / 1.349  # lower quartiles of 40: ranks 29 and 9
        mean = sum(voxel) / 40
        lag1 = sum((a - mean) * (b - mean) for a, b in zip(voxel[1:], voxel[:-1], strict=True))
        lag1 /= sum((a - mean) ** 2 for a in voxel)
        expected_steps.append(spread * np.sqrt(2 - 2 * lag1))
        squares += np.diff(voxel) ** 2
    by_hand = np.sqrt(squares / 7)
    assert np.isnan(plain[0]) and np.isnan(standardised[0])
    np.testing.assert_allclose(standardised[1:], by_hand / np.mean(expected_steps), rtol=1e-5)
    scale = 1000 / np.median(series.mean(axis=0))
    np.testing.assert_allclose(plain[1:], by_hand * scale, rtol=1e-5)


def test_standardised_dvars_of_quiet_data_is_one_and_of_a_jerk_is_more() -> None:
    rng = np.random.default_rng(1)
    series = (500 + rng.normal(0, 5, (300, 9000))).astype(np.float32)  # more than one block
    series[:, 17] = 3  # a constant voxel changes nothing
    _, quiet = dvars(series)
    assert np.nanmedian(quiet) == pytest.approx(1, abs=0.02)
    series[100:] += 20  # a step of four standard deviations
    _, jerked = dvars(series)
    assert np.nanargmax(jerked) == 100


def test_dvars_of_constant_data_is_undefined() -> None:
    assert np.isnan(dvars(np.ones((10, 4), np.float32))).all()


def test_dvars_of_a_run_without_a_level_keeps_its_units() -> None:
    """Other pipelines take the mean out: there is nothing to scale to 1000."""
    series = np.random.default_rng(0).normal(0, 10, (60, 300)).astype(np.float32)
    plain, standardised = dvars(series - series.mean(axis=0) + np.float32(1e-3))
    assert np.nanmean(plain) == pytest.approx(10 * np.sqrt(2), rel=0.05)
    assert np.nanmean(standardised) == pytest.approx(1, rel=0.1)


def test_expansion_by_hand() -> None:
    params = pd.DataFrame({"trans_x": [0.0, 1.0, 3.0]})
    table = expand(params)
    np.testing.assert_allclose(table["trans_x_derivative1"], [np.nan, 1, 2])
    np.testing.assert_allclose(table["trans_x_derivative1_power2"], [np.nan, 1, 4])
    np.testing.assert_allclose(table["trans_x_power2"], [0, 1, 9])


def test_table_has_fmriprep_names_and_marks_outliers() -> None:
    rng = np.random.default_rng(2)
    series = (800 + rng.normal(0, 8, (60, 300))).astype(np.float32)
    series[30, :150] += 200
    motion = motion_table(60)
    motion.loc[[10, 45], "framewise_displacement"] = [0.51, 2.0]
    voxels = {"csf": np.arange(5), "white_matter": np.arange(5, 50)}
    table, about = confounds_table(series, motion, voxels, **OPTIONS)
    means = ("global_signal", "csf", "white_matter")
    for name in (*MOTION_NAMES, *means):
        for ending in ("", "_derivative1", "_power2", "_derivative1_power2"):
            assert name + ending in table
    outliers = table.filter(regex="^motion_outlier")
    assert list(outliers.idxmax()) == [10, 30, 31, 45]  # a spike is two large steps
    assert list(outliers.columns) == [f"motion_outlier{number:02d}" for number in range(4)]
    assert (outliers.sum() == 1).all()
    np.testing.assert_allclose(table["csf"], series[:, :5].mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(table["white_matter"], series[:, 5:50].mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(table["global_signal"], series.mean(axis=1), rtol=1e-6)
    assert table.filter(regex="^cosine").shape[1] == 6  # 2 * 120 s / 40 s
    assert list(table.filter(regex="comp_cor")) == list(about)
    assert {name[0] for name in about} == set("acwt")
    np.testing.assert_array_equal(table["rmsd"], motion["rmsd"])
    undefined = [name for name in table if np.isnan(table[name].iloc[0])]
    assert set(undefined) == {
        "framewise_displacement",
        "rmsd",
        "dvars",
        "std_dvars",
        *(f"{n}_derivative1" for n in (*MOTION_NAMES, *means)),
        *(f"{n}_derivative1_power2" for n in (*MOTION_NAMES, *means)),
    }
    assert not table.iloc[1:].isna().any().any()


def test_volumes_before_the_steady_state_do_not_spoil_the_others() -> None:
    rng = np.random.default_rng(3)
    series = (800 + rng.normal(0, 8, (80, 400))).astype(np.float32)
    voxels = {"csf": np.arange(30), "white_matter": np.arange(30, 90)}
    quiet, _ = confounds_table(series, motion_table(80), voxels, **OPTIONS)
    series[:3] *= np.array([1.6, 1.3, 1.2], np.float32)[:, None]
    motion = motion_table(80).assign(**spikes(3, 80))
    table, _ = confounds_table(series, motion, voxels, **OPTIONS)
    marked = table.filter(regex="^non_steady_state_outlier")
    assert list(marked) == [f"non_steady_state_outlier0{number}" for number in range(3)]
    np.testing.assert_array_equal(marked.to_numpy(), np.eye(80)[:, :3])
    np.testing.assert_allclose(table["std_dvars"][4:], quiet["std_dvars"][4:], rtol=0.02)
    assert quiet.filter(regex="^motion_outlier").empty
    assert table.filter(regex="^motion_outlier").empty  # no volume is told of twice
    components = table.filter(regex="comp_cor")
    assert (components[:3] == 0).all().all() and (components[3:] != 0).any().all()


def test_half_keeps_as_many_components_as_explain_half_of_the_variance() -> None:
    """Noise has no leading components: it takes nearly half of them, far above any limit."""
    series = (800 + np.random.default_rng(3).normal(0, 8, (80, 400))).astype(np.float32)
    voxels = {"csf": np.arange(60), "white_matter": np.arange(60, 200)}
    limited, _ = confounds_table(series, motion_table(80), voxels, **OPTIONS)
    assert limited.filter(regex="^[cw]_comp").shape[1] == 2 * 4
    options = {**OPTIONS, "compcor_components": "half"}
    table, about = confounds_table(series, motion_table(80), voxels, **options)
    for tissue in "cw":
        names = list(table.filter(regex=f"^{tissue}_comp_cor"))
        assert len(names) > 10
        *_, before, last = (about[name]["CumulativeVarianceExplained"] for name in names)
        assert before < 0.5 <= last


def test_outliers_after_the_settling_volumes_are_those_that_moved() -> None:
    moved, changed = np.zeros((2, 10), dtype=bool)
    moved[[1, 7]] = changed[[0, 1, 2, 5]] = True
    assert outlier_volumes(moved, changed, unsteady=0).tolist() == [0, 1, 2, 5, 7]
    assert outlier_volumes(moved, changed, unsteady=2).tolist() == [5, 7]
    moved[2] = True
    assert outlier_volumes(moved, changed, unsteady=2).tolist() == [2, 5, 7]


@settings(max_examples=40, deadline=None)
@given(count=st.integers(5, 400), tr=st.floats(0.3, 4.0), period=st.floats(10, 400))
def test_cosines_are_orthonormal_and_slow(count: int, tr: float, period: float) -> None:
    basis = cosine_drifts(count, tr, period)
    k = basis.shape[1]
    np.testing.assert_allclose(basis.T @ basis, np.eye(k), atol=1e-9)
    np.testing.assert_allclose(basis.sum(axis=0), 0, atol=1e-9)
    crossings = (np.diff(np.sign(basis), axis=0) != 0).sum(axis=0) if k else np.array([])
    # Column k crosses zero k times in T tr seconds: half a period each.
    slow_enough = count * tr * 2 / np.arange(1, k + 1) >= period * (1 - 1e-6)
    assert slow_enough.all()
    assert (crossings <= 2 * np.arange(1, k + 1)).all()
    if k < count - 1:
        assert count * tr * 2 / (k + 1) < period


def test_no_high_pass_no_cosines() -> None:
    assert cosine_drifts(50, 2.0, 0).shape == (50, 0)


@pytest.mark.parametrize("zoom", [2.0, 4.0])
def test_tissue_cores_are_where_anatomy_has_them(zoom: float) -> None:
    grid = tissues(zoom)
    voxels = tissue_voxels(grid, grid.brain)
    world = (grid.affine @ np.vstack([np.argwhere(grid.brain).T, np.ones(grid.brain.sum())]))[:3]
    csf, white = voxels["csf"], voxels["white_matter"]
    assert len(csf) >= 20 and len(white) > 10 * len(csf)
    assert not set(csf) & set(white)
    # The ventricles: within 45 mm of the midline's centre, on both sides.
    assert (np.abs(world[0, csf]) < 45).all()
    assert world[0, csf].min() < -5 and world[0, csf].max() > 5
    assert (grid.gm[grid.brain][white] < 0.15).all()
    assert (grid.gm[grid.brain][csf] < 0.15).all()


def test_tissue_cores_survive_a_small_field_of_view() -> None:
    grid = tissues(4.0)
    mask = grid.brain.copy()
    mask[:, :, : mask.shape[2] // 2] = False
    voxels = tissue_voxels(grid, mask)
    assert all(chosen.max(initial=0) < mask.sum() for chosen in voxels.values())
