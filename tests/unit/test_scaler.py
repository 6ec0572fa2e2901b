"""The scaler is exact, blind to order, and blind to everybody but the train split."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.cli import scale as scale_command
from brainlm.cli.cohort import cohort
from brainlm.errors import DataError
from brainlm.shards.scaler import (
    Scaler,
    check_series,
    fit_block,
    load_scaler,
    make_scaler,
    remove_mean,
    save_scaler,
)

from .synthetic_cohort import series_path, simulate, write_recording, write_study


def _recordings(seed: int, count: int = 5, parcels: int = 7) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        (rng.standard_t(3, (parcels, rng.integers(5, 90))) * 7 + rng.uniform(-1e4, 1e4)).astype(
            np.float32
        )
        for _ in range(count)
    ]


def _by_definition(recordings: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    together = np.concatenate(
        [r.astype(np.float64) - r.astype(np.float64).mean(1, keepdims=True) for r in recordings], 1
    )
    low, median, high = np.percentile(together, [25, 50, 75], axis=1)
    return median, high - low


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 5))
def test_it_equals_numpy_on_everything_at_once(seed: int, count: int, parcels: int) -> None:
    recordings = _recordings(seed, count, parcels)
    median, iqr = fit_block(recordings)
    expected_median, expected_iqr = _by_definition(recordings)
    np.testing.assert_array_equal(median, expected_median)
    np.testing.assert_array_equal(iqr, expected_iqr)


def test_neither_order_nor_blocks_change_a_bit() -> None:
    recordings = _recordings(1)
    whole = fit_block(recordings)
    backwards = fit_block(recordings[::-1])
    np.testing.assert_array_equal(whole, backwards)
    for width in (1, 2, 3):
        blocks = [
            fit_block([series[first : first + width] for series in recordings])
            for first in range(0, 7, width)
        ]
        np.testing.assert_array_equal(whole, np.concatenate(blocks, axis=1))


def test_parcels_without_coverage_do_not_count() -> None:
    recordings = _recordings(2)
    recordings[1][3] = np.nan
    median, iqr = fit_block(recordings)
    without = fit_block([recordings[0], *recordings[2:]])
    assert median[3] == without[0][3]
    assert iqr[3] == without[1][3]
    assert median[2] != without[0][2]


def test_flat_and_empty_parcels_are_flagged_and_stay_missing() -> None:
    recordings = _recordings(3)
    for series in recordings:
        series[0], series[1] = 5.0, np.nan
    scaler = make_scaler(*fit_block(recordings), {})
    assert list(np.flatnonzero(~scaler.usable)) == [0, 1]
    scaled = scaler.transform(recordings[0])
    assert np.isnan(scaled[:2]).all()
    assert np.isfinite(scaled[2:]).all()
    for series in recordings:
        series[:] = 5.0
    with pytest.raises(DataError, match="No parcel varies"):
        make_scaler(*fit_block(recordings), {})


def test_scaling_the_train_data_gives_median_0_and_iqr_1_and_goes_back() -> None:
    recordings = _recordings(4)
    scaler = make_scaler(*fit_block(recordings), {})
    scaled = [scaler.transform(series) for series in recordings]
    low, median, high = np.percentile(np.concatenate(scaled, axis=1), [25, 50, 75], axis=1)
    np.testing.assert_allclose(median, 0, atol=1e-12)
    np.testing.assert_allclose(high - low, 1, rtol=1e-12)
    np.testing.assert_allclose(
        scaler.inverse(scaled[0]), remove_mean(recordings[0]), rtol=1e-9, atol=1e-9
    )


def test_series_that_lie_are_refused() -> None:
    series = _recordings(5)[0]
    check_series(series, "x")
    holed = series.copy()
    holed[2, 3] = np.nan
    with pytest.raises(DataError, match=r"1 parcels.*column 2"):
        check_series(holed, "x")
    holed[2, 3] = np.inf
    with pytest.raises(DataError, match="infinite"):
        check_series(holed, "x")
    scaler = Scaler(np.zeros(3), np.ones(3), np.ones(3, bool))
    with pytest.raises(DataError, match="7 parcels, the scaler 3"):
        scaler.transform(series)


def test_the_file_keeps_every_digit_and_equal_content_is_equal_bytes(tmp_path) -> None:
    about = dict.fromkeys("abcdefgh", "x")
    scaler = make_scaler(*fit_block(_recordings(6)), about)
    save_scaler(tmp_path / "a.safetensors", scaler)
    save_scaler(tmp_path / "b.safetensors", scaler)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    again = load_scaler(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(again.median, scaler.median)
    np.testing.assert_array_equal(again.iqr, scaler.iqr)
    np.testing.assert_array_equal(again.usable, scaler.usable)
    assert again.about["h"] == "x"
    assert again.about["mean_removed"] is True


def test_the_command_sees_the_train_split_alone(tmp_path, monkeypatch) -> None:
    study = write_study(tmp_path / "study", {"train": 4, "val": 1, "test": 2})
    cohort(study.root)
    scale_command.scale(study.root)
    path = study.path("scaler")
    before = path.read_bytes()
    table = pd.read_parquet(study.path("cohort"))

    train = table[table["split"] == "train"]
    series = [
        pd.read_parquet(study.root / name).to_numpy(np.float64).T for name in train["timeseries"]
    ]
    scaler = load_scaler(path)
    median, iqr = _by_definition(series)
    np.testing.assert_array_equal(scaler.median, median)
    np.testing.assert_array_equal(scaler.iqr, iqr)
    assert scaler.about["n_subjects"] == 4

    rng = np.random.default_rng(1)
    for recording in table.loc[table["split"] != "train", "recording_id"]:
        write_recording(study, recording, 50 * simulate(0, 60, rng))
    monkeypatch.setattr(scale_command, "_BLOCK_VALUES", 3 * 240)  # three parcels at a time
    cohort(study.root)
    scale_command.scale(study.root)
    assert path.read_bytes() == before
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert "cohort/recordings.parquet" in sidecar["Sources"]


def test_a_series_of_another_atlas_is_refused(tmp_path) -> None:
    study = write_study(tmp_path / "study", {"train": 4, "val": 1, "test": 2})
    path = series_path(study, "sub-02_task-rest_run-1")
    table = pd.read_parquet(path)
    table[table.columns[::-1]].to_parquet(path, index=False)
    cohort(study.root)
    with pytest.raises(DataError, match="in another order"):
        scale_command.scale(study.root)


def test_a_series_that_cannot_be_read_is_named(tmp_path) -> None:
    study = write_study(tmp_path / "study", {"train": 4, "val": 1, "test": 2})
    path = series_path(study, "sub-02_task-rest_run-1")
    path.write_bytes(path.read_bytes()[:-100])
    cohort(study.root)
    with pytest.raises(DataError, match="cannot be read") as caught:
        scale_command.scale(study.root)
    assert caught.value.file == str(path)
