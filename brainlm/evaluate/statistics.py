"""Scores with honest uncertainty: what a small test set cannot tell is null, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ..train.validation import Sums, scores

Floats = NDArray[np.float64]

#: A score: its value or NaN, and why it is NaN.
Scorer = Callable[[Floats, Floats], dict[str, float]]

#: With fewer subjects, resamplings that draw the same few again and again make intervals that
#: are far too narrow for means and without bound for R2.
_FEWEST_FOR_CI = 10
#: A resampling may leave a score undefined (one class drawn); a CI needs most of them.
_DEFINED_SHARE = 0.9


def metric(
    value: float, draws: Floats | None, why_no_interval: str | None = None
) -> dict[str, Any]:
    """One score for metrics.json: value and 95% percentile interval, or null and a reason."""
    if not np.isfinite(value):
        return {
            "value": None,
            "ci_low": None,
            "ci_high": None,
            "reason": "not defined on these test recordings: too few, or without variation",
        }
    if draws is not None:
        draws = draws[np.isfinite(draws)] if np.isfinite(draws).mean() >= _DEFINED_SHARE else None
        why_no_interval = why_no_interval or "undefined in too many resamplings"
    if draws is None:
        reason = f"no interval: {why_no_interval}"
        return {"value": float(value), "ci_low": None, "ci_high": None, "reason": reason}
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"value": float(value), "ci_low": float(low), "ci_high": float(high)}


def bootstrap_counts(n_subjects: int, n_draws: int, seed: int) -> NDArray[np.int64] | None:
    """How often each subject is drawn, (draws, subjects); None when there are too few."""
    if n_subjects < _FEWEST_FOR_CI:
        return None
    chances = np.full(n_subjects, 1 / n_subjects)
    return np.random.default_rng(seed).multinomial(n_subjects, chances, size=n_draws)


def too_few_subjects(n_subjects: int) -> str:
    """The reason that goes with a missing interval."""
    return f"{n_subjects} test subjects, a bootstrap needs {_FEWEST_FOR_CI}"


def scores_with_ci(by_subject: Sums, n_draws: int, seed: int) -> dict[str, dict[str, Any]]:
    """R2, MSE and r of sums (subjects, 6), resampling subjects."""
    counts = bootstrap_counts(len(by_subject), n_draws, seed)
    values = scores(by_subject.sum(axis=0))
    drawn = None if counts is None else scores(counts @ by_subject)
    reason = too_few_subjects(len(by_subject)) if drawn is None else None
    return {
        name: metric(float(value), None if drawn is None else drawn[name], reason)
        for name, value in values.items()
    }


def labels_with_ci(
    score: Scorer,
    truth: Floats,
    predicted: Floats,
    subjects: NDArray[np.str_],
    *,
    n_draws: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Any scores of one prediction per recording, resampling subjects with all their recordings."""
    values = score(truth, predicted)
    names, owner = np.unique(subjects, return_inverse=True)
    counts = bootstrap_counts(len(names), n_draws, seed)
    if counts is None:
        reason = too_few_subjects(len(names))
        return {name: metric(value, None, reason) for name, value in values.items()}
    draws: dict[str, list[float]] = {name: [] for name in values}
    for count in counts:
        rows = np.repeat(np.arange(len(truth)), count[owner])
        for name, value in score(truth[rows], predicted[rows]).items():
            draws[name].append(value)
    return {name: metric(value, np.array(draws[name])) for name, value in values.items()}


def regression_scores(truth: Floats, predicted: Floats) -> dict[str, float]:
    """MSE, MAE, R2 (about the mean of the test labels) and Pearson's r; NaN where undefined."""
    error = predicted - truth
    spread = float(((truth - truth.mean()) ** 2).sum())
    varied = len(truth) > 2 and float(np.ptp(truth)) > 0
    related = varied and float(predicted.std()) > 1e-12 * max(1.0, float(np.abs(predicted).max()))
    return {
        "mse": float((error**2).mean()),
        "mae": float(np.abs(error).mean()),
        "r2": 1 - float((error**2).sum()) / spread if varied else np.nan,
        "pearson": float(np.corrcoef(truth, predicted)[0, 1]) if related else np.nan,
    }


def binary_scores(truth: Floats, predicted: Floats) -> dict[str, float]:
    """Balanced accuracy at 0.5 and AUROC of probabilities; NaN with one class only."""
    positive = truth == 1
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    called = predicted > 0.5
    result = {"accuracy": float((called == positive).mean())}
    if not n_pos or not n_neg:
        return {**result, "balanced_accuracy": np.nan, "auroc": np.nan}
    hits, passes = float(called[positive].mean()), float((~called[~positive]).mean())
    # Mann-Whitney: the share of pairs in which the positive one ranks higher, ties by half.
    ranks = rankdata(predicted)[positive].sum()
    area = (ranks - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg)
    return {**result, "balanced_accuracy": (hits + passes) / 2, "auroc": float(area)}


def class_scores(truth: Floats, predicted: Floats) -> dict[str, float]:
    """Accuracy, balanced accuracy and AUROC of probabilities (n, classes) of classes 0, 1, ...

    Balanced accuracy is the mean recall, AUROC the mean over classes of each against all others;
    NaN where a class is missing.
    """
    called = predicted.argmax(axis=1)
    result = {"accuracy": float((called == truth).mean())}
    of_each = [truth == number for number in range(predicted.shape[1])]
    if not all(own.any() for own in of_each):
        return {**result, "balanced_accuracy": np.nan, "auroc": np.nan}
    recall = [float((called[own] == number).mean()) for number, own in enumerate(of_each)]
    areas = [
        binary_scores(own.astype(float), predicted[:, number])["auroc"]
        for number, own in enumerate(of_each)
    ]
    return {
        **result,
        "balanced_accuracy": float(np.mean(recall)),
        "auroc": float(np.mean(areas)),
    }
