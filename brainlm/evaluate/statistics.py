"""Scores with honest uncertainty: what a small test set cannot tell is null, with the reason."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..train.label_scores import Scorer
from ..train.validation import Sums, scores

Floats = NDArray[np.float64]

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


def or_none(value: float) -> float | None:
    """As JSON has it, which knows no NaN."""
    return float(value) if np.isfinite(value) else None
