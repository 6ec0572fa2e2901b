"""Scores are those of the textbooks, intervals cover the truth, and small sets give null."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t as student
from sklearn.linear_model import Ridge
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    r2_score,
    roc_auc_score,
)

from brainlm.cli.embed import embed
from brainlm.cli.evaluate_clinical import evaluate_clinical
from brainlm.cli.evaluate_reconstruction import evaluate_reconstruction
from brainlm.cli.finetune import finetune
from brainlm.cli.pretrain import pretrain
from brainlm.cli.probe import probe
from brainlm.config import load_config
from brainlm.errors import DataError
from brainlm.evaluate.baselines.connectivity import (
    predict_from_features,
    span_of_train,
)
from brainlm.evaluate.baselines.correlations import connectivity
from brainlm.evaluate.clinical import METHODS
from brainlm.evaluate.cross_validation import TooFewError
from brainlm.evaluate.statistics import labels_with_ci, metric, scores_with_ci
from brainlm.model.checkpoint import load_model
from brainlm.model.heads import LabelModel
from brainlm.model.mask import generator
from brainlm.provenance import sha256_file
from brainlm.shards.reader import ShardReader
from brainlm.shards.scaler import load_scaler, save_scaler
from brainlm.shards.tensorfile import load_tensors, save_tensors
from brainlm.train.finetune import predict
from brainlm.train.label_scores import binary_scores, regression_scores
from brainlm.train.validation import masked_sums, scores

from .synthetic_cohort import make_shards, simulate, write_study


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def _masked() -> tuple[torch.Tensor, torch.Tensor]:
    """Truth (3, 5 parcels, 8), NaN where nothing is hidden and in parcel 1 of sample 0; a guess."""
    truth = torch.randn(3, 5, 8, generator=generator(1))
    guess = 0.5 * truth + 0.3 * torch.randn(3, 5, 8, generator=generator(2)) + 0.1
    shown = torch.rand(3, 5, 2, generator=generator(0)) < 0.4
    truth[shown.repeat_interleave(4, dim=2)] = torch.nan
    truth[0, 1] = torch.nan
    return truth, guess


def test_sums_give_the_scores_of_the_entries_themselves() -> None:
    truth, guess = _masked()
    sums = masked_sums(truth, guess)
    chosen = ~truth.isnan()
    y, p = truth[chosen].double().numpy(), guess[chosen].double().numpy()
    found = scores(sums.sum(axis=(0, 1)))
    assert found["r2"] == pytest.approx(r2_score(y, p))
    assert found["mse"] == pytest.approx(np.mean((y - p) ** 2))
    assert found["pearson"] == pytest.approx(np.corrcoef(y, p)[0, 1])
    assert sums[0, 1].sum() == 0
    assert sums[..., 0].sum() == chosen.sum()
    assert sums[2, 3, 1] == pytest.approx(float(truth[2, 3].double().nansum()))


def test_undefined_scores_are_null_with_a_reason() -> None:
    found = scores(np.array([[4.0, 8, 16, 0, 0, 0], [0, 0, 0, 0, 0, 0]]))  # flat truth; nothing
    assert np.isnan(found["r2"]).all()
    assert found["mse"][0] == 4.0
    assert np.isnan(found["mse"][1])
    told = metric(float("nan"), None)
    assert told["value"] is None
    assert told["reason"]
    result = scores_with_ci(np.ones((9, 6)), 100, 0)
    assert result["mse"]["value"] == 0.0
    assert result["mse"]["ci_low"] is None
    assert "9 test subjects" in result["mse"]["reason"]
    rng = np.random.default_rng(0)
    errors = rng.uniform(1, 3, 40)
    sums = np.stack([np.full(40, 4.0), *np.zeros((2, 40)), *np.zeros((2, 40)), np.zeros(40)], 1)
    sums[:, 2] = errors  # squared truth, guessed as 0: the error of each subject
    found = scores_with_ci(sums, 2000, 0)["mse"]
    sem = float(errors.std(ddof=1)) / np.sqrt(40) / 4
    width = 2 * student.ppf(0.975, 39) * sem  # an interval for few subjects is a little wider
    assert width < found["ci_high"] - found["ci_low"] < 1.15 * width


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
    assert found["auprc"] == pytest.approx(average_precision_score(classes, chance))
    assert math.isnan(binary_scores(np.ones(4), chance[:4])["auroc"])
    constant = regression_scores(truth, np.full(30, 0.1))
    assert math.isnan(constant["pearson"])
    assert constant["r2"] < 0  # told as it is, never clipped
    assert math.isnan(regression_scores(truth[:2], guess[:2])["r2"])
    one_subject = np.full(7, 51.7)  # whose mean in floating point is not 51.7
    assert math.isnan(regression_scores(one_subject, guess[:7])["r2"])


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
    embed(study.root)
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
    assert 0.3 < found["metrics"]["r2"]["value"] < 1
    assert "6 test subjects" in found["metrics"]["r2"]["reason"]
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
    assert set(found["baselines"]) == set(METHODS)
    # All are of one site, and nothing is known of anybody's age or sex.
    without = {name for name, block in found["baselines"].items() if set(block) == {"reason"}}
    assert without == {"site", "demographics"}
    fitted = [name for name in METHODS if name not in without]
    assert set(found["tests"]) == set(fitted)
    for block in (found["metrics"], *(found["baselines"][name] for name in fitted)):
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
        *fitted,
    ]
    assert len(table) == 12
    assert table["constant"].nunique() == 1
    index = pd.read_parquet(study.path("shards_index")).set_index("recording_id")
    truth = index.loc[table["recording_id"], f"label_{target}"]
    if target == "group":
        truth = (truth == "patient").astype(float)
    np.testing.assert_allclose(table["true"], truth.astype(float))
    train = index.loc[index["split"] == "train", f"label_{target}"]
    if target == "group":
        train = train == "patient"
    np.testing.assert_allclose(table["constant"], train.astype(float).mean())
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


def test_the_penalty_is_chosen_on_other_subjects() -> None:
    rng = np.random.default_rng(0)
    # five nearly equal recordings of each subject, and a label that nothing predicts
    features = np.repeat(rng.standard_normal((30, 20)), 5, axis=0)
    features += 0.01 * rng.standard_normal(features.shape)
    label = np.repeat(rng.standard_normal(30), 5)
    groups = [str(number // 5) for number in range(150)]
    test = rng.standard_normal((40, 20))
    for kind, truth, most in (("regression", label, 0.7), ("binary", label > 0, 0.2)):
        found = predict_from_features(features, truth.astype(float), groups, test, kind=kind)
        assert found.std() < most, kind


def test_a_baseline_calls_a_rare_class_as_readily_as_the_model() -> None:
    rng = np.random.default_rng(0)
    truth = (np.arange(600) % 10 == 0).astype(float)
    features = rng.standard_normal((600, 3))
    features[:, 0] += 1.5 * truth
    groups = [str(number) for number in range(300)]
    chance = predict_from_features(
        features[:300], truth[:300], groups, features[300:], kind="binary"
    )
    found = binary_scores(truth[300:], chance)
    assert found["auroc"] > 0.8
    assert found["balanced_accuracy"] > 0.7


def _changed_config(study, folder, before: str, after: str):
    copy = type(study)(shutil.copytree(study.root, folder))
    text = copy.path("config").read_text()
    assert before in text
    copy.path("config").write_text(text.replace(before, after))
    return copy


def test_a_model_of_another_scaling_is_refused(study, tmp_path) -> None:
    copy = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    folder = copy.path("model", run="brainlm").parent
    path = folder / "normalization.safetensors"
    scaler = load_scaler(path)
    save_scaler(path, replace(scaler, iqr=2 * scaler.iqr))
    config = json.loads((folder / "config.json").read_text())
    config["sha256"][path.name] = sha256_file(path)
    (folder / "config.json").write_text(json.dumps(config))
    for call in (evaluate_reconstruction, lambda root: finetune("score", root)):
        with pytest.raises(DataError, match=r"trained with another normalization\.safetensors"):
            call(copy.root)


def test_a_head_of_other_labels_is_refused(study, tmp_path) -> None:
    turned = _changed_config(study, tmp_path / "turned", '"patient"', '"control"')
    with pytest.raises(DataError, match="fine-tuned on other values of the label group"):
        evaluate_clinical("group", turned.root)
    copy = type(study)(shutil.copytree(study.root, tmp_path / "mended"))
    table = pd.read_parquet(copy.path("shards_index"))
    table["label_score"] *= 12
    table.to_parquet(copy.path("shards_index"))
    with pytest.raises(DataError, match="fine-tuned on other values of the label score") as caught:
        evaluate_clinical("score", copy.root)
    assert caught.value.fix is not None
    assert "brainlm finetune --target score" in caught.value.fix


def test_test_recordings_that_are_all_too_short_are_refused(study, tmp_path) -> None:
    copy = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    table = pd.read_parquet(copy.path("shards_index"))
    table.loc[table["split"] == "test", "n_timepoints"] = 39
    table.to_parquet(copy.path("shards_index"))
    for shard in set(table.loc[table["split"] == "test", "shard"]):
        tensors, about = load_tensors(copy.path("shards_index").with_name(shard))
        short = {name: values[:39] for name, values in tensors.items()}
        save_tensors(copy.path("shards_index").with_name(shard), short, about)
    with pytest.raises(DataError, match="No recording of the test split has the model's 40"):
        evaluate_reconstruction(copy.root)
    with pytest.raises(DataError, match="has the label score and the model's 40 time points"):
        evaluate_clinical("score", copy.root)


def test_thresholds_logarithms_and_classes_go_the_whole_way(study, tmp_path) -> None:
    copy = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    table = pd.read_parquet(copy.path("shards_index"))
    score = table["label_score"].astype(float)
    table["label_points"] = (40 * (score + 1)).round()
    table["label_three"] = np.select([score < -0.3, score < 0.3], ["low", "middle"], "top")
    table.to_parquet(copy.path("shards_index"))
    config = json.loads(copy.path("config").read_text())
    config["finetune"]["targets"] = [
        {"name": "points", "transform": "log-minmax"},
        {"name": "score", "kind": "binary", "threshold": 0},
        {"name": "three", "kind": "classes"},
    ]
    copy.path("config").write_text(json.dumps(config))
    pretrain(copy.root)
    embed(copy.root)
    for target in ("points", "score", "three"):
        finetune(target, copy.root)
        evaluate_clinical(target, copy.root)
    probe("three", copy.root)
    points, _, three = (
        pd.read_parquet(copy.path("clinical_predictions", run="brainlm", target=name))
        for name in ("points", "score", "three")
    )
    assert points["brainlm"].between(5, 60).all()  # the median on the scale of logarithms
    assert set(three["brainlm"]) <= {0.0, 1.0, 2.0}
    found = json.loads(copy.path("clinical", run="brainlm", target="three").read_text())
    assert found["classes"] == ["low", "middle", "top"]
    assert set(found["baselines"]["constant"]) == {
        "accuracy",
        "balanced_accuracy",
        "auroc",
        "auprc",
    }
    config["finetune"]["targets"][1]["threshold"] = 0.1
    copy.path("config").write_text(json.dumps(config))
    with pytest.raises(DataError, match="fine-tuned on other values of the label score"):
        evaluate_clinical("score", copy.root)


def test_predictions_are_the_models_in_the_unit_of_the_label(study) -> None:
    evaluate_clinical("score", study.root)
    table = pd.read_parquet(study.path("clinical_predictions", run="brainlm", target="score"))
    loaded = load_model(study.path("finetuned", run="brainlm", target="score").parent)
    assert isinstance(loaded.model, LabelModel)
    reader = ShardReader(study.path("shards_index"))
    config = load_config(study.path("config"))
    outputs = predict(
        loaded.model,
        reader,
        reader.lengths("test"),
        mask_ratio=loaded.card.head_mask_ratio,
        seed=config.seed,
        batch_size=config.finetune.batch_size,
    )
    labels = reader.recordings("train")["label_score"].astype(float)
    z_scores = np.array([outputs[name] for name in table["recording_id"]])
    expected = labels.mean() + labels.std(ddof=0) * z_scores
    np.testing.assert_allclose(table["brainlm"], expected, rtol=1e-6)
