"""Tests between methods."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from brainlm.evaluate.paired import holm, sign_flip_p


def test_sign_flips_are_those_of_all_flips() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal([0.0, 0.5, 1.5], 1.0, (8, 3))
    exact = []
    flips = np.array(list(itertools.product([-1, 1], repeat=8)))
    for column in differences.T:
        exact.append((np.abs(flips @ column) >= np.abs(column.sum()) - 1e-9).mean())
    assert sign_flip_p(differences, seed=1, n_draws=50_000) == pytest.approx(exact, abs=0.01)


def test_p_is_evenly_spread_where_nothing_is() -> None:
    differences = np.random.default_rng(1).standard_normal((20, 2000))
    found = sign_flip_p(differences, seed=0, n_draws=2000)
    assert stats.kstest(found, "uniform").pvalue > 0.001


def test_five_subjects_are_too_few_for_a_p() -> None:
    assert np.isnan(sign_flip_p(np.ones((5, 2)), seed=0)).all()
    assert (sign_flip_p(np.ones((6, 2)), seed=0) < 0.05).all()  # 2 of 64 flips


def test_holm_by_hand() -> None:
    p = np.array([[0.01, 0.04], [np.nan, 0.03]])
    assert holm(p) == pytest.approx(np.array([[0.03, 0.06], [np.nan, 0.06]]), nan_ok=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_lies_below_bonferroni(p: list[float]) -> None:
    given_p = np.array(p)
    found = holm(given_p)
    assert (found >= given_p).all()
    assert (found <= np.minimum(given_p * len(p), 1) + 1e-12).all()
    order = np.argsort(given_p)
    assert (np.diff(found[order]) >= 0).all()


def test_differences_that_are_no_numbers_have_no_p() -> None:
    differences = np.random.default_rng(0).standard_normal((12, 4))
    differences[3, 0], differences[4, 1], differences[5, 2] = np.nan, np.inf, -np.inf
    found = sign_flip_p(differences, seed=0)
    assert np.isnan(found).tolist() == [True, True, True, False]
    assert found[3] == sign_flip_p(differences[:, 3:], seed=0)[0]
