"""What a frozen model's vectors know of a label: a linear fit, and the nearest neighbours.

The model itself never saw a label, so this is also called zero-shot regression. All is fitted on
train recordings, what is to be chosen by cross-validation among train subjects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from ..shards.reader import ShardReader
from .baselines.connectivity import predict_from_features
from .baselines.perceptron import predict_by_perceptron
from .cross_validation import fit_chosen
from .label_baselines import BASELINES, Material, groups_of
from .label_scores import LabelScores, predictions_by, recordings_to_score, score

Floats = NDArray[np.float64]

_NEIGHBOURS = (1, 2, 5, 10, 20, 50)


def linear_on_vectors(given: Material) -> Floats:
    """Ridge or logistic regression."""
    span, (truth, owners) = given.vector_span, given.fitted_on(given.train)
    return predict_from_features(span.train, truth, owners, span.test, kind=given.kind)


def neighbours_of_vectors(given: Material) -> Floats:
    """The labels of the nearest train recordings."""
    span, (truth, owners) = given.vector_span, given.fitted_on(given.train)
    return predict_from_neighbours(span.train, truth, owners, span.test, kind=given.kind)


def perceptron_on_vectors(given: Material) -> Floats:
    """Perceptrons, as on connectivity: BrainLM frozen, under a small network that learns."""
    span, (truth, owners) = given.vector_span, given.fitted_on(given.drawn)
    drawn = np.isin(given.train, given.drawn)
    return predict_by_perceptron(
        span.train[drawn], truth, owners, span.test, kind=given.kind, seed=given.seed
    )


#: Methods on the frozen model's vectors, in the table beside the fine-tuned one.
ON_VECTORS: dict[str, Callable[[Material], Floats]] = {
    "frozen-mlp": perceptron_on_vectors,
    "frozen-linear": linear_on_vectors,
    "frozen-neighbours": neighbours_of_vectors,
}


def evaluate_probe(
    given: Material, *, window: int, bootstrap: int, within_sites: bool = False
) -> LabelScores:
    """Score the linear fit and the neighbours on the test recordings, beside all baselines."""
    recordings_to_score(given.reader, given.data, given.target, window)
    guesses = {"linear": linear_on_vectors(given), "neighbours": neighbours_of_vectors(given)}
    others, reasons = predictions_by(BASELINES, given)
    found = score(
        {**guesses, **others}, reasons, given, bootstrap=bootstrap, within_sites=within_sites
    )
    below = dict(found.metrics["baselines"])
    neighbours = below.pop("neighbours")
    metrics = {"task": "probe", **found.metrics, "neighbours": neighbours, "baselines": below}
    return LabelScores(metrics, found.predictions)


def mean_of_subjects(
    vectors: Mapping[str, NDArray[np.float32]], reader: ShardReader
) -> dict[str, NDArray[np.float32]]:
    """Each recording with the mean over all those of its subject, instead of its own vector."""
    names = list(vectors)
    subjects, place = np.unique(groups_of(reader, names), return_inverse=True)
    sums = np.zeros((len(subjects), len(vectors[names[0]])))
    np.add.at(sums, place, np.stack([vectors[name] for name in names]))
    means = (sums / np.bincount(place)[:, None]).astype(np.float32)
    return dict(zip(names, means[place], strict=True))


def predict_from_neighbours(
    train: Floats, truth: Floats, groups: Sequence[str], test: Floats, *, kind: str
) -> Floats:
    """As `predict_from_features`, by the labels of the nearest train recordings.

    How many are asked is chosen by cross-validation. Classes count as if they were equally
    frequent.
    """
    # Each fold leaves at least half of the recordings, unless one subject has most of them.
    grid = {"n_neighbors": [k for k in _NEIGHBOURS if k <= max(1, len(train) // 4)]}
    model = KNeighborsRegressor() if kind == "regression" else KNeighborsClassifier()
    search = fit_chosen(model, grid, train, truth, groups, kind=kind)
    if kind == "regression":
        return np.asarray(search.predict(test))
    chance = search.predict_proba(test) / np.unique(truth, return_counts=True)[1]
    chance /= chance.sum(axis=1, keepdims=True)
    return np.asarray(chance[:, 1] if kind == "binary" else chance)
