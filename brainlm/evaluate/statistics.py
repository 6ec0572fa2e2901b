"""Scores with honest uncertainty: what a small test set cannot tell is null, with the reason."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student

from ..train.label_scores import Scorer
from ..train.validation import Sums, scores
from .error_interval import error_interval

Floats = NDArray[np.float64]

#: Scores that are means of errors, one of each recording: never negative, without an upper bound.
_ERRORS = ("mse", "mae", "mse_scaled")
#: With fewer subjects, resamplings that draw the same few again and again make intervals that
#: are far too narrow for means and without bound for R2.
_FEWEST_FOR_CI = 10
#: A resampling may leave a score undefined (one class drawn); a CI needs most of them.
_DEFINED_SHARE = 0.9
#: Parts of the subjects that are left out in turn.
_MOST_PARTS = 100
#: Beyond, percentiles would leave the distribution.
_MOST_SKEW = 0.25


def metric(
    value: float,
    draws: Floats | None,
    why_no_interval: str | None = None,
    left_out: Floats | None = None,
    n_subjects: int | None = None,
) -> dict[str, Any]:
    """One score for metrics.json: value and 95% interval, or null and a reason.

    `left_out` and `n_subjects`: see `interval`.
    """
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
    low, high = interval(float(value), draws, left_out, n_subjects)
    return {"value": float(value), "ci_low": low, "ci_high": high}


def interval(
    value: float, draws: Floats, left_out: Floats | None = None, n_subjects: int | None = None
) -> tuple[float, float]:
    """95% interval from resamplings: percentiles, mended where they are known to fail.

    R2 of few subjects is skewed and resampled with a bias, so that its percentiles miss the truth
    two or three times too often, nearly always on one side. With `left_out`, the scores
    without a part of the subjects each, percentiles are moved for bias and skew (BCa, Efron 1987);
    with `n_subjects` they are moved out as Student's t and n - 1 ask (Hesterberg 2015).
    """
    ends = norm.ppf([0.025, 0.975]) if n_subjects is None else widened(n_subjects)
    if left_out is not None and (known := left_out[np.isfinite(left_out)]).size > 1:
        below = (draws < value).mean() + (draws == value).mean() / 2
        bias = norm.ppf(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws)))
        away = known.mean() - known
        size = float((away**2).sum()) ** 1.5
        skew = np.clip((away**3).sum() / (6 * size) if size > 0 else 0.0, -_MOST_SKEW, _MOST_SKEW)
        ends = bias + (bias + ends) / (1 - skew * (bias + ends))
    low, high = np.quantile(draws, norm.cdf(ends))
    return float(low), float(high)


def widened(n_subjects: int) -> Floats:
    """Ends (2,) of a 95% interval in standard deviations of the resamplings, as t asks of few."""
    z = np.sqrt(n_subjects / (n_subjects - 1)) * student.ppf(0.975, n_subjects - 1)
    return np.array([-z, z])


def parts_of(n_subjects: int) -> list[NDArray[np.int64]]:
    """Numbers of the subjects that are left out together: each alone, of many a hundredth."""
    return np.array_split(np.arange(n_subjects), min(n_subjects, _MOST_PARTS))


def bootstrap_counts(n_subjects: int, n_draws: int, seed: int) -> NDArray[np.int64] | None:
    """How often each subject is drawn, (draws, subjects); None when there are too few."""
    if n_subjects < _FEWEST_FOR_CI:
        return None
    chances = np.full(n_subjects, 1 / n_subjects)
    return np.random.default_rng(seed).multinomial(n_subjects, chances, size=n_draws)


def too_few_subjects(n_subjects: int) -> str:
    """The reason that goes with a missing interval."""
    return f"{n_subjects} test subjects or families, a bootstrap needs {_FEWEST_FOR_CI}"


def scores_with_ci(by_subject: Sums, n_draws: int, seed: int) -> dict[str, dict[str, Any]]:
    """R2, MSE and r of sums (subjects, 6), resampling their rows: subjects, or families.

    Where guesses were no finite numbers no score is told, and that is the reason, not the test set.
    """
    broken = ~np.isfinite(by_subject).all(axis=1)
    if broken.any():
        reason = f"guesses of {int(broken.sum())} test subjects or families are not finite numbers"
        nothing = {"value": None, "ci_low": None, "ci_high": None, "reason": reason}
        return {name: dict(nothing) for name in scores(by_subject[:1].sum(axis=0))}
    counts = bootstrap_counts(len(by_subject), n_draws, seed)
    values = scores(by_subject.sum(axis=0))
    if counts is None:
        reason = too_few_subjects(len(by_subject))
        return {name: metric(float(value), None, reason) for name, value in values.items()}
    drawn = scores(counts @ by_subject)
    parts = np.stack([by_subject[part].sum(axis=0) for part in parts_of(len(by_subject))])
    left_out = scores(by_subject.sum(axis=0) - parts)
    found = {
        name: metric(float(value), drawn[name], None, left_out[name], len(by_subject))
        for name, value in values.items()
    }
    n, _, truth2, _, guess2, product = by_subject.T
    squares = truth2 + guess2
    errors = squares - 2 * product
    errors[errors < 1e-12 * squares] = 0.0  # rounding
    return {**found, "mse": _of_errors(found["mse"], errors, n, counts)}


def mean_with_ci(
    sums: Floats, sizes: Floats, n_draws: int, seed: int, *, of_errors: bool = False
) -> dict[str, Any]:
    """The mean of what subjects' `sums` (subjects,) of so many numbers (`sizes`) are of.

    `of_errors`: the numbers are never negative and know no upper bound.
    """
    n_subjects, whole = len(sums), sums.sum() / sizes.sum() if sizes.sum() else np.nan
    counts = bootstrap_counts(n_subjects, n_draws, seed)
    if counts is None:
        return metric(float(whole), None, too_few_subjects(n_subjects))
    parts = [(sums[part].sum(), sizes[part].sum()) for part in parts_of(n_subjects)]
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = (counts @ sums) / (counts @ sizes)
        left_out = np.array([(sums.sum() - own) / (sizes.sum() - size) for own, size in parts])
    found = metric(float(whole), draws, None, left_out, n_subjects)
    return _of_errors(found, sums, sizes, counts) if of_errors else found


def _of_errors(
    found: dict[str, Any], sums: Floats, sizes: Floats, counts: NDArray[np.int64]
) -> dict[str, Any]:
    """`found`, a mean of errors, with the interval that such means need.

    Where that is not defined the one found stays, moved by rounding at most to hold the value.
    """
    if found["ci_low"] is None:
        return found
    shares = norm.cdf(widened(len(sums)))
    ends = error_interval(sums, sizes, counts, shares) or (found["ci_low"], found["ci_high"])
    low, high = min(ends[0], found["value"]), max(ends[1], found["value"])
    return {**found, "ci_low": low, "ci_high": high}


def labels_with_ci(
    score: Scorer,
    truth: Floats,
    predicted: Floats,
    units: NDArray[np.str_],
    *,
    n_draws: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Any scores of one prediction per recording, resampling `units` with all their recordings.

    `units` (recordings,): of each its subject, or its family (`units.units_of`).
    """
    values = score(truth, predicted)
    names, owner = np.unique(units, return_inverse=True)
    counts = bootstrap_counts(len(names), n_draws, seed)
    if counts is None:
        reason = too_few_subjects(len(names))
        return {name: metric(value, None, reason) for name, value in values.items()}
    rows = np.arange(len(truth))
    draws = _of_rows(score, truth, predicted, (np.repeat(rows, one[owner]) for one in counts))
    left_out = _of_rows(
        score, truth, predicted, (rows[~np.isin(owner, part)] for part in parts_of(len(names)))
    )
    found = {
        name: metric(value, draws[name], None, left_out[name], len(names))
        for name, value in values.items()
    }
    errors = [name for name in _ERRORS if name in values]
    if errors:
        sizes = np.bincount(owner).astype(np.float64)
        order = np.split(np.argsort(owner, kind="stable"), np.cumsum(sizes[:-1]).astype(int))
        own = _of_rows(score, truth, predicted, order)
        found |= {
            name: _of_errors(found[name], own[name] * sizes, sizes, counts) for name in errors
        }
    return found


def _of_rows(
    score: Scorer, truth: Floats, predicted: Floats, choices: Iterable[NDArray[np.int64]]
) -> dict[str, Floats]:
    """Each score of each choice of recordings."""
    found = [score(truth[rows], predicted[rows]) for rows in choices]
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def or_none(value: float) -> float | None:
    """As JSON has it, which knows no NaN."""
    return float(value) if np.isfinite(value) else None
