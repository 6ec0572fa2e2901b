"""One recording's parcel series, as statistics and shards take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError


@dataclass(frozen=True, eq=False)
class Series:
    """A recording; a parcel without data is NaN throughout."""

    values: NDArray[np.float32]  # (parcels, time), C-contiguous: numpy sums every parcel alike
    counted: NDArray[np.bool_]  # (time,), False: scrubbing marked or filled in this volume


def check_series(values: NDArray[np.floating[Any]], source: object) -> None:
    """Refuse infinite values, and parcels that are NaN at some time points only."""
    if np.isinf(values).any():
        raise DataError(
            "This parcel series holds infinite values",
            file=str(source),
            fix="delete it and rerun its parcellation; if they come back, check the raw image",
        )
    missing = np.isnan(values)
    partly = missing.any(axis=1) & ~missing.all(axis=1)
    if partly.any():
        raise DataError(
            f"{int(partly.sum())} parcels of this series are NaN at some time points only "
            f"(first: column {int(np.argmax(partly))})",
            file=str(source),
            fix="a parcel has either a whole series or none; rerun the recording's parcellation",
        )
