"""A label of held-out subjects, predicted by the fine-tuned model and by plain baselines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError
from ..model.heads import LabelModel
from ..model.label_unit import HeadCard
from ..model.mask import count_visible
from ..model.tokenizer import fewest_tokens
from ..shards.reader import ShardReader
from ..train.data import fewest_parcels
from ..train.finetune import LabelledData, predict
from .baselines.connectivity import TooFewError, connectivity, predict_from_features, span_of_train
from .baselines.simple import predict_constant, predict_from_motion
from .statistics import binary_scores, labels_with_ci, regression_scores

Floats = NDArray[np.float64]

BASELINES = ("constant", "connectivity", "motion")


@dataclass(frozen=True)
class ClinicalResult:
    """Scores, and the prediction of each test recording by each method."""

    metrics: dict[str, Any]
    predictions: pd.DataFrame  # recording_id, subject, true, brainlm, one column per baseline


def evaluate_clinical(
    model: LabelModel,
    reader: ShardReader,
    data: LabelledData,
    *,
    target: str,
    kind: str,
    head: HeadCard,
    mask_ratio: float,
    batch_size: int,
    bootstrap: int,
    seed: int,
) -> ClinicalResult:
    """Score the test recordings that have the label, resampling subjects.

    `head` says how the model's outputs become labels.
    """
    train, test = sorted(data.lengths["train"]), sorted(data.lengths["test"])
    if not test:
        raise DataError(
            f"No test recording has the label {target} and the model's "
            f"{model.autoencoder.config.timepoints} time points",
            file=reader.index_path,
            fix="choose another target, or change the split",
        )
    truth = _values(data, test)
    fewest = fewest_parcels(reader, ("test",))
    n_visible = count_visible(mask_ratio, fewest_tokens(model.autoencoder.config, fewest))
    outputs = predict(
        model, reader, data.lengths["test"], n_visible=n_visible, seed=seed, batch_size=batch_size
    )
    raw = np.array([outputs[name] for name in test])
    guesses = {"brainlm": head.to_label(raw)}
    reasons = {}
    for name in BASELINES:
        try:
            guesses[name] = _baseline(name, reader, data, train, test, kind)
        except TooFewError as error:
            reasons[name] = str(error)

    score: Callable[[Floats, Floats], dict[str, float]] = (
        binary_scores if kind == "binary" else regression_scores
    )
    subjects = reader.table.loc[test, "subject"].to_numpy(dtype=np.str_)
    table: dict[str, Any] = {
        name: labels_with_ci(score, truth, guess, subjects, n_draws=bootstrap, seed=seed)
        for name, guess in guesses.items()
    }
    metrics = {
        "task": "clinical",
        "target": target,
        "kind": kind,
        "metrics": table.pop("brainlm"),
        "baselines": {**table, **{name: {"reason": why} for name, why in reasons.items()}},
        "n_subjects": len(set(subjects)),
        "n_recordings": len(test),
        "n_train_recordings": len(train),
        "n_train_subjects": int(reader.table.loc[train, "subject"].nunique()),
        "n_missing_label": data.n_missing,
        "n_visible_tokens": n_visible,
        "train_label_mean": data.scale.mean if kind == "regression" else None,
        "train_label_sd": data.scale.sd if kind == "regression" else None,
        "bootstrap": bootstrap,
        "seed": seed,
    }
    predictions = pd.DataFrame(
        {"recording_id": test, "subject": subjects, "true": truth, **guesses}
    )
    return ClinicalResult(metrics, predictions)


def _baseline(
    name: str,
    reader: ShardReader,
    data: LabelledData,
    train: list[str],
    test: list[str],
    kind: str,
) -> Floats:
    """Predictions of the test recordings by one method fitted on the train recordings."""
    truth = _values(data, train)
    groups = reader.table.loc[train, "subject"].astype(str).tolist()
    if name == "constant":
        return predict_constant(truth, len(test))
    if name == "motion":
        train_fd, test_fd = (
            reader.table.loc[names, "mean_fd"].to_numpy(dtype=float) for names in (train, test)
        )
        if not (np.isfinite(train_fd).all() and np.isfinite(test_fd).all()):
            raise TooFewError("the head motion of some recordings is not known")
        return predict_from_motion(train_fd, truth, groups, test_fd, kind=kind)
    train_fc, test_fc = (
        np.stack([connectivity(reader.series(recording)) for recording in names])
        for names in (train, test)
    )
    features, test_features = span_of_train(train_fc, test_fc)
    return predict_from_features(features, truth, groups, test_features, kind=kind)


def _values(data: LabelledData, names: list[str]) -> Floats:
    return np.array([data.values[name] for name in names])
