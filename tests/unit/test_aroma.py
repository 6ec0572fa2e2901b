"""ICA-AROMA's features against a slow, literal reading of the paper, and its rule."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from brainlm.denoise.aroma import (
    SUBSETS,
    Regions,
    high_frequency_content,
    motion_correlation,
    motion_model,
    spatial_fractions,
    subsets,
)
from brainlm.denoise.components import classified
from brainlm.denoise.mixture import active_probability

RNG = np.random.default_rng(5)
TR = 2.0


def courses(volumes: int = 120, count: int = 7) -> tuple[np.ndarray, np.ndarray]:
    motion = RNG.standard_normal((volumes, 6)).cumsum(axis=0) * 0.1
    mixing = RNG.standard_normal((volumes, count))
    mixing[:, 0] += 8 * motion[:, 2]
    mixing[1:, 1] += 30 * np.diff(motion[:, 4])
    return mixing, motion


def literal_motion_correlation(
    mixing: np.ndarray, motion: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
    """One subset, one component, one regressor at a time."""
    volumes, count = mixing.shape
    model = []
    for parameter in range(6):
        for derivative in (False, True):
            for shift in (0, 1, -1):
                column = [0.0] * volumes
                for t in range(volumes):
                    source = t - shift
                    if not 0 <= source < volumes:
                        continue
                    value = motion[source, parameter]
                    if derivative:
                        value = value - motion[source - 1, parameter] if source > 0 else 0.0
                    column[t] = value
                model.append(np.array(column))
    means = np.zeros(count)
    for rows in chosen:
        for component in range(count):
            x = mixing[rows, component]
            best = 0.0
            for column in model:
                best = max(best, abs(stats.pearsonr(x, column[rows]).statistic))
                best = max(best, abs(stats.pearsonr(x**2, column[rows] ** 2).statistic))
            means[component] += best / len(chosen)
    return means


def test_motion_correlation_is_the_papers() -> None:
    mixing, motion = courses(count=3)
    chosen = subsets(len(mixing), seed=4)
    assert chosen.shape == (SUBSETS, 108)
    few = chosen[:6]
    np.testing.assert_allclose(
        motion_correlation(mixing, motion, few),
        literal_motion_correlation(mixing, motion, few),
        atol=1e-6,
    )


def test_subsets_are_random_draws_without_repetition() -> None:
    chosen = subsets(50, seed=1)
    assert all(len(set(rows)) == 45 for rows in chosen[:20])
    drawn = np.bincount(chosen.ravel(), minlength=50) / len(chosen)
    assert np.abs(drawn - 0.9).max() < 0.05
    assert (subsets(50, seed=1) == chosen).all() and (subsets(50, seed=2) != chosen).any()


def test_components_that_follow_motion_or_its_change_stand_out() -> None:
    mixing, motion = courses()
    found = motion_correlation(mixing, motion, subsets(len(mixing), seed=0))
    assert found[0] > 0.7 and found[1] > 0.7 and found[2:].max() < 0.5


def test_model_has_36_columns_and_opens_with_the_parameters() -> None:
    _, motion = courses()
    model = motion_model(motion)
    assert model.shape == (120, 36)
    np.testing.assert_array_equal(model[:, :6], motion)


def literal_frequency(course: np.ndarray, tr: float) -> float:
    count = len(course)
    power, frequency = [], []
    for k in range(count // 2 + 1):
        angle = 2 * np.pi * k * np.arange(count) / count
        value = (course * np.cos(angle)).sum() ** 2 + (course * np.sin(angle)).sum() ** 2
        if k / (count * tr) > 0.01:
            power.append(value)
            frequency.append(k / (count * tr))
    running, best, at = 0.0, np.inf, 0.0
    for value, hertz in zip(power, frequency, strict=True):
        running += value / sum(power)
        if abs(running - 0.5) < best:
            best, at = abs(running - 0.5), hertz
    return (at - 0.01) / (1 / (2 * tr) - 0.01)


@pytest.mark.parametrize("volumes", [119, 120])
def test_high_frequency_content_is_the_papers(volumes: int) -> None:
    mixing, _ = courses(volumes)
    expected = [literal_frequency(mixing[:, k], TR) for k in range(mixing.shape[1])]
    np.testing.assert_allclose(high_frequency_content(mixing, TR), expected, atol=1e-6)


def test_high_frequency_content_of_a_narrow_band_is_its_frequency() -> None:
    """Slower than 0.01 Hz does not count, however strong."""
    time = TR * np.arange(200)
    course = sum(
        size * np.sin(2 * np.pi * hertz * time)
        for size, hertz in ((9, 0.0075), (1, 0.0975), (2, 0.1), (1.4, 0.1025))
    )
    found = high_frequency_content(np.reshape(course, (-1, 1)), TR)
    np.testing.assert_allclose(found, (0.1 - 0.01) / (0.25 - 0.01))


def test_spatial_fractions_are_the_papers() -> None:
    maps = RNG.standard_normal((3, 400)).astype(np.float32)
    maps[1] = 0
    where = RNG.integers(0, 4, 400)
    regions = Regions(csf=where == 1, edge=where == 2, outside=where == 3)
    edge, csf = spatial_fractions(maps, regions)
    for k in (0, 2):
        parts = {
            name: np.abs(maps[k].astype(float))[where == code].sum()
            for code, name in enumerate(("rest", "csf", "edge", "outside"))
        }
        total = sum(parts.values())
        assert csf[k] == pytest.approx(parts["csf"] / total, abs=1e-6)
        rim = parts["edge"] + parts["outside"]
        assert edge[k] == pytest.approx(rim / (total - parts["csf"]), abs=1e-6)
    assert edge[1] == csf[1] == 0


def test_the_published_rule() -> None:
    metrics = pd.DataFrame(
        {
            "max_RP_corr": [0.0, 0.0, 0.0, 1.0, 0.2, 0.9],
            "edge_fract": [0.0, 0.0, 0.0, 0.41, 0.4, 0.4],
            "csf_fract": [0.11, 0.0, 0.1, 0.0, 0.0, 0.0],
            "HFC": [0.0, 0.36, 0.35, 0.0, 0.0, 0.0],
        }
    )
    # -19.975 + 9.951 r + 24.833 edge: 0.157 in the fourth row, -1.086 in the last.
    found = classified(metrics)
    noise = [True, True, False, True, False, False]
    assert (found["classification"] == "rejected").tolist() == noise
    why = ["csf_fract", "HFC", "", "max_RP_corr, edge_fract", "", ""]
    assert found["rationale"].tolist() == why


def test_mixture_finds_the_active_voxels() -> None:
    noise = RNG.standard_normal(20_000)
    up, down = 4 + RNG.gamma(3, 1.0, 1500), -(4 + RNG.gamma(3, 1.0, 700))
    found = active_probability(np.concatenate([noise, up, down])) > 0.5
    assert found[:20_000].mean() < 0.01
    assert found[20_000:].mean() > 0.97


def test_mixture_of_noise_alone_finds_next_to_nothing() -> None:
    assert (active_probability(RNG.standard_normal(20_000)) > 0.5).mean() < 0.01
    assert (active_probability(np.zeros(100)) == 0).all()
    scaled = active_probability(7 * RNG.standard_normal(20_000) + 3)
    assert (scaled > 0.5).mean() < 0.01
