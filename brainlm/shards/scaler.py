"""Bringing parcel series to one scale, by statistics of the train split alone.

`robust`, the default: a recording's parcel series first loses its own mean over time; then the
median and the interquartile range (IQR) of the parcel over all time points of all TRAIN recordings
bring parcels to one scale, `z = (x - mean_of_recording - median) / iqr`. Both are exact (those of
`numpy.percentile`, linear interpolation, on everything concatenated) and do not depend on the
order of the recordings. The other methods are those that BrainLM's authors tried; all are defined
in docs/scaling.md. Volumes that scrubbing marked never count in a statistic.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, InputError
from .tensorfile import load_tensors, save_tensors

Series = NDArray[np.floating[Any]]

SCHEMA_VERSION = 2
#: Names of the file's arrays, each (parcels,).
_ARRAYS = ("median", "iqr", "usable")


@dataclass(frozen=True, eq=False)
class Scaler:
    """Statistics per parcel of the train split; travels with the shards and the models."""

    median: NDArray[np.float64]  # (parcels,), of what `mean_removed` says
    iqr: NDArray[np.float64]  # (parcels,)
    usable: NDArray[np.bool_]  # (parcels,), False: no data or IQR 0; such series become NaN
    method: str = "robust"  # a key of METHODS
    constants: dict[str, float] = field(default_factory=dict)  # of the whole train split
    about: dict[str, Any] = field(default_factory=dict)  # hashes and counts of what it saw
    mean_removed: bool = True  # each recording's mean goes before median, IQR and constants

    @property
    def parcels(self) -> int:
        """Number of parcels."""
        return len(self.median)

    def transform(
        self, series: Series, counted: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """Scale one recording, (parcels, time); parcels without data or scale are NaN.

        Where `counted` (time,) is False, a volume is scaled but not counted in the recording's own
        mean, SD or range.
        """
        if series.shape[0] != self.parcels:
            raise DataError(
                f"The series has {series.shape[0]} parcels, the scaler {self.parcels}",
                fix="scale with the scaler that was fitted on the same atlas",
            )
        if counted is not None and not counted.any():
            return np.full(series.shape, np.nan)
        scaled = METHODS[self.method](self, series, counted)
        scaled[~self.usable] = np.nan
        return scaled

    def inverse(self, scaled: Series) -> NDArray[np.float64]:
        """Back to signal units, (parcels, time).

        Around the recording's own mean, where it was removed; with `global-minmax` around 0.
        """
        values = np.asarray(scaled, np.float64)
        if self.method == "robust":
            return values * self.iqr[:, None] + self.median[:, None]
        if self.method == "global-sd":
            return values * self.constants["global_sd"]
        if self.method == "global-p99":
            return values * self.constants["global_p99"]
        if self.method == "global-minmax":
            low, high = self.constants["minimum"], self.constants["maximum"]
            return values * (high - low) + low
        raise InputError(
            f"Series scaled by {self.method} cannot be brought back: each recording's own scale "
            "is not kept",
            fix="scale with robust, global-sd, global-p99 or global-minmax",
        )


def remove_mean(series: Series, counted: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Subtract each parcel's mean over its counted volumes, (parcels, time), in float64.

    The time axis must be the contiguous one: numpy then sums every parcel alike, however
    many parcels are handed over at once.
    """
    centred = np.array(series, dtype=np.float64, order="C")
    if centred.shape[1] and (counted is None or counted.any()):
        centred -= _counted(centred, counted).mean(axis=1, keepdims=True)
    return centred


def _counted(values: NDArray[np.float64], counted: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    if counted is None or counted.all():
        return values
    return np.ascontiguousarray(values[:, counted])


def _robust(
    scaler: Scaler, series: Series, counted: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    scale = np.where(scaler.usable, scaler.iqr, np.nan)
    values = remove_mean(series, counted) if scaler.mean_removed else series.astype(np.float64)
    return (values - scaler.median[:, None]) / scale[:, None]


def _recording_zscore(
    scaler: Scaler, series: Series, counted: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    centred = remove_mean(series, counted)
    return centred / _or_nan(_counted(centred, counted).std(axis=1, keepdims=True))


def _global_sd(
    scaler: Scaler, series: Series, counted: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    return remove_mean(series, counted) / _or_nan(scaler.constants["global_sd"])


def _global_p99(
    scaler: Scaler, series: Series, counted: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    return remove_mean(series, counted) / _or_nan(scaler.constants["global_p99"])


def _recording_minmax(
    scaler: Scaler, series: Series, counted: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    values = np.asarray(series, np.float64)
    seen = _counted(values, counted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a recording without any parcel
        low, high = np.nanmin(seen), np.nanmax(seen)
    return (values - low) / _or_nan(high - low)


def _parcel_minmax(
    scaler: Scaler, series: Series, counted: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    values = np.asarray(series, np.float64)
    seen = _counted(values, counted)
    low, high = seen.min(axis=1, keepdims=True), seen.max(axis=1, keepdims=True)
    return (values - low) / _or_nan(high - low)


def _global_minmax(
    scaler: Scaler, series: Series, counted: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    low, high = scaler.constants["minimum"], scaler.constants["maximum"]
    return (np.asarray(series, np.float64) - low) / _or_nan(high - low)


def _or_nan(scale: Any) -> NDArray[np.float64]:
    """A scale of 0 says nothing: what it is to divide is missing."""
    return np.where(np.asarray(scale) > 0, scale, np.nan)


#: What a series (parcels, time) becomes, by the name that the config gives it.
METHODS: dict[str, Callable[[Scaler, Series, NDArray[np.bool_] | None], NDArray[np.float64]]] = {
    "robust": _robust,
    "recording-zscore": _recording_zscore,
    "global-sd": _global_sd,
    "global-p99": _global_p99,
    "recording-minmax": _recording_minmax,
    "parcel-minmax": _parcel_minmax,
    "global-minmax": _global_minmax,
}


def make_scaler(
    median: NDArray[np.float64],
    iqr: NDArray[np.float64],
    about: Mapping[str, Any],
    method: str = "robust",
    *,
    mean_removed: bool = True,
) -> Scaler:
    """A scaler from its statistics (NaN without data), the parcels it cannot scale flagged."""
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
        method=method,
        mean_removed=mean_removed,
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
        {
            **scaler.about,
            "mean_removed": scaler.mean_removed,
            "schema_version": SCHEMA_VERSION,
            "method": scaler.method,
            "constants": scaler.constants,
        },
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
    version, method = about.pop("schema_version", 1), about.pop("method", "robust")
    if version != SCHEMA_VERSION or method not in METHODS:
        raise DataError(
            f"The scaler has schema {version} and method {method}, this program reads schema "
            f"{SCHEMA_VERSION} and {', '.join(METHODS)}",
            file=path,
            fix="make it anew with `brainlm scale`, or use the version of brainlm that wrote it",
        )
    return Scaler(
        median=tensors["median"],
        iqr=tensors["iqr"],
        usable=tensors["usable"].astype(bool),
        method=method,
        mean_removed=about.pop("mean_removed"),
        constants=about.pop("constants"),
        about=about,
    )
