"""CIFTI: label files (`.dlabel.nii`), dense series (`.dtseries.nii`), and parcels of these.

In a dense series the time points of one grayordinate (a vertex of the cortical surface or a voxel
below it) lie side by side in the file, so it is read in blocks of grayordinates, each once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.cifti2 import BrainModelAxis, LabelAxis, SeriesAxis
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ..errors import DataError, InputError
from ..images import READ_ERRORS, unreadable
from .estimators import summarise
from .extract import Estimator, ParcelSeries, columns_of, with_coverage
from .stream import fill, open_bytes

#: Bytes read at a time.
BLOCK_BYTES = 1 << 22


@dataclass(frozen=True)
class DenseLabels:
    """A label for each grayordinate, 0 for none."""

    numbers: NDArray[np.int64]  # (grayordinates,)
    names: dict[int, str]  # of the labels, 0 left out, in the file's order
    models: BrainModelAxis


@dataclass(frozen=True)
class DenseSeries:
    """A dense series to iterate over in blocks of grayordinates."""

    path: Path
    models: BrainModelAxis
    n_times: int
    tr: float  # s
    dtype: np.dtype
    offset: int  # bytes before the first value
    slope: float
    intercept: float

    @property
    def n_blocks(self) -> int:
        """How many blocks the iteration yields."""
        return -(-len(self.models) // self._rows)

    @property
    def _rows(self) -> int:
        return max(1, BLOCK_BYTES // (self.n_times * self.dtype.itemsize))

    def __iter__(self) -> Iterator[NDArray]:
        """Yield (grayordinates of the block, time), in the file's order; the buffer is reused."""
        block = np.empty((self._rows, self.n_times), dtype=self.dtype)
        with open_bytes(self.path) as handle:
            handle.read(self.offset)
            for first in range(0, len(self.models), self._rows):
                part = block[: len(self.models) - first]
                fill(part, handle, self.path, f"grayordinate {first} and those after it")
                scaled = (self.slope, self.intercept) != (1, 0)
                yield part * np.float64(self.slope) + self.intercept if scaled else part


def read_dlabel(path: str | Path) -> DenseLabels:
    """Read a dense label file of one map: whole numbers, each with a name."""
    path = Path(path)
    image = _load(path)
    axes = _axes(image, path)
    if not isinstance(axes[0], LabelAxis) or not isinstance(axes[1], BrainModelAxis):
        raise InputError(
            "This is not a dense label file (.dlabel.nii)",
            file=path,
            fix="give --atlas a .dlabel.nii of the series' grayordinates",
        )
    if len(axes[0]) != 1:
        raise InputError(
            f"The atlas holds {len(axes[0])} label maps instead of one",
            file=path,
            fix="keep one of them (wb_command -cifti-merge with -column)",
        )
    try:
        values = np.asarray(image.dataobj)[0]
    except READ_ERRORS as error:
        raise unreadable(error, path) from error
    if not np.isfinite(values).all() or (values != np.round(values)).any() or values.min() < 0:
        raise InputError(
            "An atlas holds whole label numbers, this one others too",
            file=path,
            fix="probabilistic maps must be made into labels first",
        )
    numbers = values.astype(np.int64)
    names = {int(key): str(name) for key, (name, _) in axes[0].label[0].items() if key != 0}
    if unnamed := sorted(set(np.unique(numbers).tolist()) - set(names) - {0}):
        raise InputError(
            f"The label table does not name label {unnamed[0]}",
            file=path,
            fix="name it in the file's label table, or make it 0 (outside)",
        )
    return DenseLabels(numbers, names, axes[1])


def open_dtseries(path: str | Path) -> DenseSeries:
    """Read the header of a dense series and prepare to read its rows."""
    path = Path(path)
    image = _load(path)
    times, models = _axes(image, path)
    if not isinstance(times, SeriesAxis) or not isinstance(models, BrainModelAxis):
        raise DataError(
            "This is not a dense series (.dtseries.nii)",
            file=path,
            fix="take the .dtseries.nii of the run",
        )
    if times.unit != "SECOND":
        raise DataError(
            f"The series is sampled in {times.unit}, not in time",
            file=path,
            fix="take the series of the run, not what was computed of it",
        )
    proxy: Any = image.dataobj
    dtype = np.dtype(proxy.dtype)
    if dtype.kind not in "iuf":
        raise DataError(
            f"Values of type {dtype} cannot be averaged",
            file=path,
            fix="convert the series to integers or floats",
        )
    return DenseSeries(
        path=path,
        models=models,
        n_times=len(times),
        tr=float(times.step),
        dtype=dtype,
        offset=int(proxy.offset),
        slope=float(proxy.slope),
        intercept=float(proxy.inter),
    )


