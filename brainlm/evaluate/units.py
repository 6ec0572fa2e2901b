"""Who counts as one in intervals and tests: a family where the study tells families, or a subject.

Siblings are alike in what is predicted and in how well, so that they are no independent proofs: a
family is resampled, and changes sign or place, as a whole. Subjects are still what is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Names = NDArray[np.str_]

_OF_FAMILY = "family "  # a label of BIDS has no space: no subject is called so


def units_of(rows: pd.DataFrame) -> Names:
    """The unit of each row, which has a `subject` and, where the study tells it, a `family`."""
    subjects = rows["subject"].astype(str)
    if "family" not in rows:
        return subjects.to_numpy(dtype=np.str_)
    families = _OF_FAMILY + rows["family"].astype(str)
    return subjects.where(rows["family"].isna(), families).to_numpy(dtype=np.str_)


def units_of_subjects(rows: pd.DataFrame, subjects: Sequence[str] | Names) -> Names:
    """The unit of each of `subjects`, who all have rows."""
    unit = dict(zip(rows["subject"].astype(str), units_of(rows), strict=True))
    return np.array([unit[str(subject)] for subject in subjects], dtype=np.str_)


def families_column(rows: pd.DataFrame, subjects: Sequence[str] | Names) -> dict[str, list[Any]]:
    """A column `family` for a table with a row for each of `subjects`; nothing without families."""
    if "family" not in rows or rows["family"].isna().all():
        return {}
    families = rows["family"].astype(object).where(rows["family"].notna(), None)
    of = dict(zip(rows["subject"].astype(str), families, strict=True))
    return {"family": [of[str(subject)] for subject in subjects]}


def added_up(values: Floats, units: Names) -> Floats:
    """Rows of subjects, (subjects, ...), added up by unit in the order of the units' names."""
    names, owner = np.unique(units, return_inverse=True)
    whole = np.zeros((len(names), *values.shape[1:]))
    with np.errstate(invalid="ignore"):  # a method's guesses may have exploded
        np.add.at(whole, owner, values)
    return whole


def told_units(n_subjects: int, units: Names) -> dict[str, int]:
    """For metrics.json, beside `n_subjects`: how many units they are, where that is fewer."""
    count = len(np.unique(units))
    return {} if count == n_subjects else {"n_units": count}
