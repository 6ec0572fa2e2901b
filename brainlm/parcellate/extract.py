"""The mean series of each parcel, accumulated volume by volume."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError


@dataclass(frozen=True)
class ParcelSeries:
    """Mean series and the voxels behind them."""

    series: NDArray[np.float32]  # (time, parcels); NaN where coverage is too small
    n_voxels: NDArray[np.int64]  # (parcels,), voxels of the parcel on this grid
    n_usable: NDArray[np.int64]  # (parcels,), those inside the mask that vary in time

    @property
    def coverage(self) -> NDArray[np.float64]:
        """Usable share of each parcel's voxels, (parcels,); 0 for a parcel without voxels."""
        return self.n_usable / np.maximum(self.n_voxels, 1)


def mean_series(
    volumes: Iterable[NDArray],
    labels: NDArray,
    mask: NDArray,
    parcels: NDArray,
    min_coverage: float,
) -> ParcelSeries:
    """Average the usable voxels of each parcel at each time.

    `volumes` yields flat volumes in Fortran order (`VolumeStream` does); `labels` and
    `mask` are (x, y, z) on the same grid; `parcels` holds the label numbers in the order of
    the columns wanted. A voxel is usable if it lies inside the mask and its value changes
    in time (variance > 0: voxels outside the field of view are constant). Parcels with
    less than `min_coverage` of their voxels usable are NaN: a zero would be taken for data.

    What is summed (float64) is each voxel's change since the first volume. So voxels that
    turn out to be constant have added exactly nothing, one pass over the file is enough,
    and large offsets cost no digits.
    """
    column_of = np.full(int(max(labels.max(), parcels.max())) + 1, -1)
    column_of[parcels] = np.arange(len(parcels))
    columns = column_of[labels.ravel(order="F")]
    n_voxels = np.bincount(columns[columns >= 0], minlength=len(parcels))
    inside = mask.ravel(order="F") > 0
    if not inside.any():
        raise DataError(
            "The brain mask holds no voxel",
            fix="look at the registration of this recording; it has probably failed",
        )
    voxels = np.flatnonzero(inside & (columns >= 0))
    if not len(voxels):
        raise DataError(
            "The atlas and the brain mask do not overlap",
            fix="look at the registration of this recording; it has probably failed",
        )
    columns = columns[voxels]
    first, varies, changes = _changes(volumes, voxels, columns, len(parcels))
    n_usable = np.bincount(columns[varies], minlength=len(parcels))
    start = np.bincount(columns[varies], weights=first[varies], minlength=len(parcels))
    # A quotient, as in `coverage`: 0.55 * 100 is a little more than 55.
    enough = (n_usable > 0) & (n_usable / np.maximum(n_voxels, 1) >= min_coverage)
    if not enough.any():
        raise DataError(
            f"No parcel has {min_coverage:.0%} of its voxels in this recording",
            fix="look at the field of view and at the registration of this recording",
        )
    means = (start + changes) / np.maximum(n_usable, 1)
    means[:, ~enough] = np.nan
    return ParcelSeries(means.astype(np.float32), n_voxels, n_usable)


def _changes(
    volumes: Iterable[NDArray], voxels: NDArray, columns: NDArray, n_parcels: int
) -> tuple[NDArray, NDArray, NDArray]:
    """First values (voxels,), which of them ever change, and summed changes (time, parcels)."""
    first = np.zeros(len(voxels))
    varies = np.zeros(len(voxels), dtype=bool)
    sums = []
    for number, volume in enumerate(volumes):
        values = volume[voxels].astype(np.float64)
        if number == 0:
            first = values
        change = values - first
        varies |= change != 0
        total = np.bincount(columns, weights=change, minlength=n_parcels)
        if not np.isfinite(total).all():
            raise DataError(
                f"Volume {number} holds NaN or inf inside the brain",
                fix="delete the series and rerun the stage that makes it",
            )
        sums.append(total)
    return first, varies, np.array(sums)
