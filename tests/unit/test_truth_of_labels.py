"""What is planted is found, with intervals that cover it; what is not there is not found.

Cohorts with known truth: people with one to three recordings each. The fast tests are those of many
that are run at more sizes by `-m slow`.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, kstest

from brainlm.evaluate.baselines.connectivity import predict_from_features, span_of_train
from brainlm.evaluate.baselines.correlations import connectivity
from brainlm.evaluate.label_baselines import BASELINES, Material
from brainlm.evaluate.label_scores import predictions_by, score, scorer_of
from brainlm.evaluate.leave_site_out import leave_site_out
from brainlm.evaluate.paired import compare_errors
from brainlm.evaluate.permutation import permutation_p
from brainlm.evaluate.probe import ON_VECTORS
from brainlm.evaluate.statistics import labels_with_ci
from brainlm.evaluate.units import units_of
from brainlm.reproduce.compare import Verdict
from brainlm.reproduce.scores import compare_scores_of
from brainlm.shards.labels import LabelScale
from brainlm.train.label_scores import SCORERS
from brainlm.train.labelled import LabelledData

REPEATS = 200


def _series(trait: float, rng, length: int = 80) -> np.ndarray:
    """Two groups of four parcels that go together the more, the larger the trait."""
    factors = rng.standard_normal((length, 2))
    shared = 1 / (1 + np.exp(-1.5 * trait))
    mixed = np.stack([factors[:, 0], shared * factors[:, 0] + (1 - shared) * factors[:, 1]], axis=1)
    return (np.repeat(mixed, 4, axis=1) + rng.standard_normal((length, 8))).astype(np.float32)


def _fitted_cohort(rng, train: int = 60, test: int = 60, planted: float = 1.0):
    """A label and its prediction by ridge on connectivity; the label is `planted`, or noise."""
    trait = rng.uniform(-1, 1, train + test)
    features = np.stack([connectivity(_series(one, rng)) for one in trait])
    label = planted * trait + (1 - planted) * rng.standard_normal(train + test)
    own, other = span_of_train(features[:train], features[train:])
    groups = [str(number) for number in range(train)]
    guess = predict_from_features(own, label[:train], groups, other, kind="regression")
    return label[train:], guess


def test_a_null_trait_has_uniform_p_and_no_r2() -> None:
    """Through a real fit: ridge on connectivity, its penalty chosen among train subjects."""
    p, r2 = [], []
    rng = np.random.default_rng(3)
    for repeat in range(40):
        truth, guess = _fitted_cohort(rng, 30, 30, planted=0.0)
        people = np.arange(len(truth)).astype(str)
        known = {"fc": guess}
        found = permutation_p(truth, known, people, kind="regression", seed=repeat, n_draws=199)
        r2.append(SCORERS["regression"](truth, guess)["r2"])
        if np.isfinite(found["fc"]):
            p.append(found["fc"])
    jitter = np.random.default_rng(0).uniform(0, 1 / 200, len(p))
    assert kstest(np.array(p) - jitter, "uniform").pvalue > 0.01
    assert np.mean(r2) < 2 * np.std(r2) / np.sqrt(len(r2))
    assert sum(value < 0.05 for value in p) <= binom.ppf(0.999, len(p), 0.05)


@pytest.mark.slow
def test_a_planted_trait_is_covered_through_a_real_fit() -> None:
    """One fit, many test samples: what the interval is of is that fit's score of all people."""
    rng = np.random.default_rng(5)
    trait = rng.uniform(-1, 1, 100 + 4000)
    features = np.stack([connectivity(_series(one, rng)) for one in trait])
    own, other = span_of_train(features[:100], features[100:])
    groups = [str(number) for number in range(100)]
    guess = predict_from_features(own, trait[:100], groups, other, kind="regression")
    population = SCORERS["regression"](trait[100:], guess)
    assert population["r2"] > 0.3
    held = 0
    for repeat in range(REPEATS):
        chosen = np.random.default_rng(repeat).choice(4000, 60, replace=False)
        truth, told, people = trait[100:][chosen], guess[chosen], chosen.astype(str)
        found = labels_with_ci(
            SCORERS["regression"], truth, told, people, n_draws=200, seed=repeat
        )["r2"]
        held += found["ci_low"] <= population["r2"] <= found["ci_high"]
    assert 0.90 <= held / REPEATS <= 0.99


