from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nilearn.interfaces.fmriprep import load_confounds

from brainlm.geometry import MOTION_NAMES
from brainlm.layout import Study
from brainlm.preproc.compcor import compcor_columns, leading_components, most_variable
from brainlm.preproc.confounds import confounds_table
from brainlm.preproc.steady_state import spikes
from brainlm.temporal import cosine_drifts

TR, COUNT = 2.0, 150
DRIFTS = cosine_drifts(COUNT, TR, 100.0)
VOXELS = {"csf": np.arange(60), "white_matter": np.arange(60, 300)}


def oscillation(hertz: float, phase: float = 0.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * TR * np.arange(COUNT) + phase)


def noisy(voxels: int = 1000, seed: int = 0) -> np.ndarray:
    """Voxels (T, n) of unequal level and noise, with drifts far larger than either."""
    rng = np.random.default_rng(seed)
    level, spread = rng.uniform(300, 1200, voxels), rng.uniform(3, 9, voxels)
    drift = DRIFTS @ rng.normal(0, 400, (DRIFTS.shape[1], voxels))
    return (level + drift + spread * rng.standard_normal((COUNT, voxels))).astype(np.float32)


def by_svd(series: np.ndarray, trend: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Another way: ordinary least squares, `std`, the singular vectors of T x voxels."""
    values = series.astype(float)
    design = np.column_stack([np.ones(len(values)), trend])
    values -= design @ np.linalg.lstsq(design, values, rcond=None)[0]
    left, singular, _ = np.linalg.svd(values / values.std(axis=0), full_matrices=False)
    return left, singular


@pytest.mark.parametrize("unsteady", [0, 4])
def test_components_are_the_singular_vectors(unsteady: int) -> None:
    rng = np.random.default_rng(1)
    series = noisy()
    for strength, frequency in ((30, 0.11), (20, 0.07), (12, 0.19)):
        series[:, :300] += strength * oscillation(frequency)[:, None] * rng.standard_normal(300)
    series[:unsteady] *= 1.4
    columns, about = compcor_columns(series, VOXELS, DRIFTS, unsteady=unsteady, most=6)
    spread = series[unsteady:].astype(float)
    spread -= spread.mean(axis=0)
    design = np.column_stack([np.ones(COUNT), DRIFTS])[unsteady:]
    spread -= design @ np.linalg.lstsq(design, spread, rcond=None)[0]
    sets = {
        "a": np.arange(300),
        "c": VOXELS["csf"],
        "w": VOXELS["white_matter"],
        "t": np.argsort(spread.std(axis=0))[-20:],  # 2% of 1000
    }
    for prefix, voxels in sets.items():
        left, singular = by_svd(series[unsteady:, voxels], DRIFTS[unsteady:])
        share = singular**2 / (singular**2).sum()
        names = [name for name in columns if name.startswith(prefix)]
        half = int(np.argmax(np.cumsum(share) >= 0.5)) + 1
        assert names == [f"{prefix}_comp_cor_{number:02d}" for number in range(min(half, 6))]
        for number, name in enumerate(names):
            found = columns[name]
            assert (found[:unsteady] == 0).all()
            assert found[np.abs(found).argmax()] > 0
            expected = left[:, number] * np.sign(left[:, number] @ found[unsteady:])
            np.testing.assert_allclose(found[unsteady:], expected, atol=1e-6)
            assert about[name]["SingularValue"] == pytest.approx(singular[number], rel=1e-6)
            assert about[name]["VarianceExplained"] == pytest.approx(share[number], rel=1e-6)
            assert about[name]["CumulativeVarianceExplained"] == pytest.approx(
                share[: number + 1].sum(), rel=1e-6
            )
            assert about[name]["Retained"] is True
        methods = {(about[name]["Method"], about[name].get("Mask")) for name in names}
        tissue = {"a": "combined", "c": "CSF", "w": "WM"}.get(prefix)
        assert methods == {("aCompCor" if tissue else "tCompCor", tissue)}


def test_components_are_orthogonal_to_drifts_mean_and_each_other() -> None:
    series = noisy(seed=2)
    columns, _ = compcor_columns(series, VOXELS, DRIFTS, unsteady=3, most=8)
    fixed = np.column_stack([np.ones(COUNT) / np.sqrt(COUNT), DRIFTS])
    for prefix in "acwt":
        found = np.column_stack([values for name, values in columns.items() if name[0] == prefix])
        assert found.shape[1] > 3
        assert np.abs(fixed.T @ found).max() < 1e-10
        np.testing.assert_allclose(found.T @ found, np.eye(found.shape[1]), atol=1e-10)


def test_planted_physiology_is_found() -> None:
    rng = np.random.default_rng(3)
    series = noisy(seed=3)
    breath, heart = oscillation(0.23), oscillation(0.17, 1.0)
    series[:, :60] += 5 * breath[:, None] * rng.uniform(0.5, 1.5, 60)
    series[:, 60:300] += 5 * heart[:, None] * rng.uniform(0.5, 1.5, 240)
    columns, _ = compcor_columns(series, VOXELS, DRIFTS, unsteady=0, most=5)
    assert abs(np.corrcoef(columns["c_comp_cor_00"], breath)[0, 1]) > 0.95
    assert abs(np.corrcoef(columns["w_comp_cor_00"], heart)[0, 1]) > 0.95
    both = np.column_stack([columns["a_comp_cor_00"], columns["a_comp_cor_01"]])
    for planted in (breath, heart):
        centered = planted - planted.mean()
        assert np.linalg.norm(both.T @ centered) / np.linalg.norm(centered) > 0.95


def test_temporal_compcor_finds_the_voxels_that_pulsate() -> None:
    series = noisy(seed=4)
    pulse = oscillation(0.21)
    vessels = np.array([3, 77, 400, 555, 812, 990])
    series[:, vessels] += 60 * pulse[:, None]
    basis = np.linalg.qr(np.column_stack([np.ones(COUNT), DRIFTS]))[0]
    chosen = most_variable(series, basis)
    assert len(chosen) == 20 and set(vessels) <= set(chosen)
    columns, _ = compcor_columns(series, VOXELS, DRIFTS, unsteady=0, most=5)
    assert abs(np.corrcoef(columns["t_comp_cor_00"], pulse)[0, 1]) > 0.95


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    series, voxels = noisy(seed=5), np.arange(0, 900, 3)
    basis = np.full((COUNT, 1), COUNT**-0.5)
    whole = leading_components(series, voxels, basis, most=4)
    chosen = most_variable(series, basis)
    monkeypatch.setattr("brainlm.preproc.compcor._BLOCK", 37)
    pieces = leading_components(series, voxels, basis, most=4)
    np.testing.assert_allclose(pieces.series, whole.series, atol=1e-9)
    np.testing.assert_array_equal(most_variable(series, basis), chosen)


@pytest.mark.parametrize("volumes", [1, 2, 5, 6, 9, 40])
@pytest.mark.parametrize("size", [0, 1, 3])
def test_little_data_gives_fewer_columns(volumes: int, size: int) -> None:
    drifts = cosine_drifts(volumes, TR, 6.0)
    series = noisy(50)[:volumes]
    few = {"csf": np.arange(size), "white_matter": np.arange(3, 3 + size)}
    columns, about = compcor_columns(series, few, drifts, unsteady=0, most=10)
    assert list(columns) == list(about)
    assert all(np.isfinite(values).all() and len(values) == volumes for values in columns.values())
    free = max(0, volumes - 1 - drifts.shape[1])
    for prefix, voxels in {"c": size, "w": size, "a": len(np.union1d(*few.values()))}.items():
        assert sum(name.startswith(prefix) for name in columns) <= min(voxels, free)


def test_constant_voxels_and_none_wanted_give_no_columns() -> None:
    flat = np.full((COUNT, 300), 812.3, np.float32)
    assert compcor_columns(flat, VOXELS, DRIFTS, unsteady=0, most=5) == ({}, {})
    assert compcor_columns(noisy(), VOXELS, DRIFTS, unsteady=0, most=0) == ({}, {})
    series = noisy()
    series[:, 10:20] = 5  # some constant ones do no harm
    columns, _ = compcor_columns(series, VOXELS, DRIFTS, unsteady=0, most=5)
    assert all(np.isfinite(values).all() for values in columns.values())


@pytest.fixture
def derivatives(tmp_path: Path) -> tuple[str, pd.DataFrame]:
    """A table and its sidecar where the study has them, beside the (unread) series."""
    fields = {
        "folder": "sub-01",
        "recording": "sub-01_task-rest_run-1",
        "space": "MNI152NLin2009aSym",
        "res": "2",
    }
    series = noisy(seed=6)
    series[:2] *= 1.3
    motion = pd.DataFrame(
        np.random.default_rng(6).normal(0, 0.05, (COUNT, 6)), columns=list(MOTION_NAMES)
    )
    motion["framewise_displacement"] = [np.nan, *np.full(COUNT - 1, 0.1)]
    motion.loc[60, "framewise_displacement"] = 0.9
    motion["rmsd"] = motion["framewise_displacement"] / 2
    table, about = confounds_table(
        series,
        motion.assign(**spikes(2, COUNT)),
        VOXELS,
        tr=TR,
        fd_threshold_mm=0.5,
        dvars_threshold=1.5,
        high_pass_s=100.0,
        compcor_components=7,
    )
    study = Study(tmp_path)
    image = study.path("preproc_bold", **fields)
    image.parent.mkdir(parents=True)
    image.touch()
    file = study.path("confounds", **fields)
    table.to_csv(file, sep="\t", index=False, na_rep="n/a", float_format="%.8g")
    others = {"Parameters": {"confounds": {"compcor_components": 7}}, "Stage": "confounds"}
    file.with_suffix(".json").write_text(json.dumps({**about, **others}))
    return str(image), table


@pytest.mark.parametrize(
    ("compcor", "n_compcor", "prefixes"),
    [
        ("anat_combined", "all", {"a": 7}),
        ("anat_combined", 5, {"a": 5}),
        ("anat_separated", 3, {"c": 3, "w": 3}),
        ("temporal", "all", {"t": 7}),
        ("temporal_anat_combined", 2, {"t": 2, "a": 2}),
    ],
)
def test_nilearn_reads_the_table_where_it_lies(
    derivatives: tuple[str, pd.DataFrame],
    compcor: str,
    n_compcor: int | str,
    prefixes: dict[str, int],
) -> None:
    image, table = derivatives
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, kept = load_confounds(
            image,
            strategy=("motion", "high_pass", "wm_csf", "global_signal", "compcor", "scrub"),
            motion="full",
            wm_csf="full",
            global_signal="full",
            compcor=compcor,
            n_compcor=n_compcor,
            scrub=0,
            fd_threshold=0.5,
            std_dvars_threshold=1e9,
            demean=False,
        )
    components = {
        f"{prefix}_comp_cor_{number:02d}"
        for prefix, count in prefixes.items()
        for number in range(count)
    }
    assert {name for name in found if "comp_cor" in name} == components
    assert len(found.columns) == 24 + 12 + DRIFTS.shape[1] + len(components)
    assert sorted(set(range(COUNT)) - set(kept)) == [0, 1, 60]
    for name in components:
        np.testing.assert_allclose(found[name], table[name], atol=1e-7)
