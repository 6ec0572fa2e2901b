"""Ridge (or logistic) regression on functional connectivity: the baseline to beat.

Features are the Fisher-z correlations of all pairs of parcels, 89,676 for 424. A penalty on
the squared weights does not see a rotation of the features, so everything is computed in the
span of the train recordings (as many dimensions as recordings), which is exact and cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, softmax
from sklearn.linear_model import LogisticRegression, Ridge

from ..cross_validation import TooFewError, fit_chosen

Floats = NDArray[np.float64]

_ALPHAS = np.logspace(-3, 5, 9)
_LARGEST_R = 0.999999


def connectivity(series: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Upper triangle of the correlation matrix, Fisher-z, of a recording (time, parcels).

    Pairs with a parcel that has no data, or does not vary, are NaN.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.corrcoef(series, rowvar=False)
    upper = r[np.triu_indices(r.shape[0], k=1)]
    return np.arctanh(np.clip(upper, -_LARGEST_R, _LARGEST_R)).astype(np.float32)


def centred(train: NDArray[np.float32], test: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Both less the mean of the train rows; pairs that a recording lacks are the mean's."""
    known = ~np.isnan(train)
    mean = np.where(known, train, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    around = np.where(known, train - mean, 0).astype(np.float64)
    return around, np.where(np.isnan(test), 0, test - mean).astype(np.float64)


def span_of_train(train: NDArray[np.float32], test: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Coordinates of both in the span of the centred train rows; missing pairs are the mean's.

    Features are divided by one common number, so that penalties mean the same in any atlas. The
    axes are found from products of rows or of columns, whichever are fewer: vectors of many
    recordings have few columns. Raises `TooFewError` where nothing varies.
    """
    around, around_test = centred(train, test)
    wide = around.shape[1] > len(around)
    values, vectors = np.linalg.eigh(around @ around.T if wide else around.T @ around)
    kept = values > values.max(initial=0) * 1e-10
    if not kept.any():
        raise TooFewError("what it reads is the same in all train recordings")
    axes = around.T @ (vectors[:, kept] / np.sqrt(values[kept])) if wide else vectors[:, kept]
    scale = np.sqrt(values[kept].sum() / len(train))
    return around @ axes / scale, around_test @ axes / scale


def predict_from_features(
    train: Floats,
    truth: Floats,
    groups: Sequence[str],
    test: Floats,
    *,
    kind: str,
) -> Floats:
    """Labels of `test` (n, k), or probabilities of class 1, or of each class (n, classes).

    The penalty is chosen by cross-validation.

    The folds are of train subjects (`groups`). Raises `TooFewError` when there are not enough.
    Probabilities are those for equally frequent classes, as the fine-tuned model's are (its loss
    weighs both alike): at 0.5 a rare class would else never be called by a baseline.
    """
    if kind == "regression":
        search = fit_chosen(Ridge(), {"alpha": list(_ALPHAS)}, train, truth, groups, kind=kind)
        return np.asarray(search.predict(test))
    grid = {"C": list(1 / _ALPHAS)}
    search = fit_chosen(LogisticRegression(max_iter=1000), grid, train, truth, groups, kind=kind)
    if kind == "binary":
        logits = search.decision_function(test) - logit(truth.mean())
        return np.asarray(expit(logits))
    counts = np.unique(truth, return_counts=True)[1]
    return np.asarray(softmax(search.decision_function(test) - np.log(counts), axis=1))
