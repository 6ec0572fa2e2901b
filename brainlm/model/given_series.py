"""Parcel series as people have them: checked, scaled for the network, and brought back.

Everything that can be told wrong about a series is told before the network sees it, with what was
expected: the network would give a number for anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError, InputError
from ..shards.scaler import Scaler, remove_mean
from ..shards.timing import has_tr

#: What may be given as a series, (time, parcels).
Given = NDArray[Any] | pd.DataFrame | Tensor | Sequence[Sequence[float]]

#: Relative difference of a TR that is passed over, the default of `timing.tolerance`.
TR_TOLERANCE = 0.01

#: A cohort's spread differs from another's in the same unit by less than this factor; units differ
#: by more. Series with means of 0 and a spread of about 1 are suspected of being scaled sooner.
_OTHER_UNIT, _LIKE_SCALED = 10.0, 3.0
#: Scaled series lie around 0 with an IQR of about 1; with more than this they are not scaled.
_NOT_SCALED = 30.0


class About(TypedDict, total=False):
    """What may be said of a series beside its values."""

    tr: float | None  # its repetition time, s; default: not known, so not compared
    tr_tolerance: float  # relative difference from the train data's that is passed over, 0.01
    scaled: bool  # it is scaled as the train data were, and is given back so; default: raw
    unit_check: bool  # whether its spread must be like that of the train data; default: yes


@dataclass(frozen=True, eq=False)
class TakenSeries:
    """A checked series as the network takes it, and the way back to its unit."""

    values: NDArray[np.float32]  # (parcels, time), scaled; NaN throughout: a parcel without data
    given: NDArray[np.float64]  # (parcels, time), as it came in
    level: NDArray[np.float64]  # (parcels, 1): the series' own mean, where scaling took it away
    scaler: Scaler | None  # None: it came scaled, and so goes back

    def give_back(self, scaled: NDArray[Any]) -> NDArray[np.float32]:
        """Scaled values (parcels, time) in the unit that came in, (time, parcels)."""
        if self.scaler is None:
            return np.ascontiguousarray(scaled.T, np.float32)
        return np.ascontiguousarray((self.scaler.inverse(scaled) + self.level).T, np.float32)


def take_series(
    series: Given,
    parcels: Sequence[str],
    scaler: Scaler | None,
    *,
    fewest: int,
    scaled: bool = False,
    tr: float | None = None,
    tr_tolerance: float = TR_TOLERANCE,
    unit_check: bool = True,
    model_tr: float | None = None,
) -> TakenSeries:
    """Check a series (time, parcels) of at least `fewest` time points, and scale it.

    `parcels` are the model's names in its order, `tr` is the series' own, in s, `model_tr` that of
    the train data (default: the scaler's). A series that is `scaled` is taken and given back as it
    is.
    """
    values = _as_table(series, parcels)
    _check_shape(values, parcels, fewest)
    if tr is not None:
        _check_tr(tr, model_tr or (scaler.about.get("tr") if scaler else None), tr_tolerance)
    covered = _check_values(values, parcels)
    if scaled:
        if unit_check:
            _check_is_scaled(values[covered])
        return TakenSeries(values.astype(np.float32), values, np.zeros((len(values), 1)), None)
    if scaler is None:
        raise InputError(
            "This model has no scaler (its authors did not release theirs), so it cannot scale "
            "the series",
            fix="give scaled series with scaled=True, or a scaler of your data: "
            "model.with_scaler(fit_scaler(train_series))",
        )
    if unit_check:
        _check_unit(values[covered], scaler, covered)
    ready = scaler.transform(values)
    if np.isnan(ready).all():
        raise DataError(
            "No parcel with data is one that the model's scaler can scale",
            fix="its train split had no data of these parcels: use another model",
        )
    return TakenSeries(ready.astype(np.float32), values, _level(values, scaler), scaler)


def fit_scaler(series: Sequence[Given], parcels: Sequence[str], tr: float | None = None) -> Scaler:
    """The robust scaler of these series (time, parcels): those of your train subjects alone.

    Exactly what `brainlm scale` makes of a cohort, in memory: median and IQR per parcel over all
    time points, each series' mean removed.
    """
    from ..shards.scaler import make_scaler

    parts = []
    for one in series:
        values = _as_table(one, parcels)
        _check_shape(values, parcels, 1)
        _check_values(values, parcels)
        parts.append(remove_mean(values))
    if not parts:
        raise InputError("There is no series to fit a scaler on")
    together = np.concatenate(parts, axis=1)
    quartiles = np.full((3, len(parcels)), np.nan)
    for number, row in enumerate(together):
        if len(present := row[~np.isnan(row)]):
            quartiles[:, number] = np.percentile(present, [25, 50, 75])
    low, median, high = quartiles
    return make_scaler(median, high - low, {"n_recordings": len(parts), "tr": tr})


def _as_table(series: Given, parcels: Sequence[str]) -> NDArray[np.float64]:
    """Any kind of series as (parcels, time); the names of a DataFrame's columns are compared."""
    if isinstance(series, pd.DataFrame):
        _check_names([str(name) for name in series.columns], parcels)
    if isinstance(series, Tensor):
        series = series.detach().cpu().double().numpy()
    try:
        if isinstance(series, np.ma.MaskedArray):  # what is masked is no data
            series = np.ma.filled(series.astype(np.float64), np.nan)
        values = np.asarray(series, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"A series is a table of numbers, (time, parcels); this one is not: {error}",
            fix="give the numbers alone, and NaN for a parcel without data",
        ) from None
    if values.ndim != 2:
        shape = " x ".join(map(str, values.shape)) or "a single number"
        raise InputError(
            f"A series is a table (time, parcels), this is {shape}",
            fix="give one recording at a time",
        )
    return np.ascontiguousarray(values.T)


def _check_names(names: Sequence[str], parcels: Sequence[str]) -> None:
    """Refuse names in another order; numbers that count up are no names."""
    if list(names) == list(parcels):
        return
    if sorted(names) == sorted(parcels):
        place = next(
            i for i, pair in enumerate(zip(names, parcels, strict=True)) if len({*pair}) > 1
        )
        raise InputError(
            f"The columns stand in another order than the model's parcels: column {place + 1} is "
            f"{names[place]}, expected {parcels[place]}",
            fix='reorder them: series[model.parcels["name"]]',
        )
    if all(name.isdecimal() for name in names):
        numbers = [int(name) for name in names]
        if numbers == sorted(set(numbers)):
            return
        raise InputError(
            "The columns are numbered, but not in order, so they cannot stand in that of the "
            "model's parcels",
            fix="put them into the order of model.parcels and name them so; if they stand in it, "
            "give series.to_numpy()",
        )
    unknown = [name for name in names if name not in set(parcels)]
    missing = [name for name in parcels if name not in set(names)]
    told = [f"{len(unknown)} unknown (first: {unknown[0]})"] if unknown else []
    told += [f"{len(missing)} missing (first: {missing[0]})"] if missing else []
    raise InputError(
        f"The columns are not the model's {len(parcels)} parcels: {', '.join(told) or 'doubles'}",
        fix="parcellate with the model's atlas (model.parcels); a parcel without data is a column "
        "of NaN; if the order is right and only the names differ, give series.to_numpy()",
    )


def _check_shape(values: NDArray[np.float64], parcels: Sequence[str], fewest: int) -> None:
    columns, times = values.shape
    if columns != len(parcels):
        if times == len(parcels):
            raise InputError(
                f"The series looks transposed: it is {times} x {columns}, expected (time, parcels) "
                f"with {len(parcels)} parcels",
                fix="give series.T",
            )
        raise InputError(
            f"The series has {columns} parcels, expected {len(parcels)}, those of the model in its "
            "order",
            fix="parcellate with the model's atlas (model.parcels); a parcel without data is a "
            "column of NaN",
        )
    if times < fewest:
        raise DataError(
            f"The series has {times} time points, this needs at least {fewest}",
            fix="use a longer recording; padding it would be taken for signal",
        )


def _check_tr(tr: float, expected: float | None, tolerance: float) -> None:
    if not tr > 0:
        raise InputError(f"A TR is above 0 s, this is {tr:g} s", fix="give it in seconds")
    if expected and not has_tr(tr, expected, tolerance):
        raise DataError(
            f"The series has a TR of {tr:g} s, the model was trained at {expected:g} s "
            f"(tolerance {tolerance:.0%})",
            fix="resample it: brainlm.shards.timing.resample(series.T, its_tr, model.tr).T",
        )


def _check_values(values: NDArray[np.float64], parcels: Sequence[str]) -> NDArray[np.bool_]:
    """Which parcels have data, (parcels,); refuses what is neither a whole series nor none."""
    infinite, missing = np.isinf(values), np.isnan(values)
    if infinite.any():
        where, when = np.argwhere(infinite)[0]
        raise DataError(
            f"The series holds {int(infinite.sum())} infinite values (first: time point {when}, "
            f"parcel {parcels[where]})",
            fix="mend what made it, or set the whole parcel to NaN",
        )
    covered = np.asarray(~missing.all(axis=1))
    partly = missing.any(axis=1) & covered
    if partly.any():
        first = int(np.argmax(partly))
        raise DataError(
            f"{int(partly.sum())} parcels are NaN at some time points only (first: "
            f"{parcels[first]}, {int(missing[first].sum())} of {values.shape[1]})",
            fix="interpolate over censored volumes, or set the whole parcel to NaN: it then counts "
            "as not covered",
        )
    if not covered.any():
        raise DataError("No parcel has data: all are NaN", fix="look at what made it")
    still = covered & (np.ptp(np.where(covered[:, None], values, 0.0), axis=1) == 0)
    if still[covered].all():
        raise DataError(
            "The series is constant: no parcel changes over time", fix="look at what made it"
        )
    if still.any():
        raise DataError(
            f"{int(still.sum())} parcels are constant over time (first: "
            f"{parcels[int(np.argmax(still))]}), as if they had no data",
            fix="set parcels without data to NaN: series[:, series.std(axis=0) == 0] = numpy.nan",
        )
    return covered


def _check_unit(values: NDArray[np.float64], scaler: Scaler, covered: NDArray[np.bool_]) -> None:
    """Refuse a unit that cannot be the train split's; methods by recording need none."""
    if scaler.method not in ("robust", "global-sd", "global-p99", "global-minmax"):
        return
    usable = scaler.usable[covered]
    if not usable.any():
        return
    found = float(np.median(_spread(values[usable])))
    expected = float(np.median(scaler.iqr[covered][usable]))
    ratio = max(found / expected, expected / found) if found > 0 else np.inf
    likely = _looks_scaled(values) and ratio > _LIKE_SCALED
    if likely or ratio > _OTHER_UNIT:
        what = "looks scaled already" if likely else "is in another unit than the train data"
        raise DataError(
            f"The series {what}: its parcels vary with an IQR of {found:.3g}, those of the train "
            f"data with {expected:.3g}",
            fix="give the raw signal; or scaled=True for series scaled as the model's were; or for "
            "another unit a scaler of your own data: model.with_scaler(fit_scaler(...)); or "
            "unit_check=False",
        )


def _check_is_scaled(values: NDArray[np.float64]) -> None:
    if np.median(np.abs(values)) > _NOT_SCALED or np.median(_spread(values)) > _NOT_SCALED:
        raise DataError(
            "The series was given as scaled but is not: its values lie around "
            f"{np.median(values):.3g} with an IQR of {np.median(_spread(values)):.3g}, expected 0 "
            "and about 1",
            fix="leave out scaled=True",
        )


def _looks_scaled(values: NDArray[np.float64]) -> bool:
    """Whether the parcels lie around 0 and vary by about 1."""
    spread = float(np.median(_spread(values)))
    centred = np.abs(values.mean(axis=1)) < 0.5 * values.std(axis=1)
    return bool(centred.mean() > 0.9 and 0.3 < spread < 3)


def _spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """IQR over time of each parcel, (parcels,)."""
    low, high = np.percentile(values, [25, 75], axis=1)
    return np.asarray(high - low)


def _level(values: NDArray[np.float64], scaler: Scaler) -> NDArray[np.float64]:
    """What scaling took away of each parcel, (parcels, 1), that `Scaler.inverse` does not add."""
    removed = scaler.method in ("global-sd", "global-p99") or (
        scaler.method == "robust" and scaler.mean_removed
    )
    return values.mean(axis=1, keepdims=True) if removed else np.zeros((len(values), 1))
