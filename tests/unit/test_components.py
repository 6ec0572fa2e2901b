"""Noise components in the design of denoising: what goes, what stays; and their table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainlm.config import Denoise
from brainlm.denoise.components import (
    check_same_components,
    classified,
    component_names,
    read_mixing,
    read_noise,
    search_settled,
)
from brainlm.denoise.design import Design, Noise, make_design
from brainlm.denoise.judge import write_metrics
from brainlm.denoise.regression import clean
from brainlm.errors import DataError, InputError

from .test_denoise import COUNT, TR, confounds


def parts(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A noise and a signal course (T,) that have a third of their variance in common."""
    rng = np.random.default_rng(seed)
    noise, signal, both = rng.standard_normal((3, COUNT))
    return noise + 0.7 * both, signal + 0.7 * both


def design(aroma: str, *, extra: int = 0, **change: object) -> Design:
    noise, signal = parts()
    rng = np.random.default_rng(9)
    mixing = pd.DataFrame(
        np.column_stack([noise, signal, *rng.standard_normal((extra, COUNT))]),
        columns=component_names(2 + extra),
    )
    rejected = np.arange(2 + extra) == 0
    return plan(Noise(mixing, rejected), aroma=aroma, **change)


def plan(components: Noise, **change: object) -> Design:
    chosen = {"mean_signals": (), "tissue_components": 0, **change}
    options = Denoise(method="aroma", **chosen).model_dump(mode="json")  # type: ignore[arg-type]
    return make_design(confounds(), tr=TR, options=options, file=Path("x"), components=components)


def left_of(course: np.ndarray, how: Design) -> np.ndarray:
    """What is left, centred, of a voxel that does just this."""
    series = (1000 + 50 * course[:, None]).astype(np.float32)
    clean(series, how)
    return (series[:, 0].astype(float) - series.mean()) / 50


def share(left: np.ndarray, course: np.ndarray) -> float:
    return float((left**2).sum() / ((course - course.mean()) ** 2).sum())


@pytest.mark.parametrize("aroma", ["nonaggressive", "aggressive", "orthogonal"])
@pytest.mark.parametrize("high_pass", ["cosine", "gaussian"])
def test_a_voxel_of_noise_alone_is_emptied(aroma: str, high_pass: str) -> None:
    """All of it by the first two; orthogonalised noise leaves what signal could explain."""
    noise, _ = parts()
    left = share(left_of(noise, design(aroma, high_pass=high_pass)), noise)
    if aroma == "orthogonal":
        assert 0.05 < left < 0.2
    else:
        assert left < 1e-4


def test_a_voxel_of_signal_alone_stays_unless_treated_aggressively() -> None:
    _, signal = parts()
    plain = share(left_of(signal, design("nonaggressive", high_pass_s=0.0)), signal)
    assert plain == pytest.approx(1, abs=1e-3)
    kept = share(left_of(signal, design("orthogonal", high_pass_s=0.0)), signal)
    assert kept == pytest.approx(1, abs=1e-3)
    lost = share(left_of(signal, design("aggressive", high_pass_s=0.0)), signal)
    assert lost == pytest.approx(1 - np.corrcoef(*parts())[0, 1] ** 2, abs=0.01)


@pytest.mark.parametrize("aroma", ["nonaggressive", "aggressive", "orthogonal"])
def test_no_drift_comes_back_with_the_components(aroma: str) -> None:
    how = design(aroma, extra=3)
    series = (1000 + np.random.default_rng(1).normal(0, 30, (COUNT, 5))).astype(np.float32)
    clean(series, how)
    slow = how.basis[:, : 1 + how.drifts] if aroma != "nonaggressive" else how.basis
    centred = series - series.mean(axis=0)
    assert np.abs(slow.T @ centred).max() < 1e-3 * np.linalg.norm(centred, axis=0).max()


