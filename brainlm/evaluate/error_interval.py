"""An interval for a mean of errors that holds with few subjects: a studentised bootstrap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Share of the resamplings that must tell an error and how sure it is.
_DEFINED_SHARE = 0.9
#: Relative standard errors below are rounding: all subjects have the same error.
_ROUNDING = 1e-7
#: Where a subject or two make up the whole error, resamplings without them seem sure of a far
#: smaller one. Beyond so many standard errors an end would only tell that nothing is known.
_FARTHEST = 4.0


def error_interval(
    sums: Floats, sizes: Floats, counts: NDArray[np.int64], shares: Floats
) -> tuple[float, float] | None:
    """Interval of the mean of what units' `sums` (units,) of so many errors (`sizes`) are of.

    Errors are never negative and their spread grows with their mean, so that a sample that happens
    to lack the large ones is sure of too small a mean. On logarithms the spread is about the same
    everywhere, and each resampling's distance from the whole is counted in its own standard errors
    (bootstrap-t, DiCiccio & Efron 1996). The standard error of the logarithm of a
    ratio of sums is that of its linear part. `counts` are (draws, units), `shares` the two
    quantiles asked for. None where there is nothing to divide by: no errors, or equal ones.
    """
    total, size = sums.sum(), sizes.sum()
    if not (total > 0 and size > 0):
        return None
    mean = total / size
    away = sums - mean * sizes
    own = np.sqrt((away**2).sum()) / total
    if own < _ROUNDING:
        return None
    drawn, drawn_size = counts @ sums, counts @ sizes
    with np.errstate(divide="ignore", invalid="ignore"):
        means = drawn / drawn_size
        moved = means - mean
        squares = (
            counts @ away**2
            - 2 * moved * (counts @ (away * sizes))
            + moved**2 * (counts @ sizes**2)
        )
        errors = np.sqrt(np.maximum(squares, 0.0)) / drawn
        distances = np.log(means / mean) / errors
    known = np.isfinite(distances) & (errors > _ROUNDING)
    if known.mean() < _DEFINED_SHARE:
        return None
    near, far = np.clip(np.quantile(distances[known], shares), [-_FARTHEST, 0], [0, _FARTHEST])
    return float(mean * np.exp(-far * own)), float(mean * np.exp(-near * own))
