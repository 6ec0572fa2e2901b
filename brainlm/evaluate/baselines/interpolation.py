"""Guess hidden patches by a line in time between the visible ones of the same parcel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def interpolate_hidden(
    signal: NDArray[np.floating[Any]], visible: NDArray[np.int64], patch: int
) -> NDArray[np.float64]:
    """Fill everything but the `visible` tokens of `signal` (parcels, time).

    Before the first and after the last visible time point the nearest one holds; a parcel
    with nothing visible is guessed as 0, the recording's mean.
    """
    parcels, time = signal.shape
    known = np.zeros((parcels * (time // patch), patch), dtype=bool)
    known[visible] = True
    known = known.reshape(parcels, time)
    when = np.arange(time)
    filled = np.zeros((parcels, time))
    for parcel in np.flatnonzero(known.any(axis=1)):
        seen = known[parcel]
        filled[parcel] = np.interp(when, when[seen], signal[parcel, seen])
    return filled
