"""Each way of scaling is what its name says, and the commands see the train split alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainlm.cli import _scaling
from brainlm.cli import scale as scale_command
from brainlm.cli.cohort import cohort
from brainlm.cli.scale import scale
from brainlm.cli.scale_brackets import scale_brackets
from brainlm.cli.scale_part import scale_part
from brainlm.config import Scale
from brainlm.errors import DataError, InputError
from brainlm.layout import Study
from brainlm.provenance import sha256_file
from brainlm.shards import brackets as brackets_module
from brainlm.shards.parts import make_part
from brainlm.shards.scaler import (
    METHODS,
    Scaler,
    load_scaler,
    make_scaler,
    remove_mean,
    save_scaler,
)
from brainlm.shards.series import check_series
from brainlm.shards.tensorfile import load_tensors, save_tensors

from .synthetic_cohort import FIELDS, series_path, simulate, write_recording, write_study

SPLITS = {"train": 6, "val": 1, "test": 2}
CONSTANTS = {"global_sd": 3.0, "global_p99": 7.0, "minimum": -50.0, "maximum": 2000.0}


@pytest.fixture
def series() -> np.ndarray:
    """Five parcels, (parcels, time); one is missing, one is flat in this recording."""
    rng = np.random.default_rng(5)
    values = (900 + 10 * rng.standard_normal((5, 60))).astype(np.float32)
    values[1], values[2] = np.nan, 5.0
    values[4, 7] = 1500  # of a volume that does not count
    return values


@pytest.fixture
def counted() -> np.ndarray:
    found = np.ones(60, bool)
    found[[7, 8, 30]] = False
    return found


def _scaler(method: str = "robust") -> Scaler:
    usable = np.array([True, True, True, False, True])
    return Scaler(np.arange(5.0), 2 + np.arange(5.0), usable, method, CONSTANTS)


def _by_definition(method: str, values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """One parcel after the other, as docs/scaling.md puts it; usable parcels with data."""
    raw = values.astype(np.float64)
    all_seen = raw[~np.isnan(raw[:, 0])][:, counted]
    rows = []
    for parcel, x in enumerate(raw):
        seen = x[counted]
        z = {
            "robust": lambda x=x, s=seen, p=parcel: (x - s.mean() - p) / (2.0 + p),
            "recording-zscore": lambda x=x, s=seen: (x - s.mean()) / s.std(),
            "global-sd": lambda x=x, s=seen: (x - s.mean()) / 3.0,
            "global-p99": lambda x=x, s=seen: (x - s.mean()) / 7.0,
            "recording-minmax": lambda x=x: (
                (x - all_seen.min()) / (all_seen.max() - all_seen.min())
            ),
            "parcel-minmax": lambda x=x, s=seen: (x - s.min()) / (s.max() - s.min()),
            "global-minmax": lambda x=x: (x + 50.0) / 2050.0,
        }
        with np.errstate(invalid="ignore"):
            rows.append(z[method]())
    return np.array(rows)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_is_its_definition(
    method: str, series: np.ndarray, counted: np.ndarray
) -> None:
    scaled = _scaler(method).transform(series, counted)
    expected = _by_definition(method, series, counted)
    assert np.isnan(scaled[[1, 3]]).all()  # no data; not usable
    np.testing.assert_allclose(scaled[[0, 4]], expected[[0, 4]], rtol=1e-12, atol=1e-12)
    if method in ("recording-zscore", "parcel-minmax"):  # nothing to divide a flat series by
        assert np.isnan(scaled[2]).all()
    else:
        np.testing.assert_allclose(scaled[2], expected[2], rtol=1e-12, atol=1e-12)
    everything = _scaler(method).transform(series)
    assert (everything[4] != scaled[4]).any() == (method != "global-minmax")
    assert np.isnan(_scaler(method).transform(series, np.zeros(60, bool))).all()


def test_what_can_be_brought_back_is(series: np.ndarray, counted: np.ndarray) -> None:
    for method in METHODS:
        scaler = _scaler(method)
        scaled = scaler.transform(series, counted)[[0, 2, 4]]
        wide = np.full((5, 60), np.nan)
        wide[[0, 2, 4]] = scaled
        if method in ("recording-zscore", "recording-minmax", "parcel-minmax"):
            with pytest.raises(InputError, match="cannot be brought back"):
                scaler.inverse(wide)
            continue
        expected = series if method == "global-minmax" else remove_mean(series, counted)
        back = scaler.inverse(wide)[[0, 2, 4]]
        np.testing.assert_allclose(back, expected[[0, 2, 4]], rtol=1e-9, atol=1e-9)


def test_flat_and_empty_parcels_are_flagged_and_stay_missing(series: np.ndarray) -> None:
    scaler = make_scaler(np.array([1, np.nan, 3, 4, 5]), np.array([1.0, np.nan, 0, 1, 1]), {})
    assert list(np.flatnonzero(~scaler.usable)) == [1, 2]
    scaled = scaler.transform(series)
    assert np.isnan(scaled[[1, 2]]).all()
    assert np.isfinite(scaled[[0, 3, 4]]).all()
    with pytest.raises(DataError, match="No parcel varies"):
        make_scaler(np.ones(2), np.zeros(2), {})


def test_series_that_lie_are_refused(series: np.ndarray) -> None:
    check_series(series, "x")
    holed = series.copy()
    holed[3, 3] = np.nan
    with pytest.raises(DataError, match=r"1 parcels.*column 3"):
        check_series(holed, "x")
    holed[3, 3] = np.inf
    with pytest.raises(DataError, match="infinite"):
        check_series(holed, "x")
    scaler = Scaler(np.zeros(3), np.ones(3), np.ones(3, bool))
    with pytest.raises(DataError, match="5 parcels, the scaler 3"):
        scaler.transform(series)


def test_the_file_keeps_every_digit_and_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    about = dict.fromkeys("abcdefgh", "x")
    scaler = replace(_scaler("global-p99"), about=about, median=np.random.default_rng(0).random(5))
    save_scaler(tmp_path / "a.safetensors", scaler)
    save_scaler(tmp_path / "b.safetensors", scaler)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    again = load_scaler(tmp_path / "a.safetensors")
    for name in ("median", "iqr", "usable"):
        np.testing.assert_array_equal(getattr(again, name), getattr(scaler, name))
    assert (again.method, again.constants) == ("global-p99", CONSTANTS)
    assert again.about == about and again.mean_removed


@pytest.mark.parametrize("change", [{"schema_version": 3}, {"method": "rank"}])
def test_a_scaler_of_another_version_is_refused(tmp_path: Path, change: dict) -> None:
    path = tmp_path / "a.safetensors"
    save_scaler(path, _scaler())
    tensors, about = load_tensors(path)
    save_tensors(path, tensors, {**about, **change})
    with pytest.raises(DataError, match="this program reads schema 2 and robust"):
        load_scaler(path)
    save_tensors(path, {"median": tensors["median"]}, about)
    with pytest.raises(DataError, match="no scaler: it holds median"):
        load_scaler(path)


def _study(tmp_path: Path, **options: dict) -> Study:
    """A study of about four train shards, its cohort selected."""
    study = write_study(
        tmp_path / "study", SPLITS, runs=2, options={"shards": {"target_mb": 0.15}, **options}
    )
    holed = simulate(0.0, 60, np.random.default_rng(1))
    holed[:, 3] = np.nan
    write_recording(study, "sub-02_task-rest_run-2", holed)
    cohort(study.root)
    return study


def _train_shards(study: Study) -> list[str]:
    folder = study.path("shard_plan", shard="any").parent
    return sorted(path.stem for path in folder.glob("train-*.parquet"))


def _expected(study: Study) -> tuple[np.ndarray, np.ndarray]:
    """Median and IQR of all train recordings, parcel by parcel."""
    table = pd.read_parquet(study.path("cohort"))
    pooled: list[list[np.ndarray]] = [[] for _ in range(8)]
    for name in table.loc[table["split"] == "train", "timeseries"]:
        series = pd.read_parquet(study.root / name).to_numpy(np.float64).T.copy()
        for parcel, values in enumerate(series):
            if not np.isnan(values[0]):
                pooled[parcel].append(values - values.mean())
    quartiles = [np.percentile(np.concatenate(found), [25, 50, 75]) for found in pooled]
    low, median, high = np.transpose(quartiles)
    return median, high - low


def test_by_hand_in_parts_and_in_threads_the_bytes_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = _study(tmp_path)
    shards = _train_shards(study)
    assert len(shards) > 2
    scale(study.root)
    path, sidecar = study.path("scaler"), study.path("scaler").with_suffix(".json")
    by_hand = path.read_bytes(), sidecar.read_bytes()
    scaler = load_scaler(path)
    median, iqr = _expected(study)
    np.testing.assert_array_equal(scaler.median, median)
    np.testing.assert_array_equal(scaler.iqr, iqr)
    assert (scaler.about["n_subjects"], scaler.about["n_recordings"]) == (6, 12)
    assert (scaler.about["tr"], set(scaler.about["plans"])) == (2.0, set(shards))

    scale_brackets(study.root, threads=2)
    for shard in shards:
        scale_part(shard, study.root, threads=2)
    read: list[int] = []
    monkeypatch.setattr(
        scale_command,
        "measure_in_scratch",
        lambda train, rows, brackets: (
            read.append(len(rows)) or _scaling.measure_in_scratch(train, rows, brackets, 3)
        ),
    )
    scale(study.root)
    assert (path.read_bytes(), sidecar.read_bytes()) == by_hand
    assert read == [0]  # all was there

    study.path("scaler_part", shard=shards[1]).unlink()  # Snakemake drops parts; a job was killed
    scale(study.root, threads=2)
    assert (path.read_bytes(), sidecar.read_bytes()) == by_hand
    assert 0 < read[1] < 12


def test_recordings_that_keep_much_are_put_together_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where levels differ between recordings, most values are near a quartile's interval."""
    study = _study(tmp_path)
    scale_brackets(study.root)
    shard = _train_shards(study)[0]
    scale_part(shard, study.root)
    expected = study.path("scaler_part", shard=shard).read_bytes()
    sizes = []

    def noting(recordings, parcels):
        sizes.append(len(recordings))
        return make_part(recordings, parcels)

    monkeypatch.setattr(_scaling, "_CHUNK_BYTES", 1)
    monkeypatch.setattr("brainlm.shards.parts.make_part", noting)
    scale_part(shard, study.root)
    assert set(sizes) == {1}
    assert len(sizes) > 1
    assert study.path("scaler_part", shard=shard).read_bytes() == expected


