"""What a score must beat to mean anything.

No data at all; how much somebody moved, where they were scanned, who they are.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
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


def predict_from_columns(
    train: pd.DataFrame,
    truth: Floats,
    groups: list[str],
    test: pd.DataFrame,
    *,
    kind: str,
    names: bool = False,
) -> Floats:
    """Ridge or logistic regression on columns of the table: sites (`names`), or age and sex."""
    own, of_test = as_numbers(train, test, names=names)
    return predict_from_features(own, truth, groups, of_test, kind=kind)


def as_numbers(
    train: pd.DataFrame, test: pd.DataFrame, *, names: bool = False
) -> tuple[Floats, Floats]:
    """Columns as z-scores and, of text, as one number per value; all as the train rows have it.

    What is missing is the train rows' mean, with a number that says so; a value that no train row
    has is none of those known. With `names` numbers are text as well: site 3 is not between 2
    and 4.
    """
    own: list[Floats] = []
    of_test: list[Floats] = []
    for name in train:
        for columns, table in ((own, train), (of_test, test)):
            columns.append(_column_as_numbers(train[name], table[name], names))
    return np.hstack(own), np.hstack(of_test)


def _column_as_numbers(train: pd.Series, column: pd.Series, names: bool) -> Floats:
    """(rows, 1 or more)."""
    known = pd.to_numeric(train, errors="coerce")
    if not names and known.notna().any() and (known.notna() == train.notna()).all():
        spread = known.std(ddof=0) or 1.0
        z = ((pd.to_numeric(column, errors="coerce") - known.mean()) / spread).to_numpy(float)
        parts = [np.nan_to_num(z)] + ([np.isnan(z)] if known.isna().any() else [])
    else:
        parts = [column.astype(str) == value for value in sorted(set(train.dropna().astype(str)))]
    return np.stack([np.asarray(part, np.float64) for part in parts], axis=1)