@pytest.mark.parametrize("aroma", ["nonaggressive", "aggressive", "orthogonal"])
@pytest.mark.parametrize("high_pass", ["cosine", "gaussian"])
def test_freedom_is_the_trace_of_what_was_done(aroma: str, high_pass: str) -> None:
    how = design(aroma, extra=4, high_pass=high_pass)
    identity = np.eye(COUNT, dtype=np.float64)
    series = (1e4 * identity).astype(np.float32)
    clean(series, how)
    done = (series - series.mean(axis=0)) / 1e4
    assert how.freedom == pytest.approx(np.trace(done), abs=0.05)


def test_no_rejected_component_leaves_the_filter_alone() -> None:
    mixing = pd.DataFrame(np.random.default_rng(0).standard_normal((COUNT, 3)))
    none = Noise(mixing, np.zeros(3, dtype=bool))
    how = plan(none)
    assert how.names == () and how.basis.shape[1] == 1 + how.drifts


@pytest.mark.parametrize("aroma", ["nonaggressive", "aggressive", "orthogonal"])
def test_mean_signals_go_whatever_the_components_say(aroma: str) -> None:
    """As a filter does: wholly, although a component that stays has the same course."""
    csf = confounds()["csf"].to_numpy()
    mixing = pd.DataFrame(np.column_stack([*parts(), csf]))
    noise = Noise(mixing, np.array([True, False, False]))
    assert share(left_of(csf / csf.std(), plan(noise, aroma=aroma)), csf / csf.std()) > 0.8
    how = plan(noise, aroma=aroma, mean_signals="auto")
    assert share(left_of(csf / csf.std(), how), csf / csf.std()) < 1e-4
    assert how.names[-2:] == ("white_matter", "csf")


def test_tissues_come_unasked_only_with_aroma() -> None:
    table = confounds()
    table = table.drop(columns=table.filter(regex="_comp_cor_").columns)
    pairs = [f"{tissue}_comp_cor_{number:02d}" for tissue in "cw" for number in range(3)]
    table = table.assign(**{name: np.random.default_rng(len(name)).random(COUNT) for name in pairs})
    auto = ("white_matter", "csf", *pairs[:2], *pairs[3:5])
    for method, expected in (("none", ()), ("aroma", auto)):
        options = Denoise(method=method).model_dump(mode="json")  # type: ignore[arg-type]
        how = make_design(table, tr=TR, options=options, file=Path("x"))
        assert how.names == expected
    every = ("white_matter", "csf", "global_signal")
    options = Denoise(method="36p", mean_signals=every).model_dump(mode="json")
    assert len(make_design(table, tr=TR, options=options, file=Path("x")).names) == 36
    options = Denoise(method="none", tissue_components=3).model_dump(mode="json")
    assert make_design(table, tr=TR, options=options, file=Path("x")).names == tuple(pairs)
    with pytest.raises(DataError, match="lack c_comp_cor_00"):
        bare = table.drop(columns=table.filter(regex="^c_comp_cor").columns)
        make_design(bare, tr=TR, options=options, file=Path("x"))


def test_components_that_did_not_settle_make_way_for_motion() -> None:
    """As if motion24 had been asked for, and the sidecar says so."""
    noise, signal = parts()
    mixing = pd.DataFrame(np.column_stack([noise, signal]))
    how = plan(Noise(mixing, np.array([True, False]), settled=False))
    options = Denoise(method="motion24").model_dump(mode="json")
    asked = make_design(confounds(), tr=TR, options=options, file=Path("x"))
    np.testing.assert_array_equal(how.basis, asked.basis)
    assert how.about("off")["Fallback"] == "motion24" and "Fallback" not in asked.about("off")


def test_a_table_of_an_unsettled_search_says_so(tmp_path: Path) -> None:
    features = pd.DataFrame(
        {"component": ["ica_000"], "edge_fract": [0.9], "csf_fract": [0.5], "HFC": [0.9]}
    ).assign(max_RP_corr=0.9, variance_explained=0.5)
    for settled in (True, False):
        table = classified(features, settled=settled)
        assert (table["classification"] == "rejected").all() == settled
        write_metrics(tmp_path / "metrics.tsv", table)
        assert search_settled(tmp_path / "metrics.tsv") == settled
        assert read_noise(tmp_path / "metrics.tsv", ["ica_000"]).tolist() == [settled]


