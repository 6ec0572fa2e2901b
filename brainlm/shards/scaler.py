"""Robust scaling of parcel series: exact median and interquartile range per parcel.

A recording's parcel series first loses its own mean over time; then the median and the
interquartile range (IQR) over all time points of all TRAIN recordings bring parcels to one
scale: `z = (x - mean_of_recording - median) / iqr`. Both are exact (those of
`numpy.percentile`, linear interpolation, on everything concatenated) and do not depend on the
order of the recordings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .tensorfile import load_tensors, save_tensors

Series = NDArray[np.floating[Any]]

#: Names of the file's arrays, each (parcels,).
_ARRAYS = ("median", "iqr", "usable")


@dataclass(frozen=True, eq=False)
class Scaler:
    """Statistics per parcel of the train split; travels with the shards and the models."""

    median: NDArray[np.float64]  # (parcels,), after the recording's mean is removed
    iqr: NDArray[np.float64]  # (parcels,)
    usable: NDArray[np.bool_]  # (parcels,), False: no data or IQR 0; such series become NaN
    about: dict[str, Any] = field(default_factory=dict)  # hashes and counts of what it saw

    @property
    def parcels(self) -> int:
        """Number of parcels."""
        return len(self.median)

    def transform(self, series: Series) -> NDArray[np.float64]:
        """Scale one recording, (parcels, time); parcels without data or scale are NaN."""
        if series.shape[0] != self.parcels:
            raise DataError(
                f"The series has {series.shape[0]} parcels, the scaler {self.parcels}",
                fix="scale with the scaler that was fitted on the same atlas",
            )
        scale = np.where(self.usable, self.iqr, np.nan)
        return (remove_mean(series) - self.median[:, None]) / scale[:, None]

    def inverse(self, scaled: Series) -> NDArray[np.float64]:
        """Back to signal units around the recording's own mean, (parcels, time)."""
        return np.asarray(scaled, np.float64) * self.iqr[:, None] + self.median[:, None]


def remove_mean(series: Series) -> NDArray[np.float64]:
    """Subtract each parcel's mean over time, (parcels, time), in float64.

    The time axis must be the contiguous one: numpy then sums every parcel alike, however
    many parcels are handed over at once.
    """
    centred = np.array(series, dtype=np.float64, order="C")
    centred -= centred.mean(axis=1, keepdims=True)
    return centred


def check_series(series: Series, source: object) -> None:
    """Refuse infinite values, and parcels that are NaN at some time points only."""
    if np.isinf(series).any():
        raise DataError(
            "This parcel series holds infinite values",
            file=str(source),
            fix="delete it and rerun its parcellation; if they come back, check the raw image",
        )
    missing = np.isnan(series)
    partly = missing.any(axis=1) & ~missing.all(axis=1)
    if partly.any():
        raise DataError(
            f"{int(partly.sum())} parcels of this series are NaN at some time points only "
            f"(first: column {int(np.argmax(partly))})",
            file=str(source),
            fix="a parcel has either a whole series or none; rerun the recording's parcellation",
        )


def fit_block(recordings: Iterable[Series]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median and IQR, each (block,), of one block of parcels over all `recordings`.

    Each recording is (block, time). A parcel that a recording lacks (NaN) is skipped there;
    one that all lack gets NaN.
    """
    centred = [remove_mean(series) for series in recordings]
    block = centred[0].shape[0]
    median, iqr = np.full(block, np.nan), np.full(block, np.nan)
    for parcel in range(block):
        found = [series[parcel] for series in centred if not np.isnan(series[parcel, 0])]
        if found:
            low, median[parcel], high = np.percentile(np.concatenate(found), [25, 50, 75])
            iqr[parcel] = high - low
    return median, iqr


def make_scaler(
    median: NDArray[np.float64], iqr: NDArray[np.float64], about: Mapping[str, Any]
) -> Scaler:
    """Put the blocks' results together and flag the parcels that cannot be scaled."""
    usable = np.isfinite(median) & (iqr > 0)
    if not usable.any():
        raise DataError(
            "No parcel varies over time in the train split, so nothing can be scaled",
            fix="look at the parcel series and at the denoising options",
        )
    return Scaler(
        median=np.where(usable, median, 0.0),
        iqr=np.where(usable, iqr, 1.0),
        usable=usable,
        about=dict(about),
    )


def save_scaler(path: str | Path, scaler: Scaler) -> None:
    """Write a scaler as safetensors (float64)."""
    save_tensors(
        path,
        {
            "median": scaler.median,
            "iqr": scaler.iqr,
            "usable": scaler.usable.astype(np.uint8),
        },
        {**scaler.about, "mean_removed": True},
    )


def load_scaler(path: str | Path) -> Scaler:
    """Read a scaler."""
    tensors, about = load_tensors(path)
    if set(tensors) != set(_ARRAYS):
        raise DataError(
            f"This file is no scaler: it holds {', '.join(sorted(tensors))}",
            file=path,
            fix="make it with `brainlm scale`",
        )
    return Scaler(tensors["median"], tensors["iqr"], tensors["usable"].astype(bool), about)
