"""Another repetition time: what the filter keeps, what it takes, and what happens at the ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.shards.timing import has_tr, n_resampled, resample, resample_counted

PAIRS = [(0.72, 0.735), (0.735, 0.72), (2.0, 0.735), (0.735, 2.0), (0.8, 1.0 / 0.9)]
SECONDS = 600


def times(source_tr: float, tr: float) -> tuple[np.ndarray, np.ndarray]:
    """Old and new times of a recording, s."""
    n = int(SECONDS / source_tr)
    return np.arange(n) * source_tr, np.arange(n_resampled(n, source_tr, tr)) * tr


def wave(frequency: float, at: np.ndarray, phase: float = 0.3) -> np.ndarray:
    return np.cos(2 * np.pi * frequency * at + phase)[None].astype(np.float32)


@pytest.mark.parametrize(("source_tr", "tr"), PAIRS)
@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.7, 0.8])
def test_slow_waves_keep_amplitude_and_phase(source_tr: float, tr: float, share: float) -> None:
    """To 0.2% 40 s from the ends; `share` is of the lower Nyquist frequency."""
    frequency = share * 0.5 / max(source_tr, tr)
    old, new = times(source_tr, tr)
    found = resample(wave(frequency, old), source_tr, tr)[0]
    wrong = np.abs(found - wave(frequency, new)[0])
    inside = (new > 40) & (new < old[-1] - 40)
    assert wrong[inside].max() < 0.002


@pytest.mark.parametrize(("source_tr", "tr"), PAIRS)
def test_slow_waves_are_nearly_right_at_the_ends(source_tr: float, tr: float) -> None:
    """Of 0.01 to 0.1 Hz, any phase: to 5% (rms) there; the first sample is the recording's own."""
    old, new = times(source_tr, tr)
    rng = np.random.default_rng(0)
    frequencies = rng.uniform(0.01, 0.1, 400)
    phases = rng.uniform(0, 2 * np.pi, 400)
    was, should = (
        np.cos(2 * np.pi * np.outer(frequencies, at) + phases[:, None]).astype(np.float32)
        for at in (old, new)
    )
    found = resample(was, source_tr, tr)
    wrong = np.sqrt(((found - should) ** 2).mean(axis=0)) / np.sqrt(0.5)
    ends = (new < 40) | (new > old[-1] - 40)
    assert wrong[ends].max() < 0.05
    assert found[:, 0] == pytest.approx(was[:, 0], abs=1e-6)


@pytest.mark.parametrize("share", [1.0, 1.05, 1.2, 1.5, 2.0, 2.6])
def test_fast_waves_do_not_come_back_as_slow_ones(share: float) -> None:
    """Downsampling 0.735 s to 2 s: 0.25 Hz and more are suppressed by 55 dB (>= 40 asked)."""
    old, new = times(0.735, 2.0)
    found = resample(wave(share * 0.25, old), 0.735, 2.0)[0]
    inside = (new > 40) & (new < old[-1] - 40)
    assert np.abs(found[inside]).max() < 10 ** (-55 / 20)


