"""Numbers of a group that are nobody's own, for the shareable variant.

`k` is the smallest number of people that is told; with 1, as in the full report, all may be.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def common(values: pd.Series, people: pd.Series, k: int) -> pd.Series:
    """The values that at least `k` people have, once for each row; a value of fewer is theirs."""
    told = people.groupby(values).nunique()
    return values[values.isin(told.index[told >= k])]


def quantile(values: NDArray[np.float64], share: float, k: int) -> float | None:
    """A quantile over people with at least `k` of them on either side; else None.

    Where `k` is above 1 it is the mean of the `k` values around the quantile, for the quantile
    itself is the value of one person, or lies between those of two.
    """
    if k == 1:
        return float(np.quantile(values, share))
    if len(values) * min(share, 1 - share) < k:
        return None
    first = round(share * (len(values) - 1) - (k - 1) / 2)
    return float(np.sort(values)[first : first + k].mean())
