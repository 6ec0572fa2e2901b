"""Permutation tests over parcels: textbook statistics, p that hold what they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, kstest

from brainlm.evaluate.attention_tests import benjamini_hochberg, permutation_test
from brainlm.evaluate.statistics import mean_with_ci


def _textbook(y: np.ndarray, design: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and t of the first column, by least squares."""
    slopes = np.linalg.lstsq(design, y, rcond=None)[0]
    left = y - design @ slopes
    variance = (left**2).sum(axis=0) / (len(y) - design.shape[1])
    return slopes[0], slopes[0] / np.sqrt(variance * np.linalg.inv(design.T @ design)[0, 0])


@settings(max_examples=25, deadline=None)
@given(st.integers(8, 30), st.integers(1, 5), st.integers(0, 3), st.integers(0, 999), st.booleans())
def test_statistics_are_those_of_least_squares(n, parcels, extra, seed, flip) -> None:
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((n, parcels)) + 1
    of = np.ones(n) if flip else (np.arange(n) % 2).astype(float)
    held = rng.standard_normal((n, extra))
    if not flip:
        held = np.hstack([np.ones((n, 1)), held])
    found = permutation_test(y, of, held, flip=flip, draws=20, seed=0)
    slope, t = _textbook(y, np.hstack([of[:, None], held]))
    np.testing.assert_allclose(found.difference, slope, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.t, t, rtol=1e-6, atol=1e-9)
    assert (found.p >= 1 / 21).all() and (found.p_fwe >= found.p - 1e-12).all()


def test_an_effect_is_in_standard_deviations() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat([1.0, 0.0], 2000)
    y = 5 + 3 * (rng.standard_normal((4000, 1)) + 0.5 * group[:, None])
    found = permutation_test(y, group, np.ones((4000, 1)), flip=False, draws=10, seed=0)
    assert found.effect[0] == pytest.approx(0.5, abs=0.07)
    assert found.difference[0] == pytest.approx(1.5, abs=0.2)


@pytest.mark.parametrize("flip", [True, False])
def test_p_is_uniform_where_nothing_is(flip) -> None:
    """Also with values that hang on a nuisance which goes with the groups."""
    rng = np.random.default_rng(2)
    found = []
    for _ in range(40):
        of = np.ones(16) if flip else np.repeat([1.0, 0.0], 8)
        motion = rng.standard_normal(16) + (0 if flip else of)
        y = rng.exponential(size=(16, 10)) * rng.choice([-1, 1], (16, 10)) + 2 * motion[:, None]
        held = motion[:, None] if flip else np.stack([np.ones(16), motion], axis=1)
        seed = int(rng.integers(1 << 30))
        found.append(permutation_test(y, of, held, flip=flip, draws=199, seed=seed).p)
    p = np.concatenate(found)
    assert kstest(p - rng.uniform(0, 1 / 200, p.size), "uniform").pvalue > 0.001
    assert abs((p <= 0.05).mean() - 0.05) < 0.035


def test_motion_that_goes_with_a_group_is_held() -> None:
    rng = np.random.default_rng(3)
    group = np.repeat([1.0, 0.0], 30)
    motion = rng.standard_normal(60) + group
    y = rng.standard_normal((60, 50)) + 2 * motion[:, None]
    ones = np.ones((60, 1))
    without = permutation_test(y, group, ones, flip=False, draws=400, seed=1)
    held = permutation_test(
        y, group, np.hstack([ones, motion[:, None]]), flip=False, draws=400, seed=1
    )
    assert (without.p_fdr < 0.05).mean() > 0.9
    assert (held.p_fdr < 0.05).mean() < 0.1


@pytest.mark.parametrize("flip", [True, False])
def test_planted_parcels_are_found_and_false_ones_are_few(flip) -> None:
    rng = np.random.default_rng(4)
    of = np.ones(40) if flip else np.repeat([1.0, 0.0], 20)
    held = np.empty((40, 0)) if flip else np.ones((40, 1))
    planted = np.arange(100) < 15
    false, power = [], []
    for seed in range(30):
        shared = rng.standard_normal((40, 1))  # neighbours go together
        y = 0.5 * shared + rng.standard_normal((40, 100))
        y += 1.5 * (0.6 if flip else 1.0) * of[:, None] * planted
        called = permutation_test(y, of, held, flip=flip, draws=1000, seed=seed).p_fdr <= 0.05
        false.append((called & ~planted).sum() / max(called.sum(), 1))
        power.append(called[planted].mean())
    assert np.mean(false) <= 0.05 + 2 * np.std(false) / np.sqrt(len(false))
    assert np.mean(power) > 0.7


def test_any_false_parcel_at_all_is_rare_by_the_largest_statistic() -> None:
    rng = np.random.default_rng(5)
    group = np.repeat([1.0, 0.0], 10)
    seen = [
        (
            permutation_test(
                rng.standard_normal((20, 60)), group, np.ones((20, 1)), flip=False, draws=99, seed=s
            ).p_fwe.min()
            <= 0.05
        )
        for s in range(120)
    ]
    assert 0.0 < np.mean(seen) < 0.11


def test_what_does_not_vary_is_not_tested_and_what_nuisances_tell_is_refused() -> None:
    rng = np.random.default_rng(6)
    y = rng.standard_normal((12, 3))
    y[:, 1] = 4.0
    group = np.repeat([1.0, 0.0], 6)
    found = permutation_test(y, group, np.ones((12, 1)), flip=False, draws=50, seed=0)
    assert np.isnan(found.p).tolist() == [False, True, False]
    assert np.isnan(found.p_fdr[1]) and np.isnan(found.p_fwe[1])
    with pytest.raises(ValueError, match="nuisances"):
        held = np.stack([np.ones(12), group], axis=1)
        permutation_test(y, group, held, flip=False, draws=50, seed=0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 5))
def test_false_discoveries_are_those_of_scipy(values, missing) -> None:
    p = np.array(values)
    with_gaps = np.concatenate([p, np.full(missing, np.nan)])
    found = benjamini_hochberg(with_gaps)
    np.testing.assert_allclose(found[: len(p)], false_discovery_control(p), atol=1e-12)
    assert np.isnan(found[len(p) :]).all()


def test_intervals_of_means_hold_what_they_promise_with_few_subjects() -> None:
    """Percentiles alone would hold the mean of twelve people in 0.90 of all draws."""
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(600):
        found = mean_with_ci(2 * (rng.standard_normal(12) + 3), np.full(12, 2), 400, 0)
        inside.append(found["ci_low"] <= 3 <= found["ci_high"])
    assert 0.92 <= np.mean(inside) <= 0.98
    few = mean_with_ci(np.ones(5), np.ones(5), 400, 0)
    assert (few["value"], few["ci_low"]) == (1.0, None) and "5 test subjects" in few["reason"]
    assert mean_with_ci(np.ones(0), np.ones(0), 400, 0)["value"] is None
