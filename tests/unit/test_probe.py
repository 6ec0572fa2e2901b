"""Probes find what is planted in the vectors, and see no test label before they are scored."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from brainlm.cli.embed import embed
from brainlm.cli.pretrain import pretrain
from brainlm.cli.probe import probe
from brainlm.errors import DataError
from brainlm.evaluate.baselines.connectivity import predict_from_features
from brainlm.evaluate.baselines.simple import predict_constant
from brainlm.evaluate.cross_validation import TooFewError
from brainlm.evaluate.embeddings import read_embeddings
from brainlm.evaluate.label_baselines import BASELINES, Material
from brainlm.evaluate.probe import evaluate_probe, mean_of_subjects, predict_from_neighbours
from brainlm.shards.reader import ShardReader
from brainlm.train.label_scores import class_scores
from brainlm.train.labelled import labelled_data
from brainlm.train.settings import TargetSettings

from .synthetic_cohort import make_shards, write_study

SCORE = TargetSettings("score", "regression", None, None, "zscore")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = write_study(
        tmp_path_factory.mktemp("probe") / "study", {"train": 20, "val": 2, "test": 12}
    )
    make_shards(study)
    pretrain(study.root)
    embed(study.root)
    return study


@pytest.fixture(scope="module")
def reader(study):
    return ShardReader(study.path("shards_index"))


def _vectors(reader, rng) -> dict[str, np.ndarray]:
    """Eight numbers, in which the score lies beside noise."""
    scores = reader.table["label_score"].astype(float)
    way = rng.standard_normal(8)
    return {
        name: (score * way + 0.2 * rng.standard_normal(8)).astype(np.float32)
        for name, score in scores.items()
    }


def _evaluate(vectors, reader, data):
    given = Material(reader, data, "score", "regression", 1000, 0, vectors)
    return evaluate_probe(given, window=40, bootstrap=100)


def test_a_planted_score_is_read_from_the_vectors(reader) -> None:
    data = labelled_data(reader, SCORE, 40)
    found = _evaluate(_vectors(reader, np.random.default_rng(0)), reader, data).metrics
    assert found["metrics"]["r2"]["value"] > 0.9
    assert found["neighbours"]["r2"]["value"] > 0.6
    assert set(found["baselines"]) == set(BASELINES)
    low, high = (found["metrics"]["r2"][key] for key in ("ci_low", "ci_high"))
    assert low < found["metrics"]["r2"]["value"] < high


def test_no_test_label_nor_vector_reaches_a_fit(reader, monkeypatch) -> None:
    vectors = _vectors(reader, np.random.default_rng(0))
    before = _evaluate(vectors, reader, labelled_data(reader, SCORE, 40)).predictions
    table = reader.table.copy()
    tested = table["split"] == "test"
    table.loc[tested, "label_score"] = np.linspace(50, 90, int(tested.sum()))
    monkeypatch.setattr(reader, "table", table)
    last = sorted(table.index[tested])[-1]
    vectors[last] = vectors[last] * 1000
    after = _evaluate(vectors, reader, labelled_data(reader, SCORE, 40)).predictions
    others = (before["recording_id"] != last).to_numpy()
    for name in ("linear", "neighbours", "constant", "connectivity"):
        np.testing.assert_array_equal(before.loc[others, name], after.loc[others, name])
    assert not np.allclose(before["true"], after["true"])


def test_the_command_scores_vectors_that_embed_made(study) -> None:
    probe("score", study.root)
    probe("group", study.root)
    score, group = (
        json.loads(study.path("probe", run="brainlm", target=name).read_text())
        for name in ("score", "group")
    )
    assert score["n_subjects"] == group["n_subjects"] == 12
    assert set(score["metrics"]) == {"mse", "mae", "r2", "pearson", "mse_scaled"}
    assert set(group["neighbours"]) == {"accuracy", "balanced_accuracy", "auroc", "auprc"}
    table = pd.read_parquet(study.path("probe_predictions", run="brainlm", target="score"))
    assert list(table.columns[:5]) == ["recording_id", "subject", "true", "linear", "neighbours"]
    mse = float(((table["linear"] - table["true"]) ** 2).mean())
    assert score["metrics"]["mse"]["value"] == pytest.approx(mse)


def test_vectors_of_a_subject_may_be_averaged(tmp_path) -> None:
    """What differs between a subject's recordings is noise that the mean has less of."""
    study = write_study(tmp_path / "study", {"train": 12, "val": 1, "test": 8}, runs=3)
    reader = ShardReader(make_shards(study))
    data = labelled_data(reader, SCORE, 40)
    rng = np.random.default_rng(0)
    vectors = {
        name: vector + rng.standard_normal(8).astype(np.float32)
        for name, vector in _vectors(reader, rng).items()
    }
    means = mean_of_subjects(vectors, reader)
    names = [f"sub-03_task-rest_run-{run}" for run in range(1, 4)]
    for name in names:
        expected = np.mean([vectors[other] for other in names], axis=0)
        np.testing.assert_allclose(means[name], expected, rtol=1e-5, atol=1e-6)
    found = [_evaluate(some, reader, data).metrics for some in (vectors, means)]
    single, averaged = (one["metrics"]["mse"]["value"] for one in found)
    assert averaged < 0.8 * single
    assert {one["n_recordings"] for one in found} == {24}
    assert {one["n_subjects"] for one in found} == {8}


