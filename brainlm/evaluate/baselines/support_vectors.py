"""Support vector regression, or classification, on connectivity: a baseline of BrainLM's paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.svm import SVC, SVR

from ..cross_validation import fit_chosen
from .connectivity import Span

Floats = NDArray[np.float64]

#: Widths of the Gaussian kernel, as shares of the median squared distance between train recordings.
_WIDTHS = (0.3, 1.0, 3.0)
_COSTS = (0.1, 1.0, 10.0, 100.0)


def predict_by_support_vectors(
    span: Span, truth: Floats, groups: Sequence[str], *, kind: str
) -> Floats:
    """As `connectivity.predict_from_features`, of the recordings of a span.

    The kernel (linear, or Gaussian of three widths) and the cost are chosen by cross-validation
    among train subjects. The chances of classes are those of a logistic regression on how far
    subjects lie from boundaries that were drawn without them (Platt 1999); classes weigh alike.
    """
    own, cross = span.train @ span.train.T, span.test @ span.train.T
    power = np.trace(own) / len(own)
    lengths = (span.test**2).sum(axis=1) + span.outside
    squared = np.diag(own)[:, None] + np.diag(own) - 2 * own
    test_squared = lengths[:, None] + np.diag(own) - 2 * cross
    width = np.median(squared[np.triu_indices(len(squared), 1)])
    kernels = [(own / power, cross / power)]
    kernels += [
        (np.exp(-squared / (share * width)), np.exp(-test_squared / (share * width)))
        for share in _WIDTHS
    ]
    if kind == "regression":
        center, spread = truth.mean(), truth.std() or 1.0
        model, goal = SVR(kernel="precomputed"), (truth - center) / spread
    else:
        model, goal = SVC(kernel="precomputed", class_weight="balanced"), truth
    fits = [
        (
            fit_chosen(model, {"C": list(_COSTS)}, kernel, goal, groups, kind=kind, chances=False),
            kernel,
            of_test,
        )
        for kernel, of_test in kernels
    ]
    best, own_kernel, shown = max(fits, key=lambda fit: fit[0].best_score_)
    if kind == "regression":
        return np.asarray(best.predict(shown)) * spread + center
    decided = cross_val_predict(
        best.best_estimator_, own_kernel, goal, cv=best.cv, method="decision_function"
    )
    platt = LogisticRegression(class_weight="balanced", max_iter=1000)
    platt.fit(decided.reshape(len(goal), -1), goal)
    chance = platt.predict_proba(best.decision_function(shown).reshape(len(shown), -1))
    return np.asarray(chance[:, 1] if kind == "binary" else chance)