def check_models(series: DenseSeries, atlas: DenseLabels) -> None:
    """Refuse a series whose grayordinates are not those of the atlas, in number, place or order."""
    ours, theirs = series.models, atlas.models
    fix = "both must be in the same space, such as fsLR with 91,282 grayordinates (32k)"
    if len(ours) != len(theirs):
        raise DataError(
            f"The series has {len(ours):,} grayordinates, the atlas {len(theirs):,}",
            file=series.path,
            fix=fix,
        )
    for (name, _, a), (other, _, b) in zip(
        ours.iter_structures(), theirs.iter_structures(), strict=False
    ):
        if name != other or a != b:
            short = str(name).removeprefix("CIFTI_STRUCTURE_").lower().replace("_", " ")
            raise DataError(
                f"Series and atlas number their grayordinates otherwise, from {short} on",
                file=series.path,
                fix=fix,
            )


def dense_parcels(
    blocks: Iterable[NDArray],
    numbers: NDArray,
    parcels: NDArray,
    min_coverage: float,
    estimator: Estimator = "mean",
) -> ParcelSeries:
    """Reduce the usable grayordinates of each parcel to one series.

    `blocks` yields (some grayordinates, time); `numbers` is the label of each grayordinate;
    `parcels` holds the labels in the order of the columns wanted. A grayordinate is usable if it
    changes in time; those that are NaN throughout (outside the data) are not. The mean holds one
    block and the sums; `median` and `eigenvariate` hold the labelled grayordinates of the run, T x
    grayordinates x 4 bytes. There is no grey-matter share of a vertex: `weighted` is refused.
    """
    if estimator == "weighted":
        raise InputError(
            "Grayordinates cannot be weighted by grey matter",
            fix="they lie in it; take the mean, the median or the eigenvariate",
        )
    columns = columns_of(numbers, parcels)
    n_parcels = len(parcels)
    n_all = np.bincount(columns[columns >= 0], minlength=n_parcels)
    n_usable = np.zeros(n_parcels, dtype=np.int64)
    sums: NDArray | float = 0.0
    held: list[NDArray] = []
    held_columns: list[NDArray] = []
    first = 0
    for block in blocks:
        rows, of = _usable(block, columns[first : first + len(block)], first)
        first += len(block)
        n_usable += np.bincount(of, minlength=n_parcels)
        if estimator == "mean":
            shape = (n_parcels, len(of))
            adder = csr_array((np.ones(len(of)), (of, np.arange(len(of)))), shape=shape)
            sums = sums + adder @ rows.astype(np.float64)
        else:
            held.append(rows.astype(np.float32))
            held_columns.append(of)
    if estimator == "mean":
        series = (sums / np.maximum(n_usable, 1)[:, None]).T
    else:
        series = _summaries(held, held_columns, n_parcels, estimator)
    return with_coverage(series, n_all, n_usable, min_coverage)


def _usable(block: NDArray, columns: NDArray, first: int) -> tuple[NDArray, NDArray]:
    """The rows of a block that belong to a parcel and change, and their columns."""
    rows = np.flatnonzero(columns >= 0)
    values = block[rows]
    absent = np.isnan(values).all(axis=1)
    faulty = ~np.isfinite(values).all(axis=1) & ~absent
    if faulty.any():
        raise DataError(
            f"Grayordinate {first + rows[faulty.argmax()]} holds NaN or inf at some times",
            fix="mend or make the series anew",
        )
    used = ~absent & (values != values[:, :1]).any(axis=1)
    return values[used], columns[rows[used]]


def _summaries(
    held: list[NDArray], columns: list[NDArray], n_parcels: int, estimator: Any
) -> NDArray:
    """The series (time, parcels) of rows that were held; NaN without rows."""
    series = np.full((held[0].shape[1], n_parcels), np.nan)
    for column in range(n_parcels):
        rows = [part[of == column] for part, of in zip(held, columns, strict=True)]
        values = np.concatenate(rows)
        if len(values):
            series[:, column] = summarise(values.T, estimator)
    return series


def _load(path: Path) -> Any:
    try:
        if path.stat().st_size == 0:
            raise InputError("The file is empty", file=path, fix="copy it anew from its source")
        image = nib.load(path)
    except FileNotFoundError:
        raise InputError("The file does not exist", file=path) from None
    except READ_ERRORS as error:
        raise unreadable(error, path) from error
    if not isinstance(image, nib.Cifti2Image):
        raise InputError("This is not a CIFTI-2 file", file=path)
    return image


def _axes(image: Any, path: Path) -> tuple[Any, Any]:
    if len(image.shape) != 2:
        raise InputError(f"A CIFTI matrix has two dimensions, this has {image.shape}", file=path)
    return image.header.get_axis(0), image.header.get_axis(1)
