"""How well labels are guessed, in their own unit, one guess for each recording."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .validation import Measured, defined, group_rows

Floats = NDArray[np.float64]

#: A score by its name, NaN where it is not defined, of labels and guesses.
Scorer = Callable[[Floats, Floats], dict[str, float]]


def regression_scores(truth: Floats, predicted: Floats) -> dict[str, float]:
    """MSE, MAE, R2 (about the mean of the test labels) and Pearson's r; NaN where undefined."""
    error, around = predicted - truth, truth - truth.mean()
    squared, spread = float(error @ error), float(around @ around)
    varied = len(truth) > 2 and truth.max() > truth.min()
    told = predicted - predicted.mean()
    size = float(told @ told)
    flat = len(truth) * (1e-12 * max(1.0, float(np.abs(predicted).max()))) ** 2
    return {
        "mse": squared / len(truth),
        "mae": float(np.abs(error).mean()),
        "r2": 1 - squared / spread if varied else np.nan,
        "pearson": float(told @ around) / (size * spread) ** 0.5
        if varied and size > flat
        else np.nan,
    }


def binary_scores(truth: Floats, predicted: Floats) -> dict[str, float]:
    """Balanced accuracy at 0.5, AUROC and AUPRC of probabilities; NaN with one class only."""
    positive = truth == 1
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    called = predicted > 0.5
    result = {"accuracy": float((called == positive).mean())}
    if not n_pos or not n_neg:
        return {**result, "balanced_accuracy": np.nan, "auroc": np.nan, "auprc": np.nan}
    hits, passes = float(called[positive].mean()), float((~called[~positive]).mean())
    area, precision = areas(positive, predicted)
    return {
        **result,
        "balanced_accuracy": (hits + passes) / 2,
        "auroc": area,
        "auprc": precision,
    }


def areas(positive: NDArray[np.bool_], predicted: Floats) -> tuple[float, float]:
    """AUROC and AUPRC, of all thresholds in one sorting.

    The first is the share of pairs in which the positive one ranks higher, ties by half. The second
    lies below precision over recall, in steps: each positive counts with its threshold's precision
    (Davis & Goadrich 2006 on why no straight lines are drawn between steps); guessing at random
    scores the share of positives.
    """
    order = np.argsort(-predicted, kind="stable")
    sorted_guesses, found = predicted[order], np.cumsum(positive[order])
    # Of equal guesses only the last place is a threshold.
    last = np.ones(len(order), bool)
    np.not_equal(sorted_guesses[1:], sorted_guesses[:-1], out=last[:-1])
    ends = np.flatnonzero(last)
    hits, called = found[ends], ends + 1
    gained = np.diff(hits, prepend=0)
    wrong = np.diff(called - hits, prepend=0)
    n_pos, n_neg = int(found[-1]), len(order) - int(found[-1])
    area = (wrong * (hits - gained / 2)).sum() / (n_pos * n_neg)
    return float(area), float((gained * hits / called).sum() / n_pos)


def class_scores(truth: Floats, predicted: Floats) -> dict[str, float]:
    """Accuracy, balanced accuracy, AUROC and AUPRC of chances (n, classes) of classes 0, 1, ...

    Balanced accuracy is the mean recall, AUROC and AUPRC the mean over classes of each against all
    others; NaN where a class is missing.
    """
    called = predicted.argmax(axis=1)
    result = {"accuracy": float((called == truth).mean())}
    of_each = [truth == number for number in range(predicted.shape[1])]
    if not all(own.any() for own in of_each):
        return {**result, "balanced_accuracy": np.nan, "auroc": np.nan, "auprc": np.nan}
    recall = [float((called[own] == number).mean()) for number, own in enumerate(of_each)]
    of_classes = [
        binary_scores(own.astype(float), predicted[:, number]) for number, own in enumerate(of_each)
    ]
    return {
        **result,
        "balanced_accuracy": float(np.mean(recall)),
        "auroc": float(np.mean([one["auroc"] for one in of_classes])),
        "auprc": float(np.mean([one["auprc"] for one in of_classes])),
    }


#: By the kind of label; probabilities are guessed of classes.
SCORERS: dict[str, Scorer] = {
    "regression": regression_scores,
    "binary": binary_scores,
    "classes": class_scores,
}


def measured_labels(
    kind: str,
    loss: float,
    names: Sequence[str],
    truth: Floats,
    guessed: Floats,
    table: pd.DataFrame,
) -> Measured:
    """What a validation says of guesses of the recordings `names`; `table` is the shards' index.

    Labels and guesses are in the label's own unit; of classes, probabilities are guessed.
    """

    def score(places: NDArray[np.int64]) -> Mapping[str, float | None]:
        found = SCORERS[kind](truth[places], guessed[places])
        return {name: defined(value) for name, value in found.items()}

    overall = {f"val_{name}": value for name, value in score(np.arange(len(names))).items()}
    columns = {"guessed": guessed} if guessed.ndim == 1 else dict(_by_class(guessed))
    return Measured(
        {"val_loss": loss, **overall, "val_recordings": len(names)},
        group_rows(table, names, score),
        labels=pd.DataFrame({"recording_id": list(names), "true": truth, **columns}),
    )


def _by_class(guessed: Floats) -> Sequence[tuple[str, Floats]]:
    return [(f"guessed_{number}", column) for number, column in enumerate(guessed.T)]
