"""Predictions of a label, scored on the test subjects beside plain baselines.

Whatever is fitted here is fitted on train recordings alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError
from ..shards.reader import ShardReader
from ..train.label_scores import SCORERS
from ..train.labelled import LabelledData
from .baselines.connectivity import connectivity, predict_from_features, span_of_train
from .baselines.simple import predict_constant, predict_from_motion
from .cross_validation import TooFewError
from .statistics import labels_with_ci

Floats = NDArray[np.float64]

BASELINES = ("constant", "connectivity", "motion")


@dataclass(frozen=True)
class LabelScores:
    """Scores, and the prediction of each test recording by each method."""

    metrics: dict[str, Any]
    predictions: pd.DataFrame  # recording_id, subject, true, one column per method


def recordings_to_score(
    reader: ShardReader, data: LabelledData, target: str, window: int
) -> list[str]:
    """The recordings to be scored; refused when there are none."""
    test = sorted(data.lengths["test"])
    if not test:
        raise DataError(
            f"No test recording has the label {target} and the model's {window} time points",
            file=reader.index_path,
            fix="choose another target, or change the split",
        )
    return test


def baselines(
    reader: ShardReader, data: LabelledData, kind: str
) -> tuple[dict[str, Floats], dict[str, str]]:
    """Predictions of the test recordings by each baseline, and why there are none of some."""
    guesses, reasons = {}, {}
    for name in BASELINES:
        try:
            guesses[name] = _baseline(name, reader, data, kind)
        except TooFewError as error:
            reasons[name] = str(error)
    return guesses, reasons


def score(
    guesses: Mapping[str, Floats],
    reasons: Mapping[str, str],
    reader: ShardReader,
    data: LabelledData,
    *,
    target: str,
    kind: str,
    bootstrap: int,
    seed: int,
) -> LabelScores:
    """Score `guesses` of the test recordings, the first as the model's, resampling subjects.

    The others stand as its baselines, and so do those that `reasons` tell could not be fitted.
    """
    train, test = sorted(data.lengths["train"]), sorted(data.lengths["test"])
    truth = data.truth(test)
    subjects = reader.table.loc[test, "subject"].to_numpy(dtype=np.str_)
    table: dict[str, Any] = {
        name: labels_with_ci(SCORERS[kind], truth, guess, subjects, n_draws=bootstrap, seed=seed)
        for name, guess in guesses.items()
    }
    metrics = {
        "target": target,
        "kind": kind,
        "metrics": table.pop(next(iter(guesses))),
        "baselines": {**table, **{name: {"reason": why} for name, why in reasons.items()}},
        "n_subjects": len(set(subjects)),
        "n_recordings": len(test),
        "n_train_recordings": len(train),
        "n_train_subjects": int(reader.table.loc[train, "subject"].nunique()),
        "n_missing_label": data.n_missing,
        "classes": list(data.classes) or None,
        "bootstrap": bootstrap,
        "seed": seed,
    }
    shown = {
        name: guess.argmax(axis=1).astype(float) if kind == "classes" else guess
        for name, guess in guesses.items()
    }
    predictions = pd.DataFrame({"recording_id": test, "subject": subjects, "true": truth, **shown})
    return LabelScores(metrics, predictions)


def groups_of(reader: ShardReader, names: Sequence[str]) -> list[str]:
    """Whose recordings these are: cross-validation keeps a subject together."""
    return [str(subject) for subject in reader.table.loc[list(names), "subject"]]


def _baseline(name: str, reader: ShardReader, data: LabelledData, kind: str) -> Floats:
    """Predictions of the test recordings by one method fitted on the train recordings."""
    train, test = sorted(data.lengths["train"]), sorted(data.lengths["test"])
    truth, groups = data.truth(train), groups_of(reader, train)
    if name == "constant":
        return predict_constant(truth, len(test), kind=kind)
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
