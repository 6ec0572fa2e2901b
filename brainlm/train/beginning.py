"""A new head begins as the linear model that reads the label best from the frozen encoder.

From a head that knows nothing, tens of labels teach a large network little: its first steps follow
noise, and spoil what pretraining has brought (Kumar et al. 2022: first the linear probe, then all).
A probe is found in closed form, and is good from tens of labels on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from .cross_validation import TooFewError, fit_chosen

_PENALTIES = np.logspace(-3, 5, 9)
_MOST_STEPS = 1000  # of logistic regression


def fit_start(
    seen: NDArray[np.float64],
    truth: NDArray[np.float64],
    subjects: Sequence[str],
    *,
    kind: str,
    class_weights: str,
) -> tuple[Tensor, Tensor] | None:
    """Weights (outputs, features) and biases (outputs,), float64, of the best linear model.

    `seen` (n, features): z-scores of what the head reads of a window; `truth`: scaled labels, or
    numbers of classes. Ridge or logistic regression, whose penalty is chosen by cross-validation
    among subjects; None where there are too few of them.
    """
    scale = seen.shape[1] ** 0.5  # penalties then mean the same for any number of features
    try:
        if kind == "regression":
            ridge = fit_chosen(
                Ridge(), {"alpha": list(_PENALTIES)}, seen / scale, truth, subjects, kind=kind
            ).best_estimator_
            return _as_tensors(ridge.coef_[None] / scale, np.atleast_1d(ridge.intercept_))
        weights = "balanced" if class_weights == "balanced" else None
        logistic = fit_chosen(
            LogisticRegression(max_iter=_MOST_STEPS, class_weight=weights),
            {"C": list(1 / _PENALTIES)},
            seen / scale,
            truth,
            subjects,
            kind=kind,
        ).best_estimator_
    except TooFewError:
        return None
    return _as_tensors(logistic.coef_ / scale, logistic.intercept_)


def _as_tensors(weight: NDArray[np.float64], bias: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(np.array(weight)), torch.from_numpy(np.array(bias))
