"""Quantiles from brackets and parts are numpy's, bit for bit, however the recordings are dealt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from brainlm.errors import DataError
from brainlm.shards import brackets as brackets_module
from brainlm.shards.brackets import (
    Brackets,
    bracket,
    choose_sample,
    load_brackets,
    save_brackets,
)
from brainlm.shards.constants import AUTHORS_IMAGE_SD, constants_of
from brainlm.shards.exact_sums import add_to, exact_values, make_sums
from brainlm.shards.gather import Quantiles, fit_quantiles
from brainlm.shards.part_file import save_part
from brainlm.shards.parts import (
    Part,
    Spool,
    Totals,
    load_part,
    make_part,
    measure,
)
from brainlm.shards.scaler import make_scaler
from brainlm.shards.series import Series

Cohort = list[Series]
#: The magnitudes that break arithmetic: ties, denormals, large offsets.
KINDS = ("normal", "heavy", "ties", "constant", "offset", "denormal", "mixed")


@st.composite
def cohorts(draw: st.DrawFn) -> Cohort:
    """Recordings of unequal length and scale; some parcels missing, some volumes not counted."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    parcels, count = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    kinds = [draw(st.sampled_from(KINDS)) for _ in range(parcels)]
    missing, censoring = draw(st.booleans()), draw(st.booleans())
    cohort = []
    for _ in range(count):
        time = int(rng.integers(1, 40))
        values = np.stack([_values(kind, time, rng) for kind in kinds])
        if missing:
            values[rng.random(parcels) < 0.4] = np.nan
        counted = rng.random(time) > (rng.choice([0, 0.3, 1.1]) if censoring else 0)
        cohort.append(Series(values, counted))
    return cohort


def _values(kind: str, time: int, rng: np.random.Generator) -> np.ndarray:
    drawn = {
        "normal": lambda: rng.uniform(0.5, 2) * rng.standard_normal(time),
        "heavy": lambda: rng.standard_cauchy(time),
        "ties": lambda: rng.integers(0, 3, time),
        "constant": lambda: np.full(time, rng.integers(0, 3)),
        "offset": lambda: 1e7 + rng.standard_normal(time),
        "denormal": lambda: 1e-44 * rng.integers(-5, 5, time),
        "mixed": lambda: rng.standard_normal(time) * 10.0 ** rng.integers(-30, 30, time),
    }
    return drawn[kind]().astype(np.float32)


def centred(cohort: Cohort, parcel: int) -> np.ndarray:
    """By definition: what a parcel's statistics are taken of."""
    found = []
    for series in cohort:
        values = series.values[parcel].astype(np.float64)[series.counted]
        if len(values) and not np.isnan(values[0]):
            found.append(values - values.mean())
    return np.concatenate(found) if found else np.empty(0)


def by_numpy(cohort: Cohort) -> np.ndarray:
    """Quartiles (3, parcels) of everything at once."""
    columns = []
    for parcel in range(len(cohort[0].values)):
        values = centred(cohort, parcel)
        columns.append(np.percentile(values, [25, 50, 75]) if len(values) else np.full(3, np.nan))
    return np.stack(columns, axis=1)


def sample_brackets(sample: Cohort, cohort: Cohort) -> Brackets:
    return bracket(
        sample,
        parcels=len(cohort[0].values),
        lengths=[series.values.shape[1] for series in sample],
        population=sum(series.values.shape[1] for series in cohort),
    )


def parts_in(groups: Sequence[Cohort], brackets: Brackets) -> list[Part]:
    return [
        make_part((measure(series, brackets) for series in group), brackets.parcels)
        for group in groups
    ]


def fit(groups: Sequence[Cohort], brackets: Brackets, most: int = 10_000_000) -> Quantiles:
    return fit_quantiles(lambda these: parts_in(groups, these), brackets, most)


def assert_bits_equal(found: np.ndarray, expected: np.ndarray) -> None:
    """NaN where NaN; 0 and -0 are the same number."""
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=150, deadline=None)
@given(cohorts(), st.data())
def test_any_grouping_and_order_gives_numpys_bits(cohort: Cohort, data: st.DataObject) -> None:
    sample = cohort[: data.draw(st.integers(1, len(cohort)))]
    brackets = sample_brackets(sample, cohort)
    shuffled = data.draw(st.permutations(cohort))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(cohort)), max_size=3)))
    groups = [shuffled[a:b] for a, b in pairwise([0, *cuts, len(cohort)])]
    found = fit(groups, brackets)
    assert_bits_equal(found.quartiles, by_numpy(cohort))
    everything = np.concatenate([centred(cohort, p) for p in range(len(cohort[0].values))])
    pooled = np.percentile(np.abs(everything), 99) if len(everything) else np.nan
    assert_bits_equal(np.array(found.pooled), pooled)
    again = fit([cohort], brackets)
    assert again.quartiles.tobytes() == found.quartiles.tobytes()
    for field in fields(Totals):
        assert_bits_equal(getattr(again.totals, field.name), getattr(found.totals, field.name))


