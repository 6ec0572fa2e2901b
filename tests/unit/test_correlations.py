"""Connectivity, fast: the numbers of numpy.corrcoef, and no more memory for more recordings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.evaluate.baselines import correlations
from brainlm.evaluate.baselines.connectivity import span_of
from brainlm.evaluate.baselines.correlations import (
    connectivity,
    connectivity_of,
    correlation,
    in_blocks,
)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(3, 60), st.integers(1, 12), st.sampled_from([0.0, 1.0, 1e3]), st.integers(0, 9999)
)
def test_it_is_corrcoef(times: int, parcels: int, level: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    series = (rng.standard_normal((times, parcels)) + level).astype(np.float32)
    series[:, rng.random(parcels) < 0.2] = level + 0.1  # does not vary
    series[rng.integers(times), rng.random(parcels) < 0.2] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.atleast_2d(np.corrcoef(series, rowvar=False))
    flat = np.nanmax(series, axis=0, initial=-np.inf) == np.nanmin(series, axis=0, initial=np.inf)
    expected[flat] = expected[:, flat] = np.nan  # where rounding left corrcoef a number
    np.testing.assert_allclose(correlation(series), expected, atol=1e-5)


class _Store:
    def __init__(self, count: int):
        rng = np.random.default_rng(0)
        self.all = {
            f"{n:02d}": rng.standard_normal((30, 6)).astype(np.float16) for n in range(count)
        }

    def series(self, name: str) -> np.ndarray:
        return self.all[name].astype(np.float32)


@pytest.mark.parametrize("threads", [1, 3])
def test_recordings_come_in_blocks_in_their_order(monkeypatch, threads) -> None:
    monkeypatch.setattr(correlations, "_AT_ONCE", 4)
    store = _Store(10)
    names = sorted(store.all, reverse=True)
    blocks = list(in_blocks(names, store, threads))
    assert [len(block) for block in blocks] == [4, 4, 2]
    expected = np.stack([connectivity(store.series(name)) for name in names])
    np.testing.assert_array_equal(np.concatenate(blocks), expected)
    np.testing.assert_array_equal(connectivity_of(names, store, threads), expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 9), st.integers(2, 40), st.integers(0, 999))
def test_a_span_keeps_what_kernels_are_made_of(rows: int, columns: int, seed: int) -> None:
    """Products and distances, in the span and out of it, divided by one number."""
    rng = np.random.default_rng(seed)
    train, test = (rng.standard_normal((count, columns)).astype(np.float32) for count in (rows, 5))
    train[0, 0] = test[0, -1] = np.nan
    span = span_of(train, [test[:2], test[2:]])
    mean = np.nanmean(train.astype(float), axis=0)
    own, other = (np.nan_to_num(some - mean) for some in (train, test))
    size = np.sqrt((own**2).sum() / rows)
    np.testing.assert_allclose(span.train @ span.train.T, own @ own.T / size**2, atol=1e-5)
    np.testing.assert_allclose(span.test @ span.train.T, other @ own.T / size**2, atol=1e-5)
    lengths = (span.test**2).sum(axis=1) + span.outside
    np.testing.assert_allclose(lengths, (other**2).sum(axis=1) / size**2, rtol=1e-4)