def test_brackets_that_miss_are_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = _study(tmp_path)
    monkeypatch.setattr(brackets_module, "choose_sample", lambda ids: set(sorted(ids)[:2]))
    monkeypatch.setattr(brackets_module, "_STANDARD_ERRORS", 0.0)
    monkeypatch.setattr(brackets_module, "_SPARE", 0)
    read: list[int] = []
    monkeypatch.setattr(
        scale_command,
        "measure_in_scratch",
        lambda train, rows, brackets: (
            read.append(len(rows)) or _scaling.measure_in_scratch(train, rows, brackets)
        ),
    )
    scale(study.root)
    assert read == [12, 12]
    by_hand = study.path("scaler").read_bytes()
    scale_brackets(study.root)
    for shard in _train_shards(study):
        scale_part(shard, study.root)
    scale(study.root)
    assert read[2:] == [0, 12]  # what the parts lack is read anew
    assert study.path("scaler").read_bytes() == by_hand
    scaler = load_scaler(study.path("scaler"))
    median, iqr = _expected(study)
    np.testing.assert_array_equal(scaler.median, median)
    np.testing.assert_array_equal(scaler.iqr, iqr)


def test_the_command_sees_the_train_split_alone(tmp_path: Path) -> None:
    study = _study(tmp_path)
    scale(study.root)
    before = study.path("scaler").read_bytes()
    table = pd.read_parquet(study.path("cohort"))
    rng = np.random.default_rng(1)
    for recording in table.loc[table["split"] != "train", "recording_id"]:
        write_recording(study, recording, 50 * simulate(0, 60, rng))
    cohort(study.root)
    scale(study.root)
    assert study.path("scaler").read_bytes() == before


