"""What a score must beat to mean anything: no data at all, and how much somebody moved."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .connectivity import predict_from_features

Floats = NDArray[np.float64]


def predict_constant(truth: Floats, n_test: int, *, kind: str) -> Floats:
    """The mean of the train labels: of two classes the share of class 1, of more those of all."""
    if kind == "classes":
        return np.tile(np.bincount(truth.astype(int)) / len(truth), (n_test, 1))
    return np.full(n_test, truth.mean())


def predict_from_motion(
    train_fd: Floats, truth: Floats, groups: list[str], test_fd: Floats, *, kind: str
) -> Floats:
    """Ridge or logistic regression on the recording's mean framewise displacement alone."""
    center, spread = train_fd.mean(), train_fd.std() or 1.0
    train, test = ((fd[:, None] - center) / spread for fd in (train_fd, test_fd))
    return predict_from_features(train, truth, groups, test, kind=kind)
