"""Labels as numbers: what is missing, what cannot be read, and the scale of the train split.

What a scale, or a list of classes, is made from is the train split's labels alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError, InputError

LABEL_PREFIX = "label_"


def read_label(
    table: pd.DataFrame,
    name: str,
    kind: str,
    positive: str | None,
    threshold: float | None = None,
) -> pd.Series:
    """One label as float64, NaN where missing, indexed by recording_id.

    `kind` is `regression`, or `binary`: 1 where the value is `positive`, or a number above
    `threshold`, else 0 (without either the values must be 0 and 1), or `classes`: the number of
    the value among those that the train split has, in their order; a value that it has not is
    missing. Messages name recordings, never a label's value.
    """
    values, missing = _column(table, name)
    if kind == "classes":
        number = {value: place for place, value in enumerate(class_names(table, name))}
        return _as_text(values).map(number).astype(float).where(~missing).rename(name)
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
    if kind == "binary" and threshold is not None:
        numbers = (numbers > threshold).astype(float)
    numbers = numbers.where(~missing)
    if kind == "binary" and not set(numbers.dropna().unique()) <= {0.0, 1.0}:
        raise DataError(
            f"The binary label {name} has other values than 0 and 1",
            fix=f"say which value counts as 1: finetune.targets: - {{name: {name}, kind: binary, "
            "positive: VALUE}",
        )
    return numbers.rename(name)


def class_names(table: pd.DataFrame, name: str) -> tuple[str, ...]:
    """The values of a label in the train split, sorted as text."""
    values, missing = _column(table, name)
    seen = _as_text(values)[(~missing & (table["split"] == "train").to_numpy()).to_numpy()]
    return tuple(sorted(set(seen)))


def count_positive(table: pd.DataFrame, name: str, positive: str) -> int:
    """Recordings of which this label is `positive`."""
    return int((read_label(table, name, "binary", positive) == 1).sum())


def _column(table: pd.DataFrame, name: str) -> tuple[pd.Series, pd.Series]:
    """A label as it stands in the table, indexed by recording_id, and where it is missing."""
    column = LABEL_PREFIX + name
    if column not in table.columns:
        known = [c.removeprefix(LABEL_PREFIX) for c in table.columns if c.startswith(LABEL_PREFIX)]
        raise InputError(
            f"No recording has a label {name!r}",
            fix=f"choose of {', '.join(sorted(known)) or '(none)'}; labels are the columns of "
            "participants.tsv and what phenotypes names, at the time of onboarding (a target is a "
            "label of letters, digits and _: phenotypes.labels gives a column such a name)",
        )
    values = table[column].set_axis(table["recording_id"].astype(str))
    missing = values.isna() | values.astype(str).str.strip().isin(["", "n/a", "nan", "NaN"])
    return values, missing


def _as_text(values: pd.Series) -> pd.Series:
    """Values as they are written: of numbers, `1` and `1.0` are the same."""
    if pd.api.types.is_numeric_dtype(values):
        return values.astype(float).map("{:g}".format)
    return values.astype(str).str.strip()


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
    """From a label's own unit to what a model predicts, and back; nothing is done to classes.

    `mean` and `sd` are those of a z-score; of a min-max scale they are the smallest label and the
    range. With `log` (log1p) both are of the logarithm of 1 + label.
    """

    mean: float
    sd: float
    log: str = "none"

    @classmethod
    def fit(
        cls, train: NDArray[np.float64], kind: str, name: str, transform: str = "zscore"
    ) -> LabelScale:
        """From the labels of the train split alone; refuses those nothing can be learned from.

        `transform`: zscore, minmax, or log-minmax (the logarithm first).
        """
        if len(np.unique(train)) < 2:
            what = "is constant" if kind == "regression" else "has one class only"
            raise DataError(
                f"The label {name} {what} in the train split, so there is nothing to learn",
                fix="choose another target, or another split.salt",
            )
        if kind != "regression":
            return cls(0.0, 1.0)
        if transform == "zscore":
            return cls(float(train.mean()), float(train.std()))
        if transform == "minmax":
            return cls(float(train.min()), float(np.ptp(train)))
        if train.min() <= -1:
            raise DataError(
                f"The label {name} has values of -1 or less, of which log(1 + label) cannot be "
                "taken",
                fix=f"say transform: minmax or zscore for {name} in finetune.targets",
            )
        logs = np.log1p(train)
        return cls(float(logs.min()), float(np.ptp(logs)), "log1p")

    def to_model(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scale labels."""
        return ((np.log1p(values) if self.log == "log1p" else values) - self.mean) / self.sd

    def to_label(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Back to the label's own unit."""
        raised = values * self.sd + self.mean
        return np.expm1(raised) if self.log == "log1p" else raised
