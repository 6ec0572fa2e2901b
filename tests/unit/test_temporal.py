"""Temporal filters and scrubbing against signals whose fate is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from brainlm.denoise.filters import fast_cosines, running_line, sigma_volumes
from brainlm.denoise.regression import clean
from brainlm.denoise.scrub import filling_weights, spoilt_volumes
from brainlm.errors import DataError
from brainlm.preproc.steady_state import spikes
from brainlm.temporal import cosine_drifts

from .test_denoise import COUNT, TR, cleaned, confounds, design, oscillation


def literal_line(series: np.ndarray, sigma: float) -> np.ndarray:
    """What FSL describes, step by step: a weighted straight line about each volume."""
    fitted = np.empty(len(series))
    for centre in range(len(series)):
        first, last = max(0, centre - int(3 * sigma)), min(len(series) - 1, centre + int(3 * sigma))
        away = np.arange(first, last + 1) - centre
        weight = np.exp(-0.5 * (away / sigma) ** 2)
        line = np.polyfit(away, series[first : last + 1], 1, w=np.sqrt(weight))
        fitted[centre] = line[1]
    return fitted


@pytest.mark.parametrize("sigma", [1.3, 7.0, 25.0, 300.0])
def test_the_running_line_is_the_literal_one(sigma: float) -> None:
    series = np.random.default_rng(0).normal(0, 1, COUNT).cumsum()
    smoother = running_line(np.ones(COUNT, dtype=bool), sigma)
    np.testing.assert_allclose(smoother @ series, literal_line(series, sigma), atol=1e-10)


def test_straight_lines_go_exactly_also_around_gaps() -> None:
    kept = np.ones(COUNT, dtype=bool)
    kept[[0, 1, 30, 31, 32, 33, 34, 199]] = False
    line = 900 + 3.0 * np.arange(COUNT)[kept]
    np.testing.assert_allclose(running_line(kept, 4.0) @ line, line, rtol=1e-12)
    lone = np.zeros(COUNT, dtype=bool)
    lone[[0, 100, 199]] = True
    np.testing.assert_allclose(running_line(lone, 4.0), np.eye(3))


@pytest.mark.parametrize("period_s", [20, 50, 100, 200, 267, 400])
def test_the_gaussian_high_pass_has_the_response_of_its_kernel(period_s: float) -> None:
    """`1 - exp(-2 pi^2 (sigma / period)^2)`: 0.99 at the cut-off of 100 s, half at 267 s."""
    count = 1200
    sigma = sigma_volumes(100, TR)
    assert sigma == 25
    time = np.arange(count) * TR
    smoother = running_line(np.ones(count, dtype=bool), sigma)
    middle = slice(400, 800)
    wave = np.exp(2j * np.pi * time / period_s)
    found = ((wave - smoother @ wave) / wave)[middle].real.mean()
    expected = 1 - np.exp(-2 * np.pi**2 * (50 / period_s) ** 2)
    assert found == pytest.approx(expected, abs=0.02)
    if period_s == 267:
        assert found == pytest.approx(0.5, abs=0.02)


def test_slow_fast_and_constant_are_a_basis_of_everything() -> None:
    columns = np.hstack(
        [
            np.full((COUNT, 1), COUNT**-0.5),
            cosine_drifts(COUNT, TR, 33),
            fast_cosines(COUNT, TR, 33),
        ]
    )
    np.testing.assert_allclose(columns.T @ columns, np.eye(COUNT), atol=1e-10)
    assert fast_cosines(COUNT, TR, 0).shape == fast_cosines(COUNT, TR, 3.9).shape == (COUNT, 0)


@pytest.mark.parametrize("high_pass", ["cosine", "gaussian"])
@pytest.mark.parametrize("phase", [0.0, 1.1])
def test_the_band_passes_and_the_rest_does_not(high_pass: str, phase: float) -> None:
    """0.01 to 0.1 Hz. Well inside, less than 5% of the amplitude is lost; well outside, more than
    95% of it, but for the ends, where cosines meet the run's mirror image with a kink."""
    waves = {20: True, 40: True, 4.4: False, 6.0: False, 1200: False}
    series = 700 + 10 * np.column_stack([oscillation(period, phase) for period in waves])
    left = cleaned(series, confounds(), method="none", high_pass=high_pass, low_pass_s=10)
    left, series = left - left.mean(axis=0), series - series.mean(axis=0)
    middle = slice(COUNT // 4, -COUNT // 4)
    share = left[middle].std(axis=0) / series[middle].std(axis=0)
    for part, (period, passes) in zip(share, waves.items(), strict=True):
        assert part > 0.95 if passes else part < 0.05, (period, part)
    variance = left.var(axis=0) / series.var(axis=0)
    assert ((variance > 0.95) == list(waves.values())).all()
    assert (variance[2:] < 0.01).all()


def test_nothing_filtered_comes_back_with_the_regressors() -> None:
    """Motion parameters full of drift, regressed after filtering, would bring drift back."""
    table = confounds()
    time = np.arange(COUNT)
    rng = np.random.default_rng(3)
    for axis in "xyz":
        table[f"trans_{axis}"] = rng.normal(0, 0.02, COUNT) + 2 * np.sin(time / 60 + ord(axis))
    noise = table["trans_x"].to_numpy()
    series = (500 + 20 * noise + rng.normal(0, 1, COUNT))[:, None].astype(np.float32)
    left = cleaned(series, table, method="motion6", high_pass="gaussian", low_pass_s=10)[:, 0]
    spectrum = np.abs(np.fft.rfft(left - left.mean())) ** 2
    frequency = np.fft.rfftfreq(COUNT, TR)
    slow, fast = frequency < 0.003, frequency > 0.105
    assert spectrum[slow].sum() < 0.01 * spectrum.sum()
    assert spectrum[fast].sum() < 0.02 * spectrum.sum()


@pytest.mark.parametrize("scrub", ["censor", "interpolate"])
@pytest.mark.parametrize("options", [{}, {"high_pass": "gaussian"}, {"low_pass_s": 6}])
def test_a_spike_in_a_scrubbed_volume_changes_no_other(scrub: str, options: dict) -> None:
    table = confounds().assign(**spikes(2, COUNT))
    table.loc[[60, 61, 150], "framewise_displacement"] = 0.9
    quiet = np.random.default_rng(0).normal(500, 10, (COUNT, 4)).astype(np.float32)
    spiky = quiet.copy()
    spiky[[0, 60, 150]] += 500
    expected = cleaned(quiet, table, scrub=scrub, **options)
    found = cleaned(spiky, table, scrub=scrub, **options)
    np.testing.assert_array_equal(found, expected)
    plan = design(table, scrub=scrub, **options)
    assert list(np.flatnonzero(~plan.kept)) == [0, 1, 60, 61, 150]
    if scrub == "censor":
        assert np.isnan(found[~plan.kept]).all()
        assert list(plan.volumes) == list(np.flatnonzero(plan.kept))
    else:
        assert np.isfinite(found).all() and len(plan.volumes) == COUNT
        np.testing.assert_array_equal(found[0], found[2])
    off = cleaned(spiky, table, **options)
    assert np.abs(off - expected)[plan.kept].max() > 5


def test_marking_changes_no_number() -> None:
    table = confounds()
    table.loc[60, "framewise_displacement"] = 0.9
    series = np.random.default_rng(0).normal(500, 10, (COUNT, 4)).astype(np.float32)
    np.testing.assert_array_equal(
        cleaned(series, table, scrub="mark"), cleaned(series, table, scrub="off")
    )
    assert list(np.flatnonzero(design(table, scrub="mark").spoilt)) == [60]
    assert not design(table, scrub="off").spoilt.any()


def test_gaps_are_filled_by_a_spline_in_time() -> None:
    kept = np.ones(COUNT, dtype=bool)
    kept[[0, 80, 81, 120, 198, 199]] = False
    wave = 500 + 10 * oscillation(40)
    filled = filling_weights(kept) @ wave[kept]
    np.testing.assert_allclose(filled[1:4], wave[[80, 81, 120]], atol=0.1)
    np.testing.assert_allclose(filled[[0, 4, 5]], wave[[1, 197, 197]], rtol=1e-9)


def test_which_volumes_are_spoilt() -> None:
    table = confounds().assign(**spikes(2, COUNT))
    table.loc[[0, 1, 50, 199], "framewise_displacement"] = 0.6
    table.loc[[2, 90], "std_dvars"] = 3.0  # volume 2 follows the unsteady ones

    def found(**options: object) -> list[int]:
        defaults: dict = {"fd_mm": 0.5, "dvars": 0, "pad": (0, 0)}
        return np.flatnonzero(spoilt_volumes(table, **{**defaults, **options})).tolist()

    assert found() == [50, 199]
    assert found(fd_mm=0.7) == []
    assert found(dvars=1.5) == [50, 90, 199]
    assert found(pad=(1, 2)) == [49, 50, 51, 52, 198, 199]
    table.loc[3, "framewise_displacement"] = 0.6
    assert found(pad=(3, 0))[:2] == [2, 3]  # never into the unsteady ones


def test_too_few_volumes_left_is_told_with_a_way_out() -> None:
    table = confounds()
    table.loc[: COUNT // 2, "framewise_displacement"] = 0.9
    with pytest.raises(DataError, match=f"leaves {COUNT // 2 - 1} of {COUNT} volumes") as caught:
        design(table, scrub="censor")
    assert "denoise.scrub_fd_mm" in str(caught.value)
    design(table, scrub="mark")


def test_variance_is_that_of_the_kept_volumes() -> None:
    table = pd.DataFrame(confounds())
    table.loc[10, "framewise_displacement"] = 0.9
    rng = np.random.default_rng(1)
    series = (500 + 10 * oscillation(400)[:, None] + rng.normal(0, 1, (COUNT, 3))).astype(
        np.float32
    )
    series[10] += 1e4
    before = np.delete(series, 10, axis=0).var(axis=0, dtype=float).sum()
    removed = clean(series, design(table, scrub="interpolate"))
    after = np.delete(series, 10, axis=0).var(axis=0, dtype=float).sum()
    assert removed == pytest.approx(1 - after / before, abs=1e-4)
    assert removed > 0.9
