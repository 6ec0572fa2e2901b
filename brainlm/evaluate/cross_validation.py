"""Choosing how strictly to fit, by cross-validation among the train subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.metrics import log_loss, make_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedGroupKFold

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FOLDS = 5
_SQUARED_ERROR = "neg_mean_squared_error"


class TooFewError(Exception):
    """There are too few train subjects to fit anything."""


def fit_chosen(
    model: BaseEstimator,
    grid: Mapping[str, Sequence[Any]],
    train: Floats,
    truth: Floats,
    groups: Sequence[str],
    *,
    kind: str,
    chances: bool = True,
) -> GridSearchCV:
    """`model` with the values of `grid` that do best on train subjects left out, fitted on all.

    Folds are of subjects (`groups`): a subject's recordings are never on both sides. Labels are
    scored by squared error, classes by the logarithm of their probability, or by balanced accuracy
    where a model tells no `chances`.
    """
    subjects = np.asarray(groups)
    if kind == "regression":
        folds, splitter = min(_FOLDS, len(set(groups))), GroupKFold
        score: Any = _SQUARED_ERROR
    else:
        labels = np.unique(truth)
        folds = min(_FOLDS, *(len(set(subjects[truth == label])) for label in labels))
        splitter = StratifiedGroupKFold
        score = (
            make_scorer(
                log_loss, response_method="predict_proba", greater_is_better=False, labels=labels
            )
            if chances
            else "balanced_accuracy"
        )
    if folds < 2:
        raise TooFewError("cross-validation needs two train subjects (of each class)")
    cuts = list(splitter(folds).split(train, truth, subjects))
    while kind != "regression" and not _have_all_classes(cuts, truth):
        folds -= 1  # fewer parts leave more to fit on
        if folds < 2:
            raise TooFewError("cross-validation would leave a class without train subjects")
        cuts = list(splitter(folds).split(train, truth, subjects))
    return GridSearchCV(model, dict(grid), scoring=score, cv=cuts).fit(train, truth)


def _have_all_classes(cuts: Sequence[tuple[Ints, Ints]], truth: Floats) -> bool:
    """Whether each part that is fitted on has every class: subjects may hold several."""
    return all(len(np.unique(truth[own])) == len(np.unique(truth)) for own, _ in cuts)
