"""The series of each parcel from the volumes of a run: streamed where the estimator allows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ..errors import DataError
from .estimators import summarise
from .stream import VolumeStream

Estimator = Literal["mean", "median", "eigenvariate", "weighted"]


@dataclass(frozen=True)
class ParcelSeries:
    """Parcel series and the voxels (or grayordinates) behind them."""

    series: NDArray[np.float32]  # (time, parcels); NaN where coverage is too small
    n_voxels: NDArray[np.int64]  # (parcels,), of this grid's size, beyond its edges too
    n_usable: NDArray[np.int64]  # (parcels,), those inside the mask that vary in time

    @property
    def coverage(self) -> NDArray[np.float64]:
        """Usable share of each parcel's voxels, (parcels,); 0 for a parcel without voxels."""
        return self.n_usable / np.maximum(self.n_voxels, 1)


@dataclass(frozen=True)
class Members:
    """Which voxels of a flat volume count for which parcel."""

    voxels: NDArray[np.intp]  # (n,), ascending places in the flat volume: labelled and in the mask
    columns: NDArray[np.intp]  # (n,), the parcel's column of each
    n_voxels: NDArray[np.int64]  # (parcels,), voxels of the parcel, in mask and image or not

    def __len__(self) -> int:
        return len(self.voxels)


def parcel_series(
    volumes: Iterable[NDArray],
    labels: NDArray,
    mask: NDArray,
    parcels: NDArray,
    min_coverage: float,
    *,
    estimator: Estimator = "mean",
    weights: NDArray | None = None,
    beyond: NDArray | None = None,
) -> ParcelSeries:
    """Reduce the usable voxels of each parcel to one series.

    `volumes` yields flat volumes in Fortran order (`VolumeStream` does); `labels`, `mask` and
    `weights` are (x, y, z) on the same grid; `parcels` holds the label numbers in the order of
    the columns wanted. A voxel is usable if it lies inside the mask and its value changes
    in time (variance > 0: voxels outside the field of view are constant). Parcels with
    less than `min_coverage` of their voxels usable are NaN: a zero would be taken for data.
    `beyond` (parcels,) counts voxels that the image does not show at all; they are not usable.

    `mean` and `weighted` (by `weights`, the share of grey matter) take one pass over the file and
    hold one volume. `median` and `eigenvariate` (see `estimators`) hold the labelled voxels of
    the whole run: T x voxels x 4 bytes.
    """
    if estimator == "weighted":
        assert weights is not None
        return mean_series(volumes, labels, mask, parcels, min_coverage, weights, beyond)
    if estimator == "mean":
        return mean_series(volumes, labels, mask, parcels, min_coverage, beyond=beyond)
    members = find_members(labels, mask, parcels, beyond)
    order = np.argsort(members.columns, kind="stable")  # each parcel's voxels side by side
    rows = [values.astype(np.float32) for values in _values_at(volumes, members.voxels[order])]
    ends = np.cumsum(np.bincount(members.columns, minlength=len(parcels)))
    starts = np.concatenate([[0], ends[:-1]])
    series = np.full((len(rows), len(parcels)), np.nan)
    n_usable = np.zeros(len(parcels), dtype=np.int64)
    for column, (start, end) in enumerate(zip(starts, ends, strict=True)):
        values = np.array([row[start:end] for row in rows])
        values = values[:, (values != values[0]).any(axis=0)]
        n_usable[column] = values.shape[1]
        if values.shape[1]:
            series[:, column] = summarise(values, estimator)
    return with_coverage(series, members.n_voxels, n_usable, min_coverage)


