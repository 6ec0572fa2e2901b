"""What a frozen model's vectors know of a label: a linear fit, and the nearest neighbours.

The model itself never saw a label, so this is also called zero-shot regression. All is fitted on
train recordings, what is to be chosen by cross-validation among train subjects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from ..shards.reader import ShardReader
from ..train.labelled import LabelledData
from .baselines.connectivity import predict_from_features, span_of_train
from .cross_validation import fit_chosen
from .label_baselines import Material, groups_of
from .label_scores import LabelScores, baselines, recordings_to_score, score

Floats = NDArray[np.float64]

_NEIGHBOURS = (1, 2, 5, 10, 20, 50)


def evaluate_probe(
    vectors: Mapping[str, NDArray[np.float32]],
    reader: ShardReader,
    data: LabelledData,
    *,
    target: str,
    kind: str,
    window: int,
    bootstrap: int,
    most: int,
    seed: int,
) -> LabelScores:
    """Score both on the test recordings; `vectors` are of all recordings that `data` counts."""
    test = recordings_to_score(reader, data, target, window)
    train = sorted(data.lengths["train"])
    features, test_features = span_of_train(
        np.stack([vectors[name] for name in train]), np.stack([vectors[name] for name in test])
    )
    truth, groups = data.truth(train), groups_of(reader, train)
    guesses = {
        "linear": predict_from_features(features, truth, groups, test_features, kind=kind),
        "neighbours": predict_from_neighbours(features, truth, groups, test_features, kind=kind),
    }
    given = Material(reader, data, target, kind, most, seed)
    others, reasons = baselines(given)
    found = score({**guesses, **others}, reasons, given, bootstrap=bootstrap)
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