def test_parts_of_another_cohort_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = _study(tmp_path)
    # Brackets that do not change when sub-01 does: then the plans alone tell.
    monkeypatch.setattr(
        brackets_module, "choose_sample", lambda ids: {name for name in ids if "sub-01" not in name}
    )
    shards = _train_shards(study)
    scale_brackets(study.root)
    for shard in shards:
        scale_part(shard, study.root)
    changed = "sub-01_task-rest_run-1"
    write_recording(study, changed, 3 * simulate(0.5, 60, np.random.default_rng(2)))
    cohort(study.root)
    scale(study.root)
    median, iqr = _expected(study)
    scaler = load_scaler(study.path("scaler"))
    np.testing.assert_array_equal(scaler.median, median)
    np.testing.assert_array_equal(scaler.iqr, iqr)
    plans = {s: pd.read_parquet(study.path("shard_plan", shard=s)) for s in shards}
    stale = [s for s, plan in plans.items() if changed in set(plan["recording_id"])]
    with pytest.raises(DataError, match="another cohort"):
        scale_part(stale[0], study.root)


def test_other_splits_have_no_part_in_scaling(tmp_path: Path) -> None:
    study = _study(tmp_path)
    scale_brackets(study.root)
    with pytest.raises(InputError, match="val-00000 is no shard of the train split"):
        scale_part("val-00000", study.root)