@settings(max_examples=60, deadline=None)
@given(cohorts(), st.integers(0, 1 << 32))
def test_brackets_that_miss_cost_a_second_pass_and_no_exactness(cohort: Cohort, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (4, len(cohort[0].values))
    low = rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 8, shape)
    low[3] = abs(low[3, 0])
    passes = []

    def parts_of(these: Brackets) -> list[Part]:
        passes.append(these)
        return parts_in([cohort[::2], cohort[1::2]], these)

    found = fit_quantiles(parts_of, Brackets(low, low + rng.random()))
    assert_bits_equal(found.quartiles, by_numpy(cohort))
    assert len(passes) <= 2
    if np.isfinite(found.pooled):
        everything = np.concatenate([centred(cohort, p) for p in range(shape[1])])
        assert found.pooled == np.percentile(np.abs(everything), 99)


def test_a_miss_is_seen_and_only_its_parcels_are_kept_anew() -> None:
    rng = np.random.default_rng(0)
    cohort = [Series(rng.standard_normal((3, 50)).astype(np.float32), np.ones(50, bool))]
    brackets = sample_brackets(cohort, cohort)
    brackets.low[1, 2] = brackets.high[1, 2] = 9.0  # no median of a standard normal
    passes = []

    def parts_of(these: Brackets) -> list[Part]:
        passes.append(parts_in([cohort], these))
        return passes[-1]

    assert_bits_equal(fit_quantiles(parts_of, brackets).quartiles, by_numpy(cohort))
    assert len(passes) == 2
    kept = passes[1][0].totals.inside
    assert kept[1, 2] == 50
    assert kept.sum() == 50


@settings(max_examples=60, deadline=None)
@given(cohorts(), st.integers(1, 30))
def test_little_memory_gives_the_same_bits(cohort: Cohort, most: int) -> None:
    brackets = Brackets(
        np.full((4, len(cohort[0].values)), -np.inf), np.full((4, len(cohort[0].values)), np.inf)
    )
    groups = [cohort[::2], cohort[1::2]]
    little, much = fit(groups, brackets, most), fit(groups, brackets)
    assert little.quartiles.tobytes() == much.quartiles.tobytes()
    assert_bits_equal(np.array(little.pooled), np.array(much.pooled))


def test_the_sign_of_zero_does_not_tell_the_order() -> None:
    counted = np.ones(3, bool)
    cohort = [Series(np.array([[zero, 1, -1]], np.float32), counted) for zero in (0.0, -0.0, -0.0)]
    everything = Brackets(np.full((4, 1), -np.inf), np.full((4, 1), np.inf))
    for most in (2, 100):
        for group in (cohort, cohort[::-1], cohort[1:2], cohort[1:]):
            median = fit([group], everything, most).quartiles[1, 0]
            assert median == 0
            assert not np.signbit(median)


@settings(max_examples=40, deadline=None)
@given(cohorts())
def test_totals_add_in_any_order_and_grouping(cohort: Cohort) -> None:
    brackets = sample_brackets(cohort[:1], cohort)
    each = [part.totals for part in parts_in([[series] for series in cohort], brackets)]
    left = reduce(add, each)
    right = reduce(lambda later, earlier: earlier + later, reversed(each))
    backwards = reduce(add, reversed(each))
    for field in fields(Totals):
        for other in (right, backwards):
            assert_bits_equal(getattr(left, field.name), getattr(other, field.name))


_FLOATS = arrays.arrays(
    np.float64,
    st.tuples(st.integers(1, 12), st.just(2)),
    elements=st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=True),
)


@given(_FLOATS)
def test_sums_are_exact(values: np.ndarray) -> None:
    sums = make_sums(2)
    for row in values:
        add_to(sums, row)
    expected = [sum(map(Fraction, map(float, column)), Fraction()) for column in values.T]
    assert exact_values(sums) == expected


def _population(n: int, rng: np.random.Generator, parcels: int = 3) -> Cohort:
    """Recordings that differ in amplitude and shape, as people do."""
    return [
        Series(
            (
                1000 + rng.lognormal(3, 0.4) * rng.standard_t(rng.uniform(3, 30), (parcels, 120))
            ).astype(np.float32),
            np.ones(120, bool),
        )
        for _ in range(n)
    ]


def test_brackets_of_a_sample_hold_the_quartiles_and_little_else() -> None:
    rng = np.random.default_rng(1)
    cohort = _population(1000, rng)
    brackets = sample_brackets(cohort[:127], cohort)
    totals = parts_in([cohort], brackets)[0].totals
    expected = by_numpy(cohort)
    assert (brackets.low[:3] <= expected).all()
    assert (expected <= brackets.high[:3]).all()
    assert (totals.inside / totals.n).max() < 0.1
    passes = []
    fit_quantiles(lambda these: passes.append(1) or parts_in([cohort], these), brackets)  # type: ignore[func-returns-value]
    assert len(passes) == 1


