"""What goes into the shards comes out again, window by window, and only where it belongs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.cli.cohort import cohort
from brainlm.cli.index_shards import index_shards
from brainlm.cli.scale import scale
from brainlm.cli.write_shard import write_shard
from brainlm.errors import DataError, InputError
from brainlm.shards.labels import LabelScale, read_label
from brainlm.shards.packing import pack
from brainlm.shards.reader import ShardReader
from brainlm.shards.sampler import (
    Window,
    batches,
    check_any_window,
    even_windows,
    random_windows,
    too_short,
)
from brainlm.shards.scaler import Scaler, load_scaler, save_scaler
from brainlm.shards.series import Series

from .synthetic_cohort import (
    PARCELS,
    make_shards,
    series_path,
    simulate,
    write_recording,
    write_study,
)

SPLITS = {"train": 4, "val": 2, "test": 2}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = write_study(tmp_path_factory.mktemp("shards") / "study", SPLITS, runs=2)
    holed = simulate(0.0, 60, np.random.default_rng(1))
    holed[:, 3] = np.nan
    write_recording(study, "sub-02_task-rest_run-2", holed)
    make_shards(study)
    return study


@pytest.fixture
def copied(study, tmp_path):
    """A copy of the study that may be spoilt."""
    return type(study)(shutil.copytree(study.root, tmp_path / "study"))


def _expected(study, recording: str) -> np.ndarray:
    """(time, parcels), straight from the definition."""
    raw = pd.read_parquet(series_path(study, recording)).to_numpy(np.float64)
    scaler = load_scaler(study.path("scaler"))
    return (raw - raw.mean(axis=0) - scaler.median) / scaler.iqr


def test_windows_are_what_the_definition_says(study) -> None:
    reader = ShardReader(study.path("shards_index"))
    assert len(reader.table) == 16
    for recording in reader.table["recording_id"]:
        expected = _expected(study, recording)[17:40]
        found = reader.window(recording, 17, 23)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        # float16 keeps 11 bits
        np.testing.assert_allclose(found, expected, rtol=2**-11, atol=1e-7)
    assert reader.series("sub-01_task-rest_run-1").shape == (60, PARCELS)
    with pytest.raises(IndexError):
        reader.window("sub-01_task-rest_run-1", 50, 11)
    with pytest.raises(DataError, match="not in the shards"):
        reader.window("sub-77_task-rest_run-1", 0, 5)


def test_the_index_says_what_is_there(study) -> None:
    index = pd.read_parquet(study.path("shards_index")).set_index("recording_id")
    assert index.loc["sub-02_task-rest_run-2", "n_parcels"] == PARCELS - 1
    assert index.loc["sub-02_task-rest_run-1", "n_parcels"] == PARCELS
    assert {"label_score", "label_group", "mean_fd", "tr", "share_parcels"} <= set(index.columns)
    reader = ShardReader(study.path("shards_index"))
    import hashlib

    stored = reader.series("sub-03_task-rest_run-1").astype(np.float16)
    digest = hashlib.sha256(stored.tobytes()).hexdigest()
    assert index.loc["sub-03_task-rest_run-1", "sha256"] == digest
    assert len(reader.recordings("train")) == 8


def _files(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_equal_input_gives_equal_bytes_and_stale_shards_go(copied) -> None:
    folder = copied.path("shards_index").parent
    before = _files(folder)
    for name in ("train-00007.safetensors", ".kept/train-00007.safetensors"):
        (folder / name).write_bytes(b"old")
    (folder / "parts" / "train-00007.parquet").write_bytes(b"old")
    write_shard(None, copied.root)
    index_shards(copied.root)
    assert _files(folder) == before
    shutil.rmtree(folder)
    write_shard(None, copied.root)
    index_shards(copied.root)
    assert _files(folder) == before


def test_small_targets_make_more_shards_of_the_same_content(copied) -> None:
    before = ShardReader(copied.path("shards_index")).series("sub-04_task-rest_run-2")
    config = copied.path("config")
    few = {"target_mb": 424 * 60 * 4 / 1e6, "dtype": "float32"}  # planned as if of 424 parcels
    config.write_text(
        config.read_text().replace('"model"', f'"shards": {json.dumps(few)}, "model"')
    )
    make_shards(copied)
    reader = ShardReader(copied.path("shards_index"))
    assert reader.table["shard"].nunique() > 6
    assert len(reader.table) == 16
    exact = reader.series("sub-04_task-rest_run-2")
    np.testing.assert_allclose(exact, before, rtol=2**-11, atol=1e-7)
    np.testing.assert_array_equal(
        exact, _expected(copied, "sub-04_task-rest_run-2").astype(np.float32)
    )


def test_values_too_large_for_float16_are_counted() -> None:
    scaler = Scaler(np.zeros(2), np.array([1e-4, 1.0]), np.ones(2, bool))
    series = np.zeros((2, 50), np.float32)
    series[0, :3] = [1000, -1000, 0.01]
    packed = pack(Series(series, np.ones(50, bool)), scaler, "float16")
    assert packed.n_clipped == 2
    assert np.isfinite(packed.values).all()
    assert packed.values.max() == np.finfo(np.float16).max
    assert packed.error_max < 1  # the clipped values are counted, not measured
    assert pack(Series(series, np.ones(50, bool)), scaler, "float32").n_clipped == 0


def test_a_subject_in_two_splits_is_refused(copied) -> None:
    path = copied.path("shards_index")
    index = pd.read_parquet(path)
    index.loc[index["recording_id"] == "sub-01_task-rest_run-2", "split"] = "test"
    index.to_parquet(path)
    with pytest.raises(DataError, match="Leakage"):
        ShardReader(path)


def test_what_does_not_belong_together_is_refused(copied) -> None:
    rng = np.random.default_rng(3)
    write_recording(copied, "sub-01_task-rest_run-1", simulate(0.1, 60, rng))
    shutil.rmtree(copied.path("shards_index").parent)  # else the shard, which is right, is kept
    with pytest.raises(DataError, match="changed since the cohort was selected"):
        write_shard("train-00000", copied.root)
    cohort(copied.root)
    with pytest.raises(DataError, match="fitted on another cohort"):
        write_shard("train-00000", copied.root)
    scale(copied.root)
    write_shard(None, copied.root)
    write_recording(copied, "sub-01_task-rest_run-1", simulate(0.2, 60, rng))
    cohort(copied.root)
    with pytest.raises(DataError, match="fitted on another cohort"):
        index_shards(copied.root)
    scale(copied.root)
    with pytest.raises(DataError, match=r"made of something else .*: its scaler_sha256 differs"):
        index_shards(copied.root)
    write_shard(None, copied.root)
    index_shards(copied.root)
    reader = ShardReader(copied.path("shards_index"))
    assert np.isfinite(reader.series("sub-01_task-rest_run-1")).all()
    other = Scaler(reader.scaler.median, reader.scaler.iqr, reader.scaler.usable, about={})
    save_scaler(copied.path("shards_index").with_name("normalization.safetensors"), other)
    with pytest.raises(DataError, match="another scaler than the one beside it"):
        ShardReader(copied.path("shards_index"))


def test_a_killed_run_leaves_no_index_of_shards_that_are_gone(copied, monkeypatch) -> None:
    """Neither when a shard is replaced, nor while the index is made."""
    write_recording(
        copied, "sub-05_task-rest_run-1", simulate(0.1, 60, np.random.default_rng(3))
    )  # of the val split, so that the scaler stays as it is
    cohort(copied.root)
    scale(copied.root)

    def killed(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    for target, name in ((Path, "replace"), (shutil, "copyfile")):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(target, name, killed)
            write_shard("val-00000", copied.root)
            index_shards(copied.root)
        with pytest.raises(InputError, match="There are no shards here"):
            ShardReader(copied.path("shards_index"))
    write_shard("val-00000", copied.root)
    index_shards(copied.root)
    reader = ShardReader(copied.path("shards_index"))
    expected = _expected(copied, "sub-05_task-rest_run-1")
    found = reader.series("sub-05_task-rest_run-1")
    np.testing.assert_allclose(found, expected, rtol=2**-11, atol=1e-7)


def test_a_shard_cut_short_is_refused(copied) -> None:
    path = copied.path("shards_index").with_name("val-00000.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="cut short") as caught:
        ShardReader(copied.path("shards_index"))
    assert caught.value.file == str(path)
    path.unlink()
    with pytest.raises(DataError, match="does not exist"):
        ShardReader(copied.path("shards_index"))


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=4), st.integers(1, 400), max_size=8),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_windows_lie_within_and_do_not_depend_on_the_others(lengths, seed, epoch) -> None:
    place = {"window": 200, "seed": seed, "epoch": epoch, "per_recording": 3}
    drawn = random_windows(lengths, **place)
    assert all(0 <= w.start <= lengths[w.recording_id] - 200 for w in drawn)
    long_enough = {name for name, length in lengths.items() if length >= 200}
    assert len(drawn) == 3 * len(long_enough)
    assert set(too_short(lengths, 200)) == set(lengths) - long_enough
    for name in long_enough:
        alone = random_windows({name: lengths[name]}, **place)
        assert [w for w in drawn if w.recording_id == name] == alone


def test_epochs_differ_and_starts_are_spread() -> None:
    lengths = {f"r{number}": 300 for number in range(500)}
    one, two = (
        random_windows(lengths, window=200, seed=1, epoch=epoch, per_recording=1)
        for epoch in (0, 1)
    )
    assert [w.recording_id for w in one] != [w.recording_id for w in two]
    starts = np.array([w.start for w in one])
    assert starts.min() < 5
    assert starts.max() > 95
    assert starts.mean() == pytest.approx(50, abs=5)


def test_fixed_windows_are_spread_evenly() -> None:
    assert even_windows({"b": 220, "a": 490, "c": 199}, 200) == [
        Window("a", 0),
        Window("a", 290),
        Window("b", 10),
    ]
    assert [len(batch) for batch in batches(list(range(7)), 3)] == [3, 3, 1]
    with pytest.raises(DataError, match="No recording of the val split"):
        check_any_window({"c": 199}, 200, "val")


def _labels(values: list) -> pd.DataFrame:
    ids = [f"sub-{number}" for number in range(len(values))]
    return pd.DataFrame({"recording_id": ids, "label_x": values})


def test_labels_are_read_and_missing_ones_stay_missing() -> None:
    found = read_label(_labels(["3", None, "n/a", "4.5"]), "x", "regression", None)
    np.testing.assert_array_equal(found, [3, np.nan, np.nan, 4.5])
    found = read_label(_labels(["F", "M", None]), "x", "binary", "F")
    np.testing.assert_array_equal(found, [1, 0, np.nan])
    numbers = pd.array([1.0, 2.0, None], dtype="Float64")
    found = read_label(_labels(numbers), "x", "binary", "1")
    np.testing.assert_array_equal(found, [1, 0, np.nan])
    with pytest.raises(DataError, match=r"no number in 1 recordings, e\.g\. sub-1"):
        read_label(_labels(["3", "old"]), "x", "regression", None)
    with pytest.raises(DataError, match=r"no number in 1 recordings, e\.g\. sub-0"):
        read_label(_labels(["inf", "3"]), "x", "regression", None)
    with pytest.raises(DataError, match="other values than 0 and 1"):
        read_label(_labels([0, 1, 2]), "x", "binary", None)
    with pytest.raises(InputError, match=r"No recording has a label 'age'[^$]*choose of x"):
        read_label(_labels([1]), "age", "regression", None)


def test_the_scale_of_labels_is_a_z_score() -> None:
    values = np.array([1.0, 2.0, 6.0])
    scale_of = LabelScale.fit(values, "regression", "x")
    scaled = scale_of.to_model(values)
    assert scaled.mean() == pytest.approx(0)
    assert scaled.std() == pytest.approx(1)
    np.testing.assert_allclose(scale_of.to_label(scaled), values)
    with pytest.raises(DataError, match="is constant"):
        LabelScale.fit(np.ones(4), "regression", "x")
    with pytest.raises(DataError, match="one class only"):
        LabelScale.fit(np.ones(4), "binary", "x")