def test_the_command_reads_the_pool_it_is_told_for_all_kinds(study, tmp_path) -> None:
    copy = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    index = pd.read_parquet(copy.path("shards_index"))
    index["label_three"] = np.resize(["a", "b", "c"], len(index))
    index.to_parquet(copy.path("shards_index"), index=False)
    config = json.loads(copy.path("config").read_text())
    config["probe"] = {"pool": "cls", "average": True}
    config["finetune"]["targets"].append({"name": "three", "kind": "classes"})
    copy.path("config").write_text(json.dumps(config))
    pretrain(copy.root)
    embed(copy.root)
    guesses = {}
    for target in ("score", "group", "three"):
        probe(target, copy.root)
        path = copy.path("probe_predictions", run="brainlm", target=target)
        guesses[target] = pd.read_parquet(path)[["linear", "neighbours"]].to_numpy()
        assert np.isfinite(guesses[target]).all()
    assert set(np.unique(guesses["three"])) <= {0, 1, 2}
    assert guesses["group"].min() >= 0 and guesses["group"].max() <= 1

    names, vectors = read_embeddings(copy.path("embeddings", run="brainlm"), "cls")
    reader = ShardReader(copy.path("shards_index"))
    data = labelled_data(reader, SCORE, 40)
    expected = _evaluate(dict(zip(names, vectors, strict=True)), reader, data).predictions
    np.testing.assert_allclose(guesses["score"], expected[["linear", "neighbours"]], rtol=1e-5)


def test_a_label_that_few_have_is_probed_or_refused(reader, monkeypatch) -> None:
    """Nobody to validate on does no harm: a probe does not."""
    vectors, whole = _vectors(reader, np.random.default_rng(0)), reader.table
    train, test = (list(whole.index[whole["split"] == split]) for split in ("train", "test"))

    def only(count: int) -> None:
        label = whole["label_score"].where(whole.index.isin([*train[:count], *test]))
        monkeypatch.setattr(reader, "table", whole.assign(label_score=label))

    only(4)
    with pytest.raises(DataError, match="0 recordings to validate on"):
        labelled_data(reader, SCORE, 40)
    found = _evaluate(vectors, reader, labelled_data(reader, SCORE, 40, validates=False)).metrics
    assert (found["n_train_subjects"], found["n_missing_label"]) == (4, 18)
    only(2)
    with pytest.raises(DataError, match=r"2 to train on \(needed 3\)\n"):
        labelled_data(reader, SCORE, 40, validates=False)


def test_vectors_of_another_model_are_refused(study, tmp_path) -> None:
    copy = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    config = json.loads(copy.path("config").read_text())
    config["seed"] = 5
    copy.path("config").write_text(json.dumps(config))
    pretrain(copy.root)
    with pytest.raises(DataError, match="of another model or of other shards"):
        probe("score", copy.root)
    embed(copy.root)
    probe("score", copy.root)


@settings(max_examples=5, deadline=None)
@given(st.integers(3, 5), st.integers(0, 100))
def test_classes_are_told_apart_as_if_equally_frequent(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.full(5, n) for n in range(classes)] + [np.zeros(30)]).astype(float)
    centres = 4 * np.eye(classes)
    features = centres[truth.astype(int)] + rng.standard_normal((len(truth), classes))
    groups = [str(number) for number in range(len(truth))]
    for predict in (predict_from_features, predict_from_neighbours):
        chance = predict(features, truth, groups, centres, kind="classes")
        assert chance.shape == (classes, classes)
        np.testing.assert_allclose(chance.sum(axis=1), 1)
        np.testing.assert_array_equal(chance.argmax(axis=1), range(classes))
    shares = predict_constant(truth, 2, kind="classes")
    np.testing.assert_allclose(shares[0], np.bincount(truth.astype(int)) / len(truth))


def test_one_subject_of_a_class_is_too_few() -> None:
    truth = np.array([0.0, 0, 0, 1])
    with pytest.raises(TooFewError):
        predict_from_neighbours(truth[:, None], truth, list("abcd"), truth[:, None], kind="binary")


def test_the_number_of_neighbours_is_chosen_on_other_subjects() -> None:
    rng = np.random.default_rng(0)
    # five nearly equal recordings of each subject, and a label that nothing predicts
    features = np.repeat(rng.standard_normal((30, 20)), 5, axis=0)
    label = np.repeat(rng.standard_normal(30), 5)
    groups = [str(number // 5) for number in range(150)]
    guess = predict_from_neighbours(
        features, label, groups, rng.standard_normal((40, 20)), kind="regression"
    )
    assert guess.std() < 0.5


def test_scores_of_classes_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 60).astype(float)
    chance = rng.dirichlet(np.ones(3), 60)
    chance[np.arange(60), truth.astype(int)] += 0.3
    chance /= chance.sum(axis=1, keepdims=True)
    found = class_scores(truth, chance)
    assert found["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(truth, chance.argmax(axis=1))
    )
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, chance, multi_class="ovr"))
    assert np.isnan(class_scores(np.zeros(60), chance)["auroc"])
