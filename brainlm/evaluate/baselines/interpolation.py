"""Guess hidden entries by a line in time between the visible ones of the same parcel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def interpolate_hidden(
    signal: NDArray[np.floating[Any]], known: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Fill in what is not `known` of `signal`, both (parcels, time).

    Before the first and after the last known time point the nearest one holds; a parcel
    of which nothing is known is guessed as 0, the recording's mean.
    """
    when = np.arange(signal.shape[1])
    filled = np.zeros(signal.shape)
    for parcel in np.flatnonzero(known.any(axis=1)):
        seen = known[parcel]
        filled[parcel] = np.interp(when, when[seen], signal[parcel, seen])
    return filled
