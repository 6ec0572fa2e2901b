"""Intervals of mean errors: nothing to divide by, and one subject who is all of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from brainlm.evaluate.error_interval import error_interval
from brainlm.evaluate.statistics import (
    bootstrap_counts,
    labels_with_ci,
    mean_with_ci,
    scores_with_ci,
)
from brainlm.train.label_scores import SCORERS

SHARES = norm.cdf([-1.96, 1.96])
PEOPLE = np.repeat([f"s{number:02d}" for number in range(12)], 2)


def _of(sums, sizes=None, draws: int = 400):
    sums = np.asarray(sums, float)
    sizes = np.ones(len(sums)) if sizes is None else np.asarray(sizes, float)
    return mean_with_ci(sums, sizes, draws, 0, of_errors=True)


def test_distances_are_counted_in_standard_errors_of_each_resampling() -> None:
    """Beside the definition, drawing by drawing."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 4, 15).astype(float)
    sums = sizes * rng.gamma(2.0, 1.0, 15)
    counts = bootstrap_counts(15, 300, 0)
    assert counts is not None

    def log_and_error(s, n):
        mean = s.sum() / n.sum()
        return np.log(mean), np.sqrt(((s - mean * n) ** 2).sum()) / s.sum()

    whole, own = log_and_error(sums, sizes)
    distances = []
    for one in counts:
        log, error = log_and_error(np.repeat(sums, one), np.repeat(sizes, one))
        distances.append((log - whole) / error)
    near, far = np.clip(np.quantile(distances, SHARES), -4, 4)
    expected = np.exp([whole - far * own, whole - near * own])
    np.testing.assert_allclose(error_interval(sums, sizes, counts, SHARES), expected)


def test_perfect_predictions_have_an_interval_of_nothing() -> None:
    found = _of(np.zeros(12))
    assert (found["value"], found["ci_low"], found["ci_high"]) == (0, 0, 0)
    truth = np.random.default_rng(0).standard_normal(24)
    told = labels_with_ci(SCORERS["regression"], truth, truth, PEOPLE, n_draws=50, seed=0)
    for name in ("mse", "mae"):
        assert (told[name]["value"], told[name]["ci_low"], told[name]["ci_high"]) == (0, 0, 0)
    y = truth.reshape(12, 2)
    sums = np.stack([np.full(12, 2.0), y.sum(1), (y**2).sum(1), y.sum(1), (y**2).sum(1)], 1)
    found = scores_with_ci(np.column_stack([sums, sums[:, 2]]), 50, 0)["mse"]
    assert (found["value"], found["ci_low"], found["ci_high"]) == (0, 0, 0)


def test_equal_errors_are_told_as_sure() -> None:
    found = _of(0.3 * np.arange(1, 13), np.arange(1, 13))
    assert found["ci_low"] <= found["value"] <= found["ci_high"]
    assert found["ci_high"] - found["ci_low"] < 1e-12


@pytest.mark.filterwarnings("error")
@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1e-9, 0.2, 1.0, 3.0, 1e6]), min_size=10, max_size=14))
def test_ends_are_numbers_that_hold_the_value(errors) -> None:
    """Most without an error, or one subject with all of it."""
    found = _of(errors, draws=100)
    assert 0 <= found["ci_low"] <= found["value"] <= found["ci_high"] < np.inf
    if found["value"] > 0:  # four standard errors: at most the root of 12 on logarithms
        assert found["ci_high"] <= found["value"] * np.exp(4 * np.sqrt(len(errors)))


def test_the_upper_end_lies_farther_away() -> None:
    """What a sample happens to lack are large errors: BCa's ends are nearly as far."""
    found = _of(np.random.default_rng(2).exponential(1.0, 12) ** 2)
    assert found["ci_high"] - found["value"] > 2 * (found["value"] - found["ci_low"])
    plain = mean_with_ci(np.full(12, 1.0), np.ones(12), 50, 0)
    assert (plain["ci_low"], plain["ci_high"]) == (1.0, 1.0)


def test_recordings_count_by_their_subject() -> None:
    """Labels' errors are those of the sums of subjects, who have one to three recordings."""
    rng = np.random.default_rng(3)
    owner = np.repeat(np.arange(20), rng.integers(1, 4, 20))
    truth, guess = rng.standard_normal((2, len(owner)))
    names = np.array([f"s{number:02d}" for number in owner])
    found = labels_with_ci(SCORERS["regression"], truth, guess, names, n_draws=200, seed=1)
    for name, power in (("mse", 2), ("mae", 1)):
        sums = np.bincount(owner, weights=np.abs(guess - truth) ** power)
        own = mean_with_ci(sums, np.bincount(owner).astype(float), 200, 1, of_errors=True)
        assert found[name] == pytest.approx(own)
