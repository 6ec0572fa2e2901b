"""One recording in its stored form, and what storing it so cost in precision."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .scaler import Scaler
from .series import Series

#: What is held of a recording in float64 at a time: it should stay in a core's own cache.
_BLOCK_BYTES = 1 << 18
#: Methods that look at all parcels of a recording at once.
_WHOLE = frozenset({"recording-minmax"})


@dataclass(frozen=True, eq=False)
class Packed:
    """A recording as it is stored."""

    values: NDArray[Any]  # (time, parcels), float16 or float32; NaN where a parcel has no data
    n_parcels: int  # parcels with data
    n_clipped: int  # values beyond the largest finite one of the storage type
    error_rms: float  # stored minus exact value, in units of the stored values, without the clipped
    error_max: float  # the largest such difference, absolute

    @cached_property
    def sha256(self) -> str:
        """Hash of the tensor's bytes."""
        return hashlib.sha256(self.values.data).hexdigest()


def pack(series: Series, scaler: Scaler, dtype: str) -> Packed:
    """Scale one recording (parcels, time) and turn it into its stored form (time, parcels).

    The values are those of `Scaler.transform`, rounded once from float64. Those that the storage
    type cannot hold (|z| > 65504 for float16: thousands of IQRs, a fault of the scanner and no
    signal) become its largest finite one, and are counted.
    """
    parcels, time = series.values.shape
    if parcels != scaler.parcels:
        raise DataError(
            f"The series has {parcels} parcels, the scaler {scaler.parcels}",
            fix="scale with the scaler that was fitted on the same atlas",
        )
    limit = float(np.finfo(dtype).max)
    stored = np.empty((time, parcels), dtype)
    n_parcels = n_clipped = 0
    squares = largest = 0.0
    for part, scaled in _scaled_blocks(series, scaler):
        if np.fmax.reduce(scaled, axis=None) > limit or np.fmin.reduce(scaled, axis=None) < -limit:
            n_clipped += int((np.abs(scaled) > limit).sum())
            np.clip(scaled, -limit, limit, out=scaled)
        rounded = scaled.astype(dtype)
        stored[:, part] = rounded.T
        covered = ~np.isnan(scaled[:, 0])
        n_parcels += int(covered.sum())
        error = rounded.astype(np.float64)
        error -= scaled
        if not covered.all():
            error = error[covered]
        squares += float(np.square(error).sum())
        largest = max(largest, float(np.abs(error).max(initial=0.0)))
    return Packed(
        values=stored,
        n_parcels=n_parcels,
        n_clipped=n_clipped,
        error_rms=_short(float(np.sqrt(squares / max(1, n_parcels * time)))),
        error_max=_short(largest),
    )


def _scaled_blocks(series: Series, scaler: Scaler) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Parcels and their scaled values (some parcels, time), a few at a time."""
    parcels, time = series.values.shape
    rows = parcels if scaler.method in _WHOLE else max(1, _BLOCK_BYTES // (8 * time))
    for start in range(0, parcels, rows):
        part = slice(start, start + rows)
        some = replace(
            scaler,
            median=scaler.median[part],
            iqr=scaler.iqr[part],
            usable=scaler.usable[part],
        )
        yield part, some.transform(series.values[part], series.counted)


def _short(value: float) -> float:
    """Six digits: what is noted in files must not hang on the order in which numbers are added."""
    return float(f"{value:.6g}")
