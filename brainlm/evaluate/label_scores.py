"""Predictions of a label, scored on the test subjects beside plain baselines.

Whatever is fitted here is fitted on train recordings alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError
from ..shards.reader import ShardReader
from ..train.label_scores import SCORERS
from ..train.labelled import LabelledData
from .cross_validation import TooFewError
from .label_baselines import BASELINES, Material
from .paired import holm, sign_flip_p
from .statistics import labels_with_ci

Floats = NDArray[np.float64]


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


def baselines(given: Material) -> tuple[dict[str, Floats], dict[str, str]]:
    """Predictions of the test recordings by each baseline, and why there are none of some."""
    guesses, reasons = {}, {}
    for name, predict in BASELINES.items():
        try:
            guesses[name] = predict(given)
        except TooFewError as error:
            reasons[name] = str(error)
    return guesses, reasons


def score(
    guesses: Mapping[str, Floats],
    reasons: Mapping[str, str],
    given: Material,
    *,
    bootstrap: int,
    as_frequent: Collection[str] = (),
) -> LabelScores:
    """Score `guesses` of the test recordings, the first as the model's, resampling subjects.

    The others stand as its baselines, and so do those that `reasons` tell could not be fitted.
    Each is tested against the first, subject by subject. Chances are those of equally frequent
    classes, but for the methods `as_frequent`, who learned them as frequent as they are.
    """
    reader, data, kind, seed = given.reader, given.data, given.kind, given.seed
    train, test = given.train, given.test
    truth = data.truth(test)
    subjects = reader.table.loc[test, "subject"].to_numpy(dtype=np.str_)
    table: dict[str, Any] = {
        name: labels_with_ci(SCORERS[kind], truth, guess, subjects, n_draws=bootstrap, seed=seed)
        for name, guess in guesses.items()
    }
    metrics = {
        "target": given.target,
        "kind": kind,
        "metrics": table.pop(next(iter(guesses))),
        "tests": compare_errors(
            guesses if kind == "regression" else _of_true_shares(guesses, given, as_frequent),
            truth,
            subjects,
            kind,
            seed,
        ),
        "baselines": {**table, **{name: {"reason": why} for name, why in reasons.items()}},
        "n_subjects": len(set(subjects)),
        "n_recordings": len(test),
        "n_train_recordings": len(train),
        "n_train_subjects": int(reader.table.loc[train, "subject"].nunique()),
        "n_train_of_connectivity": len(given.drawn),
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


def compare_errors(
    guesses: Mapping[str, Floats], truth: Floats, subjects: NDArray[np.str_], kind: str, seed: int
) -> dict[str, dict[str, float | None]]:
    """Method -> by how much it is worse than the first one, and p of being as good.

    The error of a recording is the squared one, of classes that of their chances (Brier's score);
    a subject's is the mean over its recordings. Sign flips over subjects, Holm over the methods.
    """
    names, owner = np.unique(subjects, return_inverse=True)
    counts = np.bincount(owner)

    def errors_of(guess: Floats) -> Floats:
        if kind == "classes":
            true = np.eye(guess.shape[1])[truth.astype(int)]
            wrong = ((guess - true) ** 2).sum(axis=1)
        else:
            wrong = (guess - truth) ** 2
        return np.bincount(owner, weights=wrong, minlength=len(names)) / counts

    first, *others = guesses
    if not others:
        return {}
    reference = errors_of(guesses[first])
    more = np.stack([errors_of(guesses[name]) - reference for name in others], axis=1)
    p = sign_flip_p(more, seed)
    corrected = holm(p)
    return {
        name: {
            "error_more": _or_none(more[:, place].mean()),
            "p": _or_none(p[place]),
            "p_holm": _or_none(corrected[place]),
        }
        for place, name in enumerate(others)
    }


def _of_true_shares(
    guesses: Mapping[str, Floats], given: Material, as_frequent: Collection[str]
) -> dict[str, Floats]:
    """Chances for classes as frequent as in the train split, which Brier's score asks for."""
    truth, _ = given.fitted_on(given.train)
    shares = np.bincount(truth.astype(int)) / len(truth)
    return {
        name: guess if name in {"constant", *as_frequent} else of_shares(guess, shares)
        for name, guess in guesses.items()
    }


def of_shares(chances: Floats, shares: Floats) -> Floats:
    """Chances of class 1 (n,), or of each (n, classes), from equally frequent classes to `shares`.

    By Bayes's rule: a class that is rare is so beforehand.
    """
    each = np.stack([1 - chances, chances], axis=1) if chances.ndim == 1 else chances
    weighed = each * shares
    weighed /= weighed.sum(axis=1, keepdims=True)
    return np.asarray(weighed[:, 1] if chances.ndim == 1 else weighed)


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
