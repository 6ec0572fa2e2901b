"""Ridge (or logistic) regression on functional connectivity: the baseline to beat.

Features are the Fisher-z correlations of all pairs of parcels, 89,676 for 424. A penalty on
the squared weights does not see a rotation of the features, so everything is computed in the
span of the train recordings (as many dimensions as recordings), which is exact and cheap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, softmax
from sklearn.linear_model import LogisticRegression, Ridge

from ..cross_validation import TooFewError, fit_chosen

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

_ALPHAS = np.logspace(-3, 5, 9)
#: Columns, or rows, of features that are brought to float64 at once.
_COLUMNS = 4096


@dataclass(frozen=True, eq=False)
class Span:
    """Recordings as coordinates in the span of the train recordings, about their mean.

    Products between rows, and so kernels and penalised fits, are those of the features themselves,
    divided by one common number.
    """

    train: Floats  # (recordings, axes)
    test: Floats
    outside: Floats  # of each test recording the squared length that the axes do not reach


def span_of(train: Singles, test: Iterable[Singles]) -> Span:
    """The span of features (recordings, features); missing ones (NaN) are the train rows' mean.

    `test` comes in blocks of rows, and only one is held at once. The axes are found from products
    of rows or of columns, whichever are fewer: vectors of many recordings have few columns. Raises
    `TooFewError` where nothing varies.
    """
    mean = _mean_of_known(train)
    around = _about(train, mean)
    wide = around.shape[1] > len(around)
    values, vectors = np.linalg.eigh(_products(around, around) if wide else _squares(around))
    kept = values > values.max(initial=0) * 1e-10
    if not kept.any():
        raise TooFewError("what it reads is the same in all train recordings")
    scale = np.sqrt(values[kept].sum() / len(train))
    turn = vectors[:, kept] / (np.sqrt(values[kept]) if wide else 1.0)

    def coordinates(rows: Singles) -> Floats:
        found = _products(rows, around) if wide else rows.astype(np.float64)
        return np.asarray(found @ turn / scale)

    parts, lengths = [np.empty((0, turn.shape[1]))], [np.empty(0)]
    for block in test:
        rows = _about(block, mean)
        parts.append(coordinates(rows))
        lengths.append(np.einsum("np,np->n", rows, rows, dtype=np.float64) / scale**2)
    of_test = np.concatenate(parts)
    outside = np.concatenate(lengths) - (of_test**2).sum(axis=1)
    return Span(coordinates(around), of_test, np.maximum(outside, 0.0))


def span_of_train(train: Singles, test: Singles) -> tuple[Floats, Floats]:
    """Coordinates of train and test rows that are both at hand."""
    found = span_of(train, [test])
    return found.train, found.test


def _mean_of_known(train: Singles) -> Floats:
    known = ~np.isnan(train)
    sums = np.where(known, train, 0).sum(axis=0, dtype=np.float64)
    return np.asarray(sums / np.maximum(known.sum(axis=0), 1))


def _about(rows: Singles, mean: Floats) -> Singles:
    around = rows - mean.astype(np.float32)
    around[np.isnan(around)] = 0
    return around


def _products(rows: Singles, others: Singles) -> Floats:
    """Of all rows with all others, in float64, a few columns at once."""
    total = np.zeros((len(rows), len(others)))
    for start in range(0, rows.shape[1], _COLUMNS):
        part = rows[:, start : start + _COLUMNS].astype(np.float64)
        same = rows is others
        total += part @ (part if same else others[:, start : start + _COLUMNS].astype(float)).T
    return total


def _squares(rows: Singles) -> Floats:
    """Products of columns, in float64, some rows at once."""
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, len(rows), _COLUMNS):
        part = rows[start : start + _COLUMNS].astype(np.float64)
        total += part.T @ part
    return total


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
