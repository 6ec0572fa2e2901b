"""What is wrong with a series is told before the network sees it; what is right comes back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brainlm.errors import BrainLMError, DataError, InputError
from brainlm.model.given_series import fit_scaler, take_series
from brainlm.shards.scaler import METHODS, Scaler, make_scaler

from .small_model import series

NAMES = [f"P{number}" for number in range(1, 9)]
SCALER = make_scaler(np.linspace(-1, 1, 8), np.linspace(10, 16, 8), {"tr": 2.0})


def take(values, scaler: Scaler | None = SCALER, *, fewest: int = 40, **about):
    return take_series(values, NAMES, scaler, fewest=fewest, **about)


def test_what_was_scaled_comes_back_in_its_unit() -> None:
    raw = series(60)
    raw[:, 3] = np.nan
    taken = take(raw, tr=2.01)
    assert taken.values.shape == (8, 60) and np.isnan(taken.values[3]).all()
    np.testing.assert_allclose(taken.values, SCALER.transform(raw.T), rtol=1e-6)
    np.testing.assert_allclose(taken.give_back(taken.values), raw, rtol=1e-6)


@pytest.mark.parametrize("method", ["robust", "global-sd", "global-p99", "global-minmax"])
@pytest.mark.parametrize("mean_removed", [True, False])
def test_every_way_of_scaling_that_can_be_undone_is(method: str, mean_removed: bool) -> None:
    constants = {"global_sd": 12.0, "global_p99": 30.0, "minimum": 900.0, "maximum": 1100.0}
    scaler = Scaler(
        SCALER.median,
        SCALER.iqr,
        SCALER.usable,
        method=method,
        constants=constants,
        mean_removed=mean_removed,
    )
    raw = series()
    taken = take(raw, scaler)
    np.testing.assert_allclose(taken.give_back(taken.values), raw, rtol=1e-5)


def test_a_way_that_keeps_no_scale_says_so() -> None:
    for method in set(METHODS) - {"robust", "global-sd", "global-p99", "global-minmax"}:
        scaler = Scaler(SCALER.median, SCALER.iqr, SCALER.usable, method=method)
        taken = take(series() / 1000, scaler)  # any unit will do
        with pytest.raises(InputError, match="cannot be brought back"):
            taken.give_back(taken.values)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, pd.DataFrame, np.ndarray.tolist])
def test_any_kind_of_table_will_do(kind) -> None:
    np.testing.assert_array_equal(take(kind(series())).values, take(series()).values)


def _with(row, column, value) -> np.ndarray:
    values = series()
    values[row, column] = value
    return values


def _columns(names: list[str]) -> pd.DataFrame:
    return pd.DataFrame(series(), columns=names)


def test_what_is_masked_is_no_data() -> None:
    raw = series()
    masked = np.ma.masked_array(raw.copy(), np.arange(8) == np.full_like(raw, 2))
    raw[:, 2] = np.nan
    np.testing.assert_array_equal(take(masked).values, take(raw).values)


def test_a_float64_tensor_keeps_its_digits() -> None:
    fine = series().astype(float) + 1e7
    np.testing.assert_array_equal(take(torch.from_numpy(fine)).values, take(fine).values)


def test_numbered_columns_must_count_up() -> None:
    numbered = pd.DataFrame(series(), columns=range(1, 9))
    np.testing.assert_array_equal(take(numbered).values, take(series()).values)
    with pytest.raises(InputError, match="numbered, but not in order") as told:
        take(numbered[[2, 1, 3, 4, 5, 6, 7, 8]])
    assert "to_numpy" in str(told.value)
    numbers = [str(number) for number in range(8, 0, -1)]  # an atlas that names parcels so
    with pytest.raises(InputError, match="column 1 is 1, expected 8"):
        take_series(numbered, numbers, SCALER, fewest=40)


SWAPPED = [*NAMES[:2], NAMES[3], NAMES[2], *NAMES[4:]]


@pytest.mark.parametrize(
    ("values", "about", "kind", "told"),
    [
        (series()[:, :7], {}, InputError, "has 7 parcels, expected 8"),
        (series().T, {}, InputError, r"looks transposed: it is 8 x 40, expected .* 8 parcels"),
        (series()[0], {}, InputError, r"\(time, parcels\), this is 8"),
        (series()[None], {}, InputError, "this is 1 x 40 x 8"),
        ([["a"] * 8] * 40, {}, InputError, "table of numbers"),
        (series(39), {}, DataError, "has 39 time points, this needs at least 40"),
        (_columns(SWAPPED), {}, InputError, "column 3 is P4, expected P3"),
        (_columns([*NAMES[:-1], "V1"]), {}, InputError, r"1 unknown \(first: V1\), 1 missing"),
        (_columns([*NAMES[:-1], "P1"]), {}, InputError, r"1 missing \(first: P8\)"),
        (_with(5, 2, np.inf), {}, DataError, "1 infinite values .*time point 5, parcel P3"),
        (_with(slice(5, 8), 2, np.nan), {}, DataError, r"1 parcels are NaN .*P3, 3 of 40"),
        (_with(slice(None), slice(None), np.nan), {}, DataError, "No parcel has data"),
        (_with(slice(None), slice(None), 7.0), {}, DataError, "series is constant"),
        (_with(slice(None), 4, 0.0), {}, DataError, r"1 parcels are constant .*first: P5"),
        (series(), {"tr": 0.72}, DataError, r"TR of 0.72 s, the model was trained at 2 s"),
        (series(), {"tr": 0.0}, InputError, "TR is above 0 s"),
        (SCALER.transform(series().T).T, {}, DataError, "looks scaled already"),
        (series() / 1000, {}, DataError, r"another unit .* IQR of 0\.01.*, those of the train"),
        (series(), {"scaled": True}, DataError, "given as scaled but is not"),
    ],
)
def test_what_is_wrong_is_told(values, about, kind, told) -> None:
    with pytest.raises(kind, match=told) as error:
        take(values, **about)
    assert error.value.fix


def test_a_tolerance_and_a_unit_may_be_passed_over() -> None:
    take(series(), tr=0.72, tr_tolerance=1.0)
    take(series() / 1000, unit_check=False)
    take(SCALER.transform(series().T).T, scaled=True, tr=2.0)
    take(series(), make_scaler(SCALER.median, SCALER.iqr, {"tr": None}), tr=0.72)


def test_without_a_scaler_raw_series_are_refused() -> None:
    with pytest.raises(InputError, match="has no scaler"):
        take(series(), None)
    unseen = make_scaler(np.zeros(8), np.r_[np.zeros(7), 10.0], {})
    lonely = series()
    lonely[:, 7] = np.nan
    with pytest.raises(DataError, match="No parcel with data is one"):
        take(lonely, unseen)


def test_a_scaler_of_ones_own_data_is_the_cohorts() -> None:
    raw = [series(60, seed) for seed in range(3)]
    raw[1][:, 5] = np.nan
    scaler = fit_scaler(raw, NAMES, tr=2.0)
    doubles = [one.astype(float) for one in raw]
    centred = np.concatenate([one - one.mean(axis=0) for one in doubles])
    low, median, high = np.nanpercentile(centred, [25, 50, 75], axis=0)
    np.testing.assert_allclose(scaler.median, median, rtol=1e-9)
    np.testing.assert_allclose(scaler.iqr, high - low, rtol=1e-9)
    assert scaler.about["tr"] == 2.0
    with pytest.raises(InputError, match="no series"):
        fit_scaler([], NAMES)


@given(
    shape=st.tuples(st.integers(0, 50), st.integers(0, 10)),
    missing=st.sets(st.integers(0, 9)),
    volumes=st.integers(1, 45),
)
def test_a_series_is_taken_whole_or_refused_with_a_reason(shape, missing, volumes) -> None:
    values = np.random.default_rng(0).normal(1000, 10, shape)
    values[:, [column for column in missing if column < shape[1]]] = np.nan
    good = shape[1] == 8 and shape[0] >= volumes and len(missing & set(range(8))) < 8
    try:
        taken = take(values, fewest=volumes)
    except BrainLMError:
        assert not good or shape[0] == 1  # one time point is constant
    else:
        assert good
        assert set(np.flatnonzero(np.isnan(taken.values).all(axis=1))) == missing & set(range(8))
