"""A multilayer perceptron on functional connectivity, a baseline of BrainLM's paper."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

from ..cross_validation import fit_chosen

Floats = NDArray[np.float64]

#: Penalties on the squared weights to choose from.
_PENALTIES = (1e-3, 1e-1, 1e1)
_UNITS = (64,)
_MOST_STEPS = 300
#: Networks, begun at other weights, whose guesses are averaged.
_NETWORKS = 5


def predict_by_perceptron(
    train: Floats,
    truth: Floats,
    groups: Sequence[str],
    test: Floats,
    *,
    kind: str,
    seed: int,
) -> Floats:
    """As `connectivity.predict_from_features`, by networks of one hidden layer.

    The penalty is chosen by cross-validation among train subjects. Classes are made equally
    frequent by what the chances are divided by.
    """
    center, spread = truth.mean(), truth.std() or 1.0
    goal = (truth - center) / spread if kind == "regression" else truth
    options = {"hidden_layer_sizes": _UNITS, "max_iter": _MOST_STEPS}
    make = MLPRegressor if kind == "regression" else MLPClassifier
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        chosen = fit_chosen(
            make(**options, random_state=seed),
            {"alpha": list(_PENALTIES)},
            train,
            goal,
            groups,
            kind=kind,
        ).best_params_
        networks = [
            make(**options, **chosen, random_state=seed + number).fit(train, goal)
            for number in range(_NETWORKS)
        ]
    if kind == "regression":
        return np.mean([one.predict(test) for one in networks], axis=0) * spread + center
    chances = np.mean([one.predict_proba(test) for one in networks], axis=0)
    chances /= np.unique(truth, return_counts=True)[1]
    chances /= chances.sum(axis=1, keepdims=True)
    return np.asarray(chances[:, 1] if kind == "binary" else chances)