def _cohort(label, kind: str, series, table: pd.DataFrame, n_train: int, vectors=None) -> Material:
    """Recordings of one subject each, the first `n_train` to train on."""
    names = [f"r{number:03d}" for number in range(len(label))]
    table = table.assign(
        recording_id=names,
        subject=names,
        split=["train"] * n_train + ["test"] * (len(label) - n_train),
    ).set_index("recording_id", drop=False)
    held = dict(zip(names, series, strict=True))
    reader = SimpleNamespace(table=table, series=held.__getitem__, n_parcels=8)
    values = dict(zip(names, label.astype(float), strict=True))
    lengths = {
        split: dict.fromkeys(table.index[table["split"] == split], 80)
        for split in ("train", "val", "test")
    }
    scale = LabelScale.fit(label[:n_train].astype(float), kind, "trait")
    data = LabelledData(values, lengths, scale, {})
    known = None if vectors is None else dict(zip(names, vectors, strict=True))
    return Material(reader, data, "trait", kind, 1000, 0, known)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["regression", "binary"])
def test_no_method_is_a_straw_man(kind) -> None:
    """A trait in connectivity, motion, age and vectors: each method that reads it finds it."""
    rng = np.random.default_rng(1)
    trait = rng.uniform(-1, 1, 140)
    vectors = np.outer(trait, rng.standard_normal(12)) + 0.3 * rng.standard_normal((140, 12))
    table = pd.DataFrame(
        {
            "dataset": "one",
            "mean_fd": 0.2 + 0.05 * trait + 0.02 * rng.standard_normal(140),
            "label_age": 50 + 8 * trait + 3 * rng.standard_normal(140),
        }
    )
    label = trait if kind == "regression" else (trait > 0).astype(float)
    series = [_series(one, rng) for one in trait]
    given = _cohort(label, kind, series, table, 80, vectors.astype(np.float32))
    methods = {**ON_VECTORS, **BASELINES}
    if kind == "binary":  # perceptrons of classes: test_label_baselines
        del methods["mlp"], methods["frozen-mlp"]
    guesses, reasons = predictions_by(methods, given)
    assert set(reasons) == {"site"}
    truth = given.data.truth(given.test)
    metric, least = ("r2", 0.35) if kind == "regression" else ("auroc", 0.8)
    found = {name: SCORERS[kind](truth, guess)[metric] for name, guess in guesses.items()}
    assert found.pop("constant") <= (0 if kind == "regression" else 0.5)
    assert all(value > least for value in found.values()), found


def test_labels_are_scored_by_families(tmp_path) -> None:
    """Intervals, tests and the scores computed again take families; subjects are what is told."""
    rng = np.random.default_rng(2)
    families = np.array([f"f{place // 2}" if place < 20 else None for place in range(60)])
    table = pd.DataFrame({"dataset": "one", "family": families[np.argsort(np.arange(60) < 30)]})
    label = rng.standard_normal(60)
    given = _cohort(label, "regression", np.zeros((60, 80, 8)), table, 30)
    guesses = {"brainlm": label[30:] + rng.standard_normal(30), "flat": np.zeros(30)}
    found = score(guesses, {}, given, bootstrap=100)
    metrics, rows = found.metrics, given.reader.table.loc[given.test]
    assert (metrics["n_subjects"], metrics["n_units"]) == (30, len(set(units_of(rows))))
    assert found.predictions["family"].isna().sum() == rows["family"].isna().sum()
    how = {"n_draws": 100, "seed": given.seed}
    truth = given.data.truth(given.test)
    scorer, guess = scorer_of(given), guesses["brainlm"]
    assert metrics["metrics"] == labels_with_ci(scorer, truth, guess, units_of(rows), **how)
    names = rows["subject"].to_numpy(dtype=np.str_)
    assert metrics["metrics"] != labels_with_ci(scorer, truth, guess, names, **how)
    own = {"kind": "regression", "seed": given.seed}
    p = permutation_p(truth, guesses, names, **own, units=units_of(rows))["brainlm"]
    assert metrics["permutation"]["methods"]["brainlm"]["p"] == p
    expected = compare_errors(guesses, truth, names, "regression", given.seed, units_of(rows))
    assert metrics["tests"] == expected
    assert expected != compare_errors(guesses, truth, names, "regression", given.seed)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    found.predictions.to_parquet(tmp_path / "predictions.parquet")
    paths = tmp_path / "metrics.json", tmp_path / "predictions.parquet"
    again = compare_scores_of("clinical", *paths)
    assert [one.verdict for one in again] == [Verdict.bitwise, Verdict.bitwise]