def test_a_large_sample_is_thinned_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    cohort = _population(300, rng)
    whole = sample_brackets(cohort[:100], cohort)
    monkeypatch.setattr(brackets_module, "_MOST_VALUES", 100 * 3 * 30)
    monkeypatch.setattr(brackets_module, "_MOST_POOLED", 2000)
    thinned = sample_brackets(cohort[:100], cohort)
    assert (thinned.low != whole.low).any()
    found = fit([cohort], thinned)
    assert_bits_equal(found.quartiles, by_numpy(cohort))
    totals = parts_in([cohort], thinned)[0].totals
    assert (totals.inside / totals.n).max() < 0.3


def test_the_sample_depends_on_names_alone_and_grows_slowly() -> None:
    names = [f"sub-{number:05d}" for number in range(10_000)]
    chosen = choose_sample(names)
    assert len(chosen) == 400
    assert chosen == choose_sample(reversed(names))
    assert choose_sample(names[:50]) == set(names[:50])
    assert len(choose_sample(names[:200])) == 64


def test_constants_follow_their_definitions() -> None:
    rng = np.random.default_rng(3)
    cohort = _population(20, rng)
    cohort[4].values[1] = np.nan
    cohort[5].counted[:50] = False
    found = fit([cohort], sample_brackets(cohort, cohort))
    low, median, high = found.quartiles
    scaler = make_scaler(median, high - low, {})
    constants = constants_of(found, scaler)
    parcels = [centred(cohort, parcel) for parcel in range(3)]
    everything = np.concatenate(parcels)
    raw = np.concatenate([s.values[:, s.counted].ravel() for s in cohort])
    robust = np.concatenate(
        [(x - m) / w for x, m, w in zip(parcels, median, high - low, strict=True)]
    )
    assert constants["n"] == len(everything) == 20 * 3 * 120 - 120 - 150
    assert math.isclose(constants["global_sd"], everything.std(), rel_tol=1e-12)
    assert constants["global_p99"] == np.percentile(np.abs(everything), 99)
    assert constants["minimum"] == np.nanmin(raw)
    assert constants["maximum"] == np.nanmax(raw)
    assert math.isclose(constants["robust_sd"], robust.std(), rel_tol=1e-12)
    assert math.isclose(constants["image_scale"] * AUTHORS_IMAGE_SD, robust.std(), rel_tol=1e-12)
    backwards = fit([cohort[::-1]], sample_brackets(cohort[:1], cohort))
    assert constants == constants_of(backwards, scaler)


def test_parts_of_a_part_are_written_as_one(tmp_path) -> None:
    cohort = _population(12, np.random.default_rng(4))
    brackets = sample_brackets(cohort[:6], cohort)
    spool = Spool(in_memory=0)
    pieces = [spool.put(part) for part in parts_in([cohort[:5], [], cohort[5:]], brackets)]
    save_part(tmp_path / "pieces", pieces, 3, {"a": 1})
    save_part(tmp_path / "whole", parts_in([cohort], brackets), 3, {"a": 1})
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()
    save_part(tmp_path / "nothing", [], 3, {})
    assert load_part(tmp_path / "nothing")[0].totals.n.tolist() == [0, 0, 0]


def test_parts_in_files_and_in_scratch_say_the_same(tmp_path) -> None:
    rng = np.random.default_rng(4)
    cohort = _population(12, rng)
    brackets = sample_brackets(cohort[:6], cohort)
    save_brackets(tmp_path / "b.safetensors", brackets, {"a": 1})
    again, about = load_brackets(tmp_path / "b.safetensors")
    assert again.sha256 == brackets.sha256
    assert about["a"] == 1
    spool = Spool(in_memory=0)

    def stored(these: Brackets) -> list[Part]:
        parts = parts_in([cohort[:5], [], cohort[5:]], these)
        for number, part in enumerate(parts):
            save_part(tmp_path / f"{number}.safetensors", [part], 3, {"number": number})
        return [spool.put(parts[0]), *(_read(tmp_path / f"{n}.safetensors", n) for n in (1, 2))]

    def _read(path, number: int) -> Part:
        part, about = load_part(path)
        assert about["number"] == number
        return part

    for most in (7, 10_000_000):
        found = fit_quantiles(stored, again, most)
        assert_bits_equal(found.quartiles, by_numpy(cohort))
    with pytest.raises(DataError, match="no partial statistics"):
        load_part(tmp_path / "b.safetensors")
    with pytest.raises(DataError, match="no intervals"):
        load_brackets(tmp_path / "0.safetensors")