def test_no_train_recording_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    study = _study(tmp_path)
    for shard in _train_shards(study):
        study.path("shard_plan", shard=shard).unlink()
    with pytest.raises(DataError, match="No recording is in the train split") as caught:
        scale(study.root)
    assert "scale.fitted" in caught.value.fix


def test_a_fitted_scaler_is_checked_and_copied(tmp_path: Path) -> None:
    home = _study(tmp_path / "home", scale={"method": "global-sd"})
    scale(home.root)
    fitted = load_scaler(home.path("scaler"))
    assert fitted.method == "global-sd"
    (tmp_path / "abroad").mkdir()
    options = {"method": "global-sd", "fitted": str(home.path("scaler"))}
    study = _study(tmp_path / "abroad", scale=options)
    for plan in _train_shards(study):  # an external cohort has none
        study.path("shard_plan", shard=plan).unlink()
    scale(study.root)
    assert study.path("scaler").read_bytes() == home.path("scaler").read_bytes()
    about = json.loads(study.path("scaler").with_suffix(".json").read_text())
    assert about["fitted_elsewhere"] is True
    assert about["fitted_sha256"] == sha256_file(home.path("scaler"))
    assert about["n_recordings"] == 12

    def refused(match: str, **sections: dict) -> None:
        config = json.loads(study.path("config").read_text())
        for section, changes in sections.items():
            config[section] = {**config.get(section, {}), **changes}
        before = study.path("config").read_text()
        study.path("config").write_text(json.dumps(config))
        with pytest.raises(InputError, match=match):
            scale(study.root)
        study.path("config").write_text(before)

    refused("does not exist", scale={"fitted": "nowhere.safetensors"})
    refused("does not exist", scale={"fitted": "cohort"})
    refused("scale.method is robust", scale={"method": "robust"})
    refused("at a TR of 2 s", timing={"tr": 0.72})
    atlas = study.path("atlas_table", **FIELDS)
    atlas.write_text(atlas.read_text().replace("P1", "Q1"))
    refused("another atlas")


def test_a_series_that_changed_since_is_refused(tmp_path: Path) -> None:
    study = _study(tmp_path)
    path = series_path(study, "sub-02_task-rest_run-1")
    path.write_bytes(path.read_bytes()[:-100])
    for command in (scale_brackets, scale):
        with pytest.raises(DataError, match="changed since the cohort was selected") as caught:
            command(study.root)
        assert caught.value.file == str(path)


def test_means_stay_where_the_config_says_so(tmp_path: Path) -> None:
    study = _study(tmp_path)
    config = json.loads(study.path("config").read_text())
    config["scale"] = {"remove_mean": False}
    study.path("config").write_text(json.dumps(config))
    scale(study.root)
    alone = study.path("scaler").read_bytes()
    scale_brackets(study.root)
    for shard in _train_shards(study):
        scale_part(shard, study.root)
    scale(study.root)
    assert study.path("scaler").read_bytes() == alone
    table = pd.read_parquet(study.path("cohort"))
    names = table.loc[table["split"] == "train", "timeseries"]
    together = np.concatenate([pd.read_parquet(study.root / name) for name in names])
    low, median, high = np.nanpercentile(together.astype(np.float64), [25, 50, 75], axis=0)
    scaler = load_scaler(study.path("scaler"))
    assert not scaler.mean_removed
    np.testing.assert_array_equal(scaler.median, median)
    np.testing.assert_array_equal(scaler.iqr, high - low)
    raw = together[:60].T
    expected = (raw - median[:, None]) / (high - low)[:, None]
    np.testing.assert_allclose(scaler.transform(raw), expected, rtol=1e-9)
    np.testing.assert_allclose(scaler.inverse(scaler.transform(raw)), raw, rtol=1e-9)
    config["scale"] = {"fitted": "cohort/scaler.safetensors"}
    study.path("config").write_text(json.dumps(config))
    with pytest.raises(InputError, match="without removing each recording's mean"):
        scale(study.root)
    with pytest.raises(ValueError, match="removes the mean"):
        Scale(method="global-sd", remove_mean=False)