def test_upsampling_adds_no_fast_waves() -> None:
    """2 s to 0.735 s: nothing is heard above the 0.25 Hz that 2 s can carry."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((20, 300)).astype(np.float32)
    found = resample(noise, 2.0, 0.735)
    power = (np.abs(np.fft.rfft(found * np.hanning(found.shape[1]), axis=1)) ** 2).mean(axis=0)
    frequency = np.fft.rfftfreq(found.shape[1], 0.735)
    assert power[frequency > 0.26].max() < 10 ** (-50 / 10) * power[frequency < 0.2].mean()


@pytest.mark.parametrize(("source_tr", "tr"), PAIRS)
def test_lines_stay_lines_whatever_their_height(source_tr: float, tr: float) -> None:
    old, new = times(source_tr, tr)
    lines = np.stack([0 * old + 20_000, 10_000 - 3 * old, 0 * old]).astype(np.float32)
    found = resample(lines, source_tr, tr)
    should = np.stack([0 * new + 20_000, 10_000 - 3 * new, 0 * new])
    assert np.abs(found - should).max() < 2e-3  # float32 at 20,000: 1e-3
    assert found.dtype == np.float32 and found.flags.c_contiguous


def test_a_parcel_without_data_stays_so_and_touches_no_other() -> None:
    rng = np.random.default_rng(0)
    series = rng.standard_normal((3, 200)).astype(np.float32)
    series[1] = np.nan
    found = resample(series, 0.735, 2.0)
    assert np.isnan(found[1]).all()
    assert (found[[0, 2]] == resample(series[[0, 2]], 0.735, 2.0)).all()


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 90),
    st.floats(0.4, 3.5),
    st.floats(0.4, 3.5),
    st.integers(0, 2**32 - 1),
)
def test_it_is_the_windowed_sinc_that_the_docs_tell_of(
    n: int, source_tr: float, tr: float, seed: int
) -> None:
    """Sample by sample from the formula, in seconds, on a series continued by hand."""
    values = np.random.default_rng(seed).standard_normal(n) + 100
    found = resample(values[None].astype(np.float32), source_tr, tr)[0]
    line = np.linspace(values[0], values[-1], n) if n > 1 else values
    rest = values - line
    known = {k: rest[k] for k in range(n)}
    known |= {-k: -rest[k] for k in range(1, n)} | {2 * (n - 1) - k: -rest[k] for k in range(n - 1)}
    longer, half = max(source_tr, tr), 18.126947  # samples of the longer TR
    for number, value in enumerate(found):
        time = number * tr
        total = weight = 0.0
        for k in range(-int(half * longer / source_tr) - 2, 2 * n + int(80 * longer / source_tr)):
            x = (k * source_tr - time) / longer
            if abs(x) > half:
                continue
            window = np.i0(0.1102 * 51.3 * np.sqrt(1 - (x / half) ** 2))
            kernel = np.sinc(0.9 * x) * window
            weight += kernel
            total += kernel * known.get(k, 0.0)
        at = time / source_tr
        expected = total / weight + np.interp(at, np.arange(n), line)
        assert value == pytest.approx(expected, abs=1e-4)
    assert (len(found) - 1) * tr <= (n - 1) * source_tr + 1e-5 * tr < len(found) * tr + 1e-4 * tr


def test_volumes_that_do_not_count_take_their_neighbours_with_them() -> None:
    counted = np.ones(10, bool)
    counted[4] = False
    assert np.flatnonzero(~resample_counted(counted, 2.0, 1.0)).tolist() == [7, 8, 9]
    assert np.flatnonzero(~resample_counted(counted, 1.0, 2.0)).tolist() == [2]
    assert np.flatnonzero(~resample_counted(counted, 1.0, 1.5)).tolist() == [3]
    counted[-1] = False
    assert resample_counted(counted, 2.0, 2.0).tolist() == counted.tolist()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300), st.floats(0.3, 4), st.floats(0.3, 4))
def test_counted_is_as_long_as_the_series(n: int, source_tr: float, tr: float) -> None:
    series = np.zeros((1, n), np.float32)
    length = resample(series, source_tr, tr).shape[1]
    assert len(resample_counted(np.ones(n, bool), source_tr, tr)) == length
    assert length == n_resampled(n, source_tr, tr)


def test_trs_within_the_tolerance_are_the_same() -> None:
    assert has_tr(0.735, 0.735, 0) and has_tr(0.7351, 0.735, 0.01)
    assert not has_tr(0.72, 0.735, 0.01) and not has_tr(0.75, 0.735, 0.01)
    assert n_resampled(490, 0.735, 0.735) == 490


def test_samples_that_fall_on_old_ones_do_so_in_floating_point_too() -> None:
    """5 x 0.72 / 0.24 is 14.99..., 2.4 / 0.8 is 2.99..., 2.1 / 0.7 is 3.00...4."""
    assert n_resampled(6, 0.72, 0.24) == 16
    for source_tr, tr in ((0.8, 2.4), (0.7, 2.1)):
        counted = np.ones(13, bool)
        counted[[2, 4]] = False  # beside the sample at 3
        assert resample_counted(counted, source_tr, tr).all()