def test_shuffled_labels_give_chance() -> None:
    rng = np.random.default_rng(2)
    trait = rng.uniform(-1, 1, 120)
    series = [_series(one, rng) for one in trait]
    shuffled = rng.permutation(trait)
    vectors = np.outer(trait, np.ones(4)).astype(np.float32)
    table = pd.DataFrame({"dataset": ["one"] * 120, "mean_fd": trait, "label_age": trait})
    given = _cohort(shuffled, "regression", series, table, 70, vectors)
    asked = {name: one for name, one in {**ON_VECTORS, **BASELINES}.items() if "mlp" not in name}
    guesses, reasons = predictions_by(asked, given)
    found = score(guesses, reasons, given, bootstrap=100).metrics
    methods = {"first": found["metrics"], **found["baselines"]}
    r2 = [one["r2"]["value"] for one in methods.values() if "r2" in one]
    assert max(r2) < 0.1
    p = [one["p_holm"] for one in found["permutation"]["methods"].values()]
    assert min(value for value in p if value is not None) > 0.05


def test_a_trait_of_sites_is_exposed() -> None:
    """One scanner's people are older, and its images differ: connectivity only finds the scanner.

    Site alone scores as well; without the site, or among people of one site, nothing is left.
    """
    rng = np.random.default_rng(4)
    site = np.arange(240) % 3
    label = 10.0 * site + rng.standard_normal(240)
    series = [_series(one - 1.0, rng) for one in site]
    table = pd.DataFrame({"dataset": ["one"] * 240, "site": site.astype(str), "mean_fd": 0.1})
    given = _cohort(label, "regression", series, table, 150)
    methods = {name: BASELINES[name] for name in ("connectivity", "site")}
    guesses, _ = predictions_by(methods, given)
    within, between = (
        score(guesses, {}, given, bootstrap=100, within_sites=one).metrics for one in (True, False)
    )
    connected = within["metrics"]["r2"]["value"]
    assert connected > 0.5 and within["baselines"]["site"]["r2"]["value"] > connected
    assert within["permutation"]["methods"]["connectivity"]["p"] > 0.05
    assert between["permutation"]["methods"]["connectivity"]["p"] < 0.001
    left = leave_site_out(given, {"connectivity": BASELINES["connectivity"]}, 100)
    assert max(one["methods"]["connectivity"]["r2"] for one in left["sites"]) < 0.1


@pytest.mark.parametrize("kind", ["regression", "binary"])
def test_without_their_sites_those_who_know_nothing_are_at_chance(kind) -> None:
    """Sites differ in the label; with all of them together the mean of the others scored r -0.6."""
    rng = np.random.default_rng(6)
    site = np.arange(360) % 3
    label = site + rng.standard_normal(360)
    trait = label - site  # what is left of it within a site
    if kind == "binary":
        label = (label > 1).astype(float)
    vectors = np.outer(trait, np.ones(4)).astype(np.float32)
    table = pd.DataFrame({"dataset": ["one"] * 360, "site": site.astype(str)})
    table["mean_fd"] = rng.uniform(0, 1, 360)
    given = _cohort(label, kind, [None] * 360, table, 180, vectors)
    methods = {name: BASELINES[name] for name in ("constant", "motion")}
    methods["frozen-linear"] = ON_VECTORS["frozen-linear"]
    found = leave_site_out(given, methods, 200)["methods"]
    name, chance = ("pearson", 0.0) if kind == "regression" else ("auroc", 0.5)
    of_nothing = found["constant"][name]["value"]
    assert of_nothing is None if kind == "regression" else of_nothing == 0.5
    assert found["motion"][name]["value"] == pytest.approx(chance, abs=0.15)
    assert found["motion"][name]["ci_low"] < chance < found["motion"][name]["ci_high"]
    assert found["frozen-linear"][name]["value"] > 0.9
    assert found["constant"]["mse" if kind == "regression" else "accuracy"]["value"] is not None
