"""Families are resampled, change signs and change places as one; subjects are what is counted."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from brainlm.evaluate.attention import _network_means
from brainlm.evaluate.attention_tests import permutation_test
from brainlm.evaluate.forecast_scores import compare_forecasts
from brainlm.evaluate.forecasts import SUM_COLUMNS
from brainlm.evaluate.hiding import MODEL
from brainlm.evaluate.latent_neighbours import Judged, score_label
from brainlm.evaluate.paired import compare_errors, sign_flip_p
from brainlm.evaluate.parcel_networks import _of_cohorts
from brainlm.evaluate.permutation import Exchange, permutation_p
from brainlm.evaluate.perturbation import Effects, Experiment
from brainlm.evaluate.perturbation_scores import effects_table
from brainlm.evaluate.scaling import _sums_of
from brainlm.evaluate.statistics import mean_with_ci, scores_with_ci
from brainlm.evaluate.tally import Tally
from brainlm.evaluate.units import (
    added_up,
    families_column,
    told_units,
    units_of,
    units_of_subjects,
)
from brainlm.model.perturbation import Change
from brainlm.train.validation import N_SUMS

SUBJECTS = [f"{number:02d}" for number in range(24)]
FAMILIES = [f"f{number // 2}" if number < 16 else None for number in range(24)]
UNITS = units_of(pd.DataFrame({"subject": SUBJECTS, "family": FAMILIES}))


def _reader(runs: int = 2):
    """Test recordings: eight pairs of siblings, and eight subjects of no family."""
    rows = pd.DataFrame({"subject": SUBJECTS, "family": FAMILIES, "dataset": "one"})
    table = rows.loc[rows.index.repeat(runs)].reset_index(drop=True).assign(split="test")
    table.index = pd.Index([f"r{number:02d}" for number in range(len(table))])
    return SimpleNamespace(table=table, n_parcels=2)


def test_a_unit_is_a_family_or_a_subject_of_none() -> None:
    assert len(set(UNITS)) == 16 and UNITS[0] == UNITS[1] != UNITS[2]
    assert UNITS[16:].tolist() == SUBJECTS[16:]
    named = pd.DataFrame({"subject": ["1", "2"], "family": [None, "1"]})
    assert len(set(units_of(named))) == 2  # a family by a subject's name is not the subject
    assert units_of(named[["subject"]]).tolist() == ["1", "2"]
    assert units_of_subjects(_reader().table, ["01", "16", "00"]).tolist() == [
        UNITS[1],
        "16",
        UNITS[0],
    ]
    assert (told_units(24, UNITS), told_units(2, UNITS[16:18])) == ({"n_units": 16}, {})
    assert families_column(named, ["2", "1"]) == {"family": ["1", None]}
    assert families_column(named.assign(family=None), ["2", "1"]) == {}
    np.testing.assert_array_equal(added_up(np.arange(3.0), np.array(["b", "a", "b"])), [1, 2])


def test_families_change_signs_together() -> None:
    rng = np.random.default_rng(0)
    units = np.array(["a", "a", "b", "c", "d", "e", "f"])
    apart = rng.standard_normal((7, 1)) + 0.8
    owner = np.unique(units, return_inverse=True)[1]
    signs = np.array(list(product([-1, 1], repeat=6)))[:, owner]
    exact = (np.abs(signs @ apart) >= np.abs(apart.sum()) - 1e-9).mean()
    assert sign_flip_p(added_up(apart, units), 0)[0] == pytest.approx(exact, abs=0.015)
    # squared errors of the second method are `apart` more, one recording each
    guesses = {"first": np.zeros(7), "second": np.sqrt(1 + apart[:, 0] - apart.min())}
    more = guesses["second"] ** 2
    found = compare_errors(guesses, np.zeros(7), SUBJECTS[:7], "regression", 0, units)["second"]
    assert found["error_more"] == pytest.approx(more.mean())
    assert found["p"] == pytest.approx(2 / 64, abs=0.01)  # all worse: of 2^6 two are as extreme
    y = rng.standard_normal((7, 3)) + 0.5
    of, nothing = np.ones(7), np.empty((7, 0))
    how = {"flip": True, "draws": 4000, "seed": 0}
    p = permutation_test(y, of, nothing, **how, units=units).p
    t = [np.abs((s[:, None] * y).mean(0) / (s[:, None] * y).std(0)) for s in signs]
    np.testing.assert_allclose(p, (np.array(t) >= t[-1] - 1e-9).mean(axis=0), atol=0.03)


def test_families_change_places_with_such_as_they_are() -> None:
    units = np.array(["p", "q", "p", "q", "r", "r", "s", "t", "u", "u", "u"])
    blocks = np.array([1, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1])  # p, q: (1, 2); r: (1, 1); u: of three
    orders = Exchange(blocks, units).drawn(200, np.random.default_rng(0))
    assert len(set(map(tuple, orders.tolist()))) == 4  # p and q, s and t
    for order in orders:
        assert sorted(order) == list(range(11))
        assert (blocks[order] == blocks).all()
        for unit in np.unique(units):
            assert len(set(units[order][units == unit])) == 1
    assert not Exchange(np.zeros(3, int), np.array(["a", "a", "b"])).any_moves


def test_siblings_alike_are_no_discovery() -> None:
    """Label and guess are a family's own each, and have nothing to do with each other."""
    found = {"alone": 0, "together": 0}
    subjects = np.array(SUBJECTS)
    families = np.repeat(np.arange(8).astype(str), 3)
    for repeat in range(60):
        rng = np.random.default_rng(repeat)
        label, guess = np.repeat(rng.standard_normal((2, 8)), 3, axis=1)
        label = label + 0.1 * rng.standard_normal(24)
        for name, units in (("alone", None), ("together", families)):
            how = {"kind": "regression", "seed": repeat, "n_draws": 200, "units": units}
            found[name] += permutation_p(label, {"m": guess}, subjects, **how)["m"] < 0.1
    assert found["together"] <= 12 < found["alone"]  # of 6 by chance


