"""P values of permuted labels are exact, whatever recordings subjects have."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from sklearn.metrics import roc_auc_score

from brainlm.evaluate.permutation import (
    Exchange,
    _blocks,
    _by_subject,
    _orders,
    _standing,
    _statistic,
    permutation_p,
)
from brainlm.train.label_scores import binary_scores, class_scores, regression_scores


def test_p_is_the_share_of_all_orders() -> None:
    """Five people, two of whom came twice: all 120 ways to give them each other's labels."""
    subjects = np.array(list("aabcdde"))
    label = {"a": 1.0, "b": 4.0, "c": 2.0, "d": 7.0, "e": 5.5}
    truth = np.array([label[name] for name in subjects])
    guess = np.array([1.5, 2.0, 3.0, 3.5, 6.0, 5.0, 4.0])
    seen = np.corrcoef(truth, guess)[0, 1]
    reached = [
        np.corrcoef([dict(zip("abcde", order, strict=True))[name] for name in subjects], guess)[
            0, 1
        ]
        >= seen - 1e-9
        for order in permutations(label.values())
    ]
    p = permutation_p(truth, {"m": guess}, subjects, kind="regression", seed=0)["m"]
    assert p == pytest.approx(np.mean(reached), abs=0.01)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(0, 999), st.booleans(), st.booleans())
def test_only_those_that_may_change_places_do(people, seed, constant, within) -> None:
    """Each gets the labels of somebody of the same block, and everybody's are given to one."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4, people)
    subjects = np.repeat([f"s{number}" for number in range(people)], counts)
    truth = np.repeat(np.arange(people) * 10.0, counts)
    if not constant:
        truth = truth + np.concatenate([np.arange(count) for count in counts])
    of_site = rng.integers(0, 2, people)
    sites = np.repeat(of_site.astype(str), counts) if within else None
    labels, owner, visit = _by_subject(truth, subjects)
    np.testing.assert_array_equal(labels[owner, visit], truth)
    alike = (labels == labels[:, :1]).all()
    numbers = _blocks(owner, None if alike else np.bincount(owner), sites)
    names = np.unique(subjects)
    index = [int(name[1:]) for name in names]
    for order in _orders(Exchange(numbers, names), 20, 7, seed):
        for row in order:
            assert sorted(row) == list(range(people))
            for one, other in enumerate(row):
                if not alike:
                    assert counts[index[one]] == counts[index[other]]
                if within:
                    assert of_site[index[one]] == of_site[index[other]]


def test_the_statistic_is_the_score_that_is_told() -> None:
    rng = np.random.default_rng(0)
    truth, guess = rng.standard_normal(20), rng.standard_normal(20)
    found = _statistic(truth[None], _standing(guess, "regression")[None], "regression")
    assert found[0, 0] == pytest.approx(regression_scores(truth, guess)["pearson"])
    classes, chance = (truth > 0).astype(float), np.round(guess, 0)
    found = _statistic(classes[None], _standing(chance, "binary")[None], "binary")
    assert found[0, 0] == pytest.approx(roc_auc_score(classes, chance))
    assert found[0, 0] == pytest.approx(binary_scores(classes, chance)["auroc"])
    three = rng.integers(0, 3, 20).astype(float)
    chances = rng.dirichlet(np.ones(3), 20)
    found = _statistic(three[None], _standing(chances, "classes")[None], "classes")
    assert found[0, 0] == pytest.approx(class_scores(three, chances)["auroc"])


def test_what_does_not_vary_has_no_p() -> None:
    truth, subjects = np.arange(8.0), np.arange(8).astype(str)
    same, good = np.full(8, 0.1), truth * 2
    found = permutation_p(truth, {"c": same, "m": good}, subjects, kind="regression", seed=0)
    assert np.isnan(found["c"])
    assert found["m"] < 0.002
    flat = permutation_p(np.ones(8), {"m": good}, subjects, kind="binary", seed=0)
    assert np.isnan(flat["m"])


def test_what_sites_differ_by_proves_nothing_within_them() -> None:
    rng = np.random.default_rng(0)
    site = np.repeat(["a", "b"], 40)
    truth = rng.standard_normal(80) + 3 * (site == "b")
    guess = {"site": (site == "b") + 0.01 * rng.standard_normal(80)}
    people = np.arange(80).astype(str)
    between = permutation_p(truth, guess, people, kind="regression", seed=0)["site"]
    within = permutation_p(truth, guess, people, kind="regression", seed=0, sites=site)["site"]
    assert between < 0.001 < 0.05 < within


@pytest.mark.parametrize("kind", ["regression", "binary"])
def test_p_of_null_traits_is_uniform(kind) -> None:
    """Predictions that are alike within a person, who may have more than one recording."""
    rng = np.random.default_rng(1)
    found = []
    for repeat in range(200):
        counts = rng.integers(1, 4, 30)
        people = np.repeat(np.arange(30).astype(str), counts)
        label = rng.standard_normal(30)
        truth = np.repeat(label if kind == "regression" else (label > 0.4).astype(float), counts)
        guess = np.repeat(rng.standard_normal(30), counts) + 0.3 * rng.standard_normal(counts.sum())
        p = permutation_p(truth, {"m": guess}, people, kind=kind, seed=repeat, n_draws=199)
        found.append(p["m"])
    assert kstest(np.array(found) - rng.uniform(0, 1 / 200, 200), "uniform").pvalue > 0.01


def test_of_one_site_people_change_places_however_often_they_came() -> None:
    owner, site = np.array([0, 0, 1, 2, 3]), np.array(list("aaaab"))
    assert _blocks(owner, None, site).tolist() == [0, 0, 0, 1]


def test_a_label_that_changes_goes_to_a_recording_of_its_own_site() -> None:
    """Two people, scanned at the same two sites in other orders: each visit has its site's label.

    What only knows of sites is then never beaten, nor ever beats what was seen.
    """
    owner, site = np.array([0, 0, 1, 1, 2, 2]), np.array(list("abbaab"))
    assert _blocks(owner, np.array([2, 2, 2]), site).tolist() == [0, 1, 0]


def test_nobody_to_change_places_with_is_no_p() -> None:
    """One person of each site: the order that was seen is the only one."""
    truth, people = np.arange(6.0), np.arange(6).astype(str)
    found = permutation_p(truth, {"m": truth}, people, kind="regression", seed=0, sites=people)
    assert np.isnan(found["m"])
