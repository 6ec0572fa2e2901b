"""Scores are those of the textbooks, intervals cover the truth, and small sets give null."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score

from brainlm.cli.evaluate_clinical import evaluate_clinical
from brainlm.cli.evaluate_reconstruction import evaluate_reconstruction
from brainlm.cli.finetune import finetune
from brainlm.cli.pretrain import pretrain
from brainlm.errors import DataError
from brainlm.evaluate.baselines.connectivity import (
    TooFewError,
    connectivity,
    predict_from_features,
    span_of_train,
)
from brainlm.evaluate.baselines.interpolation import interpolate_hidden
from brainlm.evaluate.statistics import (
    binary_scores,
    labels_with_ci,
    metric,
    regression_scores,
    scores_with_ci,
)
from brainlm.model.mask import TokenMask, generator, random_mask
from brainlm.train.validation import masked_sums, scores

from .synthetic_cohort import make_shards, simulate, write_study


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def _masked() -> tuple[torch.Tensor, torch.Tensor, TokenMask]:
    """Truth and guess (3, hidden, 4) of 5 parcels x 2 patches, parcel 1 of sample 0 missing."""
    covered = torch.ones(3, 5, dtype=torch.bool)
    covered[0, 1] = False
    mask = random_mask(covered, 2, 4, generator(0))
    truth = torch.randn(3, 6, 4, generator=generator(1))
    guess = 0.5 * truth + 0.3 * torch.randn(3, 6, 4, generator=generator(2)) + 0.1
    return truth, guess, mask


def test_sums_give_the_scores_of_the_entries_themselves() -> None:
    truth, guess, mask = _masked()
    sums = masked_sums(truth, guess, mask, 5)
    chosen = mask.target[..., None].expand_as(truth)
    y, p = truth[chosen].double().numpy(), guess[chosen].double().numpy()
    found = scores(sums.sum(axis=(0, 1)))
    assert found["r2"] == pytest.approx(r2_score(y, p))
    assert found["mse"] == pytest.approx(np.mean((y - p) ** 2))
    assert found["pearson"] == pytest.approx(np.corrcoef(y, p)[0, 1])
    assert sums[0, 1].sum() == 0
    assert sums[..., 0].sum() == chosen.sum()
    parcel = (mask.hidden[2] // 2 == 3) & mask.target[2]
    expected = truth[2][parcel].double().sum()
    assert sums[2, 3, 1] == pytest.approx(float(expected))


def test_undefined_scores_are_null_with_a_reason() -> None:
    found = scores(np.array([[4.0, 8, 16, 0, 0, 0], [0, 0, 0, 0, 0, 0]]))  # flat truth; nothing
    assert np.isnan(found["r2"]).all()
    assert found["mse"][0] == 4.0
    assert np.isnan(found["mse"][1])
    told = metric(float("nan"), None)
    assert told["value"] is None
    assert told["reason"]
    result = scores_with_ci(np.ones((2, 6)), 100, 0)
    assert result["mse"]["value"] == 0.0
    assert result["mse"]["ci_low"] is None
    assert "2 test subjects" in result["mse"]["reason"]


def test_scores_of_labels_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(30)
    guess = truth + rng.standard_normal(30)
    found = regression_scores(truth, guess)
    assert found["r2"] == pytest.approx(r2_score(truth, guess))
    assert found["mae"] == pytest.approx(np.abs(truth - guess).mean())
    classes = (truth > 0.3).astype(float)
    chance = np.round(1 / (1 + np.exp(-guess)), 1)  # with ties
    found = binary_scores(classes, chance)
    assert found["auroc"] == pytest.approx(roc_auc_score(classes, chance))
    assert found["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(classes, chance > 0.5)
    )
    assert math.isnan(binary_scores(np.ones(4), chance[:4])["auroc"])
    constant = regression_scores(truth, np.full(30, 0.1))
    assert math.isnan(constant["pearson"])
    assert constant["r2"] < 0  # told as it is, never clipped
    assert math.isnan(regression_scores(truth[:2], guess[:2])["r2"])


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for repeat in range(200):
        # each subject has two recordings with the same error, so n is 40, not 80
        error = np.repeat(rng.standard_normal(40), 2)
        found = labels_with_ci(
            lambda truth, guess: {"mse": float(((truth - guess) ** 2).mean())},
            np.zeros(80),
            error,
            np.repeat(np.arange(40).astype(str), 2),
            n_draws=150,
            seed=repeat,
        )["mse"]
        covered += found["ci_low"] <= 1.0 <= found["ci_high"]
    assert 0.86 <= covered / 200 <= 0.98


def test_interpolation_draws_lines_between_what_is_seen() -> None:
    ramp = np.arange(12.0)
    signal = np.stack([ramp, ramp, ramp])
    visible = np.array([0, 2, 5])  # parcel 0: patches 0 and 2; parcel 1: patch 1 (of 4); none
    visible = np.array([0, 2, 4 + 1])
    filled = interpolate_hidden(signal, visible, patch=3)
    np.testing.assert_allclose(filled[0], [*ramp[:9], 8, 8, 8])
    np.testing.assert_allclose(filled[1], [3, 3, 3, 3, 4, 5, 5, 5, 5, 5, 5, 5])
    np.testing.assert_allclose(filled[2], 0)


def test_connectivity_is_fisher_z_of_the_correlations() -> None:
    rng = np.random.default_rng(0)
    series = rng.standard_normal((50, 4))
    series[:, 1] += series[:, 0]
    found = connectivity(series)
    assert found.shape == (6,)
    assert found[0] == pytest.approx(
        np.arctanh(np.corrcoef(series[:, 0], series[:, 1])[0, 1]), rel=1e-5
    )
    series[:, 2] = np.nan
    assert np.isnan(connectivity(series)).sum() == 3


def test_ridge_in_the_span_is_ridge_on_all_features() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.standard_normal((12, 200)), rng.standard_normal((5, 200))
    truth = rng.standard_normal(12)
    features, test_features = span_of_train(train.astype(np.float32), test.astype(np.float32))
    scale = np.sqrt(((train - train.mean(0)) ** 2).sum() / 12)
    for alpha in (0.01, 1.0):
        small = Ridge(alpha=alpha).fit(features, truth).predict(test_features)
        full = Ridge(alpha=alpha).fit(train / scale, truth).predict(test / scale)
        np.testing.assert_allclose(small, full, atol=1e-5)


def test_connectivity_finds_a_planted_trait_and_nothing_else() -> None:
    rng = np.random.default_rng(2)
    planted = rng.uniform(-1, 1, 90)
    features = np.stack([connectivity(simulate(score, 80, rng)) for score in planted])
    train, test = span_of_train(features[:60], features[60:])
    groups = [str(number) for number in range(60)]
    found = predict_from_features(train, planted[:60], groups, test, kind="regression")
    assert r2_score(planted[60:], found) > 0.5
    classes = (planted > 0).astype(float)
    chance = predict_from_features(train, classes[:60], groups, test, kind="binary")
    assert roc_auc_score(classes[60:], chance) > 0.85
    shuffled = rng.permutation(planted)
    found = predict_from_features(train, shuffled[:60], groups, test, kind="regression")
    assert r2_score(shuffled[60:], found) < 0.2
    with pytest.raises(TooFewError):
        predict_from_features(train, np.r_[1.0, np.zeros(59)], groups, test, kind="binary")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    torch.set_num_threads(1)
    study = write_study(
        tmp_path_factory.mktemp("evaluate") / "study",
        {"train": 12, "val": 3, "test": 6},
        runs=2,
        options={"pretrain": {"epochs": 25, "batch_size": 2, "learning_rate": 0.005}},
    )
    make_shards(study)
    pretrain(study.root)
    finetune("score", study.root)
    finetune("group", study.root)
    return study


def _strict(path):
    """JSON without NaN, which is none."""

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_reconstruction_of_test_subjects_beats_the_mean(study) -> None:
    evaluate_reconstruction(study.root)
    path = study.path("reconstruction", run="brainlm")
    traces = study.path("reconstruction_traces", run="brainlm")
    before = path.read_bytes(), traces.read_bytes()
    found = _strict(path)
    assert found["n_subjects"] == 6
    assert found["n_recordings"] == 12
    r2 = found["metrics"]["r2"]
    assert 0.3 < r2["ci_low"] < r2["value"] < r2["ci_high"] < 1
    assert found["metrics"]["mse"]["value"] < 0.7 * found["baselines"]["zero"]["mse"]["value"]
    assert found["baselines"]["zero"]["r2"]["value"] == pytest.approx(0, abs=0.05)
    assert found["baselines"]["zero"]["pearson"]["value"] is None
    assert set(found["baselines"]) == {"zero", "interpolation"}
    assert len(found["per_parcel_r2"]) == 8
    assert found["Stage"] == "evaluate-reconstruction"
    assert found["Sources"]

    table = pd.read_parquet(traces)
    assert list(table.columns) == ["recording_id", "parcel", "t", "true", "predicted", "masked"]
    assert table["masked"].mean() == pytest.approx(0.75, abs=0.15)
    assert (table["predicted"].isna() == ~table["masked"]).all()
    hidden = table[table["masked"]]
    assert np.corrcoef(hidden["true"], hidden["predicted"])[0, 1] > 0.4

    evaluate_reconstruction(study.root)
    assert (path.read_bytes(), traces.read_bytes()) == before


@pytest.mark.parametrize(("target", "score"), [("score", "r2"), ("group", "auroc")])
def test_labels_of_test_subjects_beside_the_baselines(study, target, score) -> None:
    evaluate_clinical(target, study.root)
    path = study.path("clinical", run="brainlm", target=target)
    before = path.read_bytes()
    found = _strict(path)
    assert set(found["baselines"]) == {"constant", "connectivity", "motion"}
    for block in (found["metrics"], *found["baselines"].values()):
        assert score in block
        for entry in block.values():
            assert (entry["value"] is None) == ("not defined" in entry.get("reason", ""))
    connectivity_score = found["baselines"]["connectivity"][score]["value"]
    assert connectivity_score > (0.3 if score == "r2" else 0.7)
    table = pd.read_parquet(study.path("clinical_predictions", run="brainlm", target=target))
    assert list(table.columns) == [
        "recording_id",
        "subject",
        "true",
        "brainlm",
        "constant",
        "connectivity",
        "motion",
    ]
    assert len(table) == 12
    assert table["constant"].nunique() == 1
    index = pd.read_parquet(study.path("shards_index")).set_index("recording_id")
    truth = index.loc[table["recording_id"], f"label_{target}"]
    if target == "group":
        truth = (truth == "patient").astype(float)
    np.testing.assert_allclose(table["true"], truth.astype(float))
    evaluate_clinical(target, study.root)
    assert path.read_bytes() == before


def test_a_model_of_other_splits_is_refused(study, tmp_path) -> None:
    copy = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    index = copy.path("shards_index")
    table = pd.read_parquet(index)
    moved = table["subject"] == "01"
    table.loc[moved, "split"] = "test"
    table.to_parquet(index)
    for call in (evaluate_reconstruction, lambda root: evaluate_clinical("score", root)):
        with pytest.raises(DataError, match="trained with other splits"):
            call(copy.root)