def _sums(rng) -> np.ndarray:
    truth, guess = rng.standard_normal((2, 24, 20))
    guess = (
        truth
        + guess * np.exp(rng.standard_normal(16))[np.unique(UNITS, return_inverse=True)[1]][:, None]
    )
    terms = (np.ones_like(truth), truth, truth**2, guess, guess**2, truth * guess)
    return np.stack([term.sum(axis=1) for term in terms], axis=1)


def test_reconstruction_and_scaling_resample_families() -> None:
    reader = _reader()
    tally = Tally(reader, list(reader.table.index), (MODEL, "mean"))
    sums = _sums(np.random.default_rng(0))
    for method in tally.methods:
        tally._of_recordings[method][::2] = sums
    [told] = tally.told(200, 0)
    assert (told["n_subjects"], told["n_units"]) == (24, 16)
    expected = scores_with_ci(added_up(sums, UNITS), 200, 0)
    assert told["methods"][MODEL] == expected
    assert expected["mse"] != scores_with_ci(sums, 200, 0)["mse"]
    table = tally.table()
    assert table["family"].isna().sum() == 2 * 8
    kept = _sums_of(table, "all", MODEL, units_of(table[table["method"] == MODEL]))
    np.testing.assert_array_equal(kept, added_up(sums, UNITS))
    single = _reader()
    single.table["family"] = None
    without = Tally(single, list(single.table.index), (MODEL,))
    assert "family" not in without.table() and "n_units" not in without.told(50, 0)[0]


