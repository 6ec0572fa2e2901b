"""Labels as numbers: what is missing, what cannot be read, and the scale of the train split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError, InputError

LABEL_PREFIX = "label_"


def read_label(table: pd.DataFrame, name: str, kind: str, positive: str | None) -> pd.Series:
    """One label as float64, NaN where missing, indexed by recording_id.

    `kind` is `regression`, or `binary`: 1 where the value is `positive`, else 0 (without
    `positive` the values must be 0 and 1). Messages name recordings, never a label's value.
    """
    column = LABEL_PREFIX + name
    if column not in table.columns:
        known = [c.removeprefix(LABEL_PREFIX) for c in table.columns if c.startswith(LABEL_PREFIX)]
        raise InputError(
            f"There is no label {name!r} in the shards' index",
            fix=f"choose of {', '.join(sorted(known)) or '(none)'}; labels are the columns of "
            "participants.tsv at the time of onboarding",
        )
    values = table[column].set_axis(table["recording_id"].astype(str))
    missing = values.isna() | values.astype(str).str.strip().isin(["", "n/a", "nan", "NaN"])
    if kind == "binary" and positive is not None:
        numbers = _equals(values, positive).astype(float)
    else:
        numbers = pd.to_numeric(values.where(~missing), errors="coerce").astype(float)
        unread = ~np.isfinite(numbers) & ~missing
        if unread.any():
            raise DataError(
                f"The label {name} is no number in {int(unread.sum())} recordings, e.g. "
                f"{numbers.index[unread][0]}",
                fix="mend participants.tsv and onboard again; for two classes set kind: binary "
                "and positive",
            )
    numbers = numbers.where(~missing)
    if kind == "binary" and not set(numbers.dropna().unique()) <= {0.0, 1.0}:
        raise DataError(
            f"The binary label {name} has other values than 0 and 1",
            fix=f"say which value counts as 1: finetune.targets: - {{name: {name}, kind: binary, "
            "positive: VALUE}",
        )
    return numbers.rename(name)


def count_positive(table: pd.DataFrame, name: str, positive: str) -> int:
    """Recordings of which this label is `positive`."""
    return int((read_label(table, name, "binary", positive) == 1).sum())


def _equals(values: pd.Series, positive: str) -> pd.Series:
    """Where the values are `positive`; of numbers, `1` and `1.0` are the same."""
    if pd.api.types.is_numeric_dtype(values):
        try:
            return values.astype(float) == float(positive)
        except ValueError:
            return pd.Series(False, index=values.index)
    return values.astype(str).str.strip() == positive


@dataclass(frozen=True)
class LabelScale:
    """From a label's own unit to what a model predicts; z-score, or nothing for two classes."""

    mean: float
    sd: float

    @classmethod
    def fit(cls, train: NDArray[np.float64], kind: str, name: str) -> LabelScale:
        """From the labels of the train split alone; refuses those nothing can be learned from."""
        if len(np.unique(train)) < 2:
            what = "has one class only" if kind == "binary" else "is constant"
            raise DataError(
                f"The label {name} {what} in the train split, so there is nothing to learn",
                fix="choose another target, or another split.salt",
            )
        if kind == "binary":
            return cls(0.0, 1.0)
        return cls(float(train.mean()), float(train.std()))

    def to_model(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scale labels."""
        return (values - self.mean) / self.sd

    def to_label(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Back to the label's own unit."""
        return values * self.sd + self.mean