def table(tmp_path: Path, **columns: object) -> Path:
    path = tmp_path / "metrics.tsv"
    rows = {"component": component_names(3), "classification": ["accepted", "rejected", "accepted"]}
    pd.DataFrame({**rows, **columns}).to_csv(path, sep="\t", index=False)
    return path


def test_a_table_is_read_by_name_not_by_row(tmp_path: Path) -> None:
    names = component_names(3)
    path = table(tmp_path, component=names[::-1], classification=["rejected", *["accepted"] * 2])
    assert read_noise(path, names).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({"component": ["ica_000", "ica_001", "ica_001"]}, "not those"),
        ({"component": ["ica_000", "ica_001", "ica_009"]}, "not those"),
        ({"classification": ["accepted", "noise", "accepted"]}, "'noise'"),
        ({"classification": ["accepted", None, "accepted"]}, "'nan'"),
    ],
)
def test_a_wrong_table_is_told(tmp_path: Path, columns: dict, word: str) -> None:
    path = table(tmp_path, **columns)
    with pytest.raises(InputError, match=word) as caught:
        read_noise(path, component_names(3))
    assert str(path) in str(caught.value) and "accepted or rejected" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"component\tclassification\nica_000\taccepted\nica_001\taccepted\ta note\n",
        b"\xff\xfe\x00a",
    ],
)
def test_a_file_that_is_no_table_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "metrics.tsv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_noise(path, component_names(3))
    assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) == 3


def test_a_feature_that_is_a_word_is_told(tmp_path: Path) -> None:
    ours = table(tmp_path, HFC=[0.1, 0.2, 0.3]).rename(tmp_path / "ours.tsv")
    with pytest.raises(InputError, match=r"no number: .*high"):
        check_same_components(table(tmp_path, HFC=["0.1", "high", "0.3"]), ours)


def test_a_table_made_of_other_components_is_refused(tmp_path: Path) -> None:
    """After another search the same names stand for others; rounding and order do not matter."""
    measured = {"HFC": [0.1234567, 0.2, 0.61], "edge_fract": [0.3, 0.9, 0.1]}
    ours = table(tmp_path, **measured).rename(tmp_path / "ours.tsv")
    rounded = pd.read_csv(ours, sep="\t").round(2).iloc[::-1]
    rounded.to_csv(tmp_path / "metrics.tsv", sep="\t", index=False)
    check_same_components(tmp_path / "metrics.tsv", ours)
    check_same_components(table(tmp_path), ours)  # without features it is believed
    swapped = {name: [values[1], values[0], values[2]] for name, values in measured.items()}
    with pytest.raises(InputError, match="ica_000 of the run"):
        check_same_components(table(tmp_path, **swapped), ours)


@pytest.mark.parametrize("value", [np.nan, np.inf, "a note"])
def test_courses_with_nan_or_text_are_told(tmp_path: Path, value: object) -> None:
    path = tmp_path / "mixing.tsv"
    pd.DataFrame({"ica_000": [0.1, value]}).to_csv(path, sep="\t", index=False)
    with pytest.raises(DataError, match="NaN"):
        read_mixing(path)


def test_courses_that_are_no_table_are_told(tmp_path: Path) -> None:
    path = tmp_path / "mixing.tsv"
    for content in (b"\xff\x00", b"ica_000\n0.1\n0.2\t0.3\n"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="courses cannot be read") as told:
            read_mixing(path)
        assert str(path) in str(told.value)


def test_components_of_another_length_are_told() -> None:
    mixing = pd.DataFrame(np.ones((COUNT - 1, 2)), columns=component_names(2))
    with pytest.raises(DataError, match=f"have {COUNT - 1} volumes, the run {COUNT}"):
        plan(Noise(mixing, np.array([True, False])))