def test_forecasts_resample_families() -> None:
    tables, both = {}, []
    for seed, name in enumerate(("good", "other")):
        sums = _sums(np.random.default_rng(7)) + 0.0
        sums[:, 4] += 3 * np.abs(np.random.default_rng(seed).standard_normal(24))
        rows = pd.DataFrame(sums, columns=list(SUM_COLUMNS)).assign(
            cohort="one", subject=SUBJECTS, family=FAMILIES, step=1
        )
        tables[name] = rows
        both.append(sums)
    how = {"reference": "good", "trained_on": {"one"}, "bootstrap": 200, "seed": 0}
    [found] = compare_forecasts(tables, **how).metrics["cohorts"]
    assert (found["n_subjects"], found["n_units"]) == (24, 16)
    expected = scores_with_ci(added_up(both[1], UNITS), 200, 0)
    assert found["methods"]["other"]["metrics"] == expected
    apart = (both[1][:, 4] - both[0][:, 4]) / 20
    assert found["methods"]["other"]["p"] == sign_flip_p(added_up(apart[:, None], UNITS), 0)[0]
    assert both[0].shape[1] == N_SUMS


def test_networks_resample_families() -> None:
    reader = _reader(runs=1)
    rng = np.random.default_rng(0)
    rows = []
    for name, row in reader.table.iterrows():
        true = np.array([0, 0, 1, 1])
        for method in ("attention", "mean"):
            told = np.where(rng.random(4) < 0.3, 1 - true, true)
            rows.append(
                pd.DataFrame(
                    {
                        "recording_id": name,
                        "subject": row["subject"],
                        "scheme": "s",
                        "method": method,
                        "true": true,
                        "told": told,
                    }
                )
            )
    predictions = pd.concat(rows, ignore_index=True)
    how = {"bootstrap": 200, "seed": 0}
    [found] = _of_cohorts(reader, list(reader.table.index), predictions, **how)
    assert (found["n_subjects"], found["n_units"]) == (24, 16)
    reader.table["family"] = None
    [alone] = _of_cohorts(reader, list(reader.table.index), predictions, **how)
    assert "n_units" not in alone
    one, other = (part["schemes"]["s"]["mean"]["metrics"]["accuracy"] for part in (found, alone))
    assert one["value"] == pytest.approx(other["value"]) and one["ci_low"] != other["ci_low"]


def test_neighbours_and_perturbations_take_families() -> None:
    rng = np.random.default_rng(1)
    vectors, label = rng.standard_normal((24, 3)), rng.standard_normal(24)
    judged = Judged(neighbours=4, bootstrap=100, permutations=99, seed=0)
    who = (vectors, label, "regression", np.array(SUBJECTS), judged)
    families, alone = score_label(*who, UNITS), score_label(*who)
    for key in ("ci_low", "p"):
        assert families["metrics"]["pearson"][key] != alone["metrics"]["pearson"][key]
    same = score_label(*who, np.array(SUBJECTS))
    assert same == alone
    mean = rng.standard_normal((24, 2)) + 0.4
    effects = Effects(mean, mean, np.abs(mean), mean[:2], np.abs(mean[:2]))
    one = Experiment("one", Change(np.array([0]), factor=0.0))
    parcels = pd.DataFrame({"index": [1, 2], "name": ["P1", "P2"]})
    tables = [
        effects_table(one, effects, [], parcels, units=units, bootstrap=200, seed=0)
        for units in (UNITS, np.array(SUBJECTS))
    ]
    assert tables[0]["p"].tolist() == sign_flip_p(added_up(mean, UNITS), 0).tolist()
    assert (tables[0]["effect"] == tables[1]["effect"]).all()
    assert (tables[0][["ci_low", "p"]] != tables[1][["ci_low", "p"]]).all(axis=None)
    by_network = pd.DataFrame({"Visual": np.abs(mean[:, 0])}, index=SUBJECTS)
    told = _network_means(by_network, _reader().table, 200, 0)["Visual"]
    sums, sizes = (added_up(x, UNITS) for x in (np.abs(mean[:, 0]), np.ones(24)))
    assert told == mean_with_ci(sums, sizes, 200, 0)