def mean_series(
    volumes: Iterable[NDArray],
    labels: NDArray,
    mask: NDArray,
    parcels: NDArray,
    min_coverage: float,
    weights: NDArray | None = None,
    beyond: NDArray | None = None,
) -> ParcelSeries:
    """Average the usable voxels of each parcel at each time; see `parcel_series`.

    With `weights` (x, y, z), 0 or more, the average is weighted; coverage counts voxels all the
    same, and a parcel whose usable voxels weigh nothing is NaN.

    What is summed (float64) is each voxel's change since the first volume. So voxels that
    turn out to be constant have added exactly nothing, one pass over the file is enough,
    and large offsets cost no digits.
    """
    members = find_members(labels, mask, parcels, beyond)
    weight = np.ones(len(members)) if weights is None else weights.ravel(order="F")[members.voxels]
    weight = weight.astype(np.float64)
    n_parcels = len(parcels)
    first, varies, changes = _changes(volumes, members, weight, n_parcels)
    columns, used = members.columns[varies], weight[varies]
    n_usable = np.bincount(columns, minlength=n_parcels)
    start = np.bincount(columns, weights=used * first[varies], minlength=n_parcels)
    total = np.bincount(columns, weights=used, minlength=n_parcels)
    means = (start + changes) / np.where(total > 0, total, np.nan)
    return with_coverage(means, members.n_voxels, n_usable, min_coverage)


def find_members(
    labels: NDArray, mask: NDArray, parcels: NDArray, beyond: NDArray | None = None
) -> Members:
    """The voxels of the mask that belong to a parcel; it is an error if there are none."""
    columns = columns_of(labels.ravel(order="F"), parcels)
    n_voxels = np.bincount(columns[columns >= 0], minlength=len(parcels))
    n_voxels = n_voxels if beyond is None else n_voxels + beyond
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
    return Members(voxels, columns[voxels], n_voxels)


def columns_of(labels: NDArray, parcels: NDArray) -> NDArray[np.intp]:
    """The column of each label number in the order of `parcels`; -1 where it is none of them."""
    column_of = np.full(int(max(labels.max(), parcels.max())) + 1, -1, dtype=np.intp)
    column_of[parcels] = np.arange(len(parcels))
    return column_of[labels]


def with_coverage(
    series: NDArray, n_voxels: NDArray, n_usable: NDArray, min_coverage: float
) -> ParcelSeries:
    """`series` (time, parcels) with NaN where too few voxels are usable; not all may be."""
    # A quotient, as in `coverage`: 0.55 * 100 is a little more than 55.
    enough = (n_usable > 0) & (n_usable / np.maximum(n_voxels, 1) >= min_coverage)
    if not enough.any():
        raise DataError(
            f"No parcel has {min_coverage:.0%} of its voxels in this recording",
            fix="look at the field of view and at the registration of this recording",
        )
    kept = np.where(enough, series, np.nan).astype(np.float32)
    return ParcelSeries(kept, n_voxels, n_usable)


def _changes(
    volumes: Iterable[NDArray], members: Members, weight: NDArray, n_parcels: int
) -> tuple[NDArray, NDArray, NDArray]:
    """First values (voxels,), which of them ever change, and summed changes (time, parcels)."""
    # A row of this matrix adds up a parcel's voxels in their order, several times faster than
    # numpy's bincount does.
    places = np.arange(len(members))
    adder = csr_array((weight, (members.columns, places)), shape=(n_parcels, len(members)))
    first = np.zeros(len(members))
    change = np.zeros(len(members))
    varies = np.zeros(len(members), dtype=bool)
    sums = []
    for number, values in enumerate(_values_at(volumes, members.voxels)):
        if number == 0:
            first = values.astype(np.float64)
        np.subtract(values, first, out=change)
        np.logical_or(varies, change, out=varies)
        sums.append(adder @ change)
    return first, varies, np.array(sums)


def _values_at(volumes: Iterable[NDArray], voxels: NDArray[np.intp]) -> Iterator[NDArray]:
    """The values of these voxels in each volume; they must be finite."""
    if isinstance(volumes, VolumeStream):
        picked: Iterable[NDArray] = volumes.at(voxels)
    else:
        picked = (volume[voxels] for volume in volumes)
    for number, values in enumerate(picked):
        if not np.isfinite(values.sum(dtype=np.float64)):
            raise DataError(
                f"Volume {number} holds NaN or inf inside the brain",
                file=volumes.path if isinstance(volumes, VolumeStream) else None,
                fix="delete the series and rerun the stage that makes it",
            )
        yield values
