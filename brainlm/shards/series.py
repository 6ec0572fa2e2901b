"""One recording's parcel series, as statistics and shards take it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Series:
    """A recording; a parcel without data is NaN throughout."""

    values: NDArray[np.float32]  # (parcels, time), C-contiguous: numpy sums every parcel alike
    counted: NDArray[np.bool_]  # (time,), False: scrubbing marked or filled in this volume
