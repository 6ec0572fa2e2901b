"""Streaming volumes and averaging them within parcels."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.atlas.labels import resample_labels
from brainlm.cli._stage import OnDataError
from brainlm.cli.parcellate import parcellate
from brainlm.errors import DataError
from brainlm.images import Image, write_image
from brainlm.layout import Study
from brainlm.parcellate.extract import mean_series
from brainlm.parcellate.stream import open_series
from brainlm.provenance import read_sidecar, write_sidecar
from brainlm.recordings import COLUMNS
from brainlm.stages import params_to_json

SHAPE = (5, 6, 4)


def _flat(data):
    return [data[..., t].ravel(order="F") for t in range(data.shape[3])]


# --- streaming ---------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i2", ">i2", "u1"])
@pytest.mark.parametrize("slope", [None, (2.5, -3.0)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_a_stream_gives_what_nibabel_gives(tmp_path, extension, dtype, slope, kind):
    data = np.random.default_rng(1).integers(0, 100, (*SHAPE, 7)).astype(dtype)
    header = kind.header_class(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header.set_sform(np.diag([2.0, 3, 4, 1]), 1)
    header.set_data_offset(560)  # leaves room for an extension, as some writers do
    if slope:
        header.set_slope_inter(*slope)
    raw = header.binaryblock.ljust(560, b"\0") + data.tobytes(order="F")
    path = tmp_path / f"series{extension}"
    path.write_bytes(gzip.compress(raw) if extension == ".nii.gz" else raw)
    series = open_series(path)
    loaded = nib.load(path)
    assert series.shape == SHAPE
    assert series.n_volumes == 7
    assert (series.affine == loaded.affine).all()
    assert (series.slope is None) == (slope is None)
    expected = loaded.get_fdata()
    np.testing.assert_allclose(expected, data * (slope or (1, 0))[0] + (slope or (1, 0))[1])
    volumes = [volume.astype(float) for volume in series]
    assert len(volumes) == 7
    for volume, true in zip(volumes, _flat(expected), strict=True):
        np.testing.assert_allclose(volume, true, rtol=1e-6)


@pytest.mark.parametrize("damage", ["cut", "flip", "short", "3d", "text"])
def test_a_broken_series_is_a_data_error(tmp_path, damage):
    path = tmp_path / "series.nii.gz"
    rng = np.random.default_rng(1)
    data = rng.normal(size=(10, 10, 10, 20)).astype(np.float32)
    write_image(path, data[..., 0] if damage == "3d" else data, np.eye(4))
    raw = path.read_bytes()
    if damage == "cut":
        path.write_bytes(raw[: len(raw) // 2])
    elif damage == "flip":
        path.write_bytes(raw[:-6] + bytes([raw[-6] ^ 1]) + raw[-5:])
    elif damage == "short":
        path.write_bytes(gzip.compress(gzip.decompress(raw)[:-100]))
    elif damage == "text":
        path.write_text("not an image")
    with pytest.raises(DataError) as caught:
        list(open_series(path))
    assert str(path) in str(caught.value)


def test_the_series_never_fills_the_memory(tmp_path):
    path = tmp_path / "series.nii.gz"
    data = np.ones((40, 40, 40, 60), np.float32)  # 15 MB
    write_image(path, data, np.eye(4))
    del data
    labels = np.ones((40, 40, 40), np.int16)
    tracemalloc.start()
    with pytest.raises(DataError, match="No parcel"):  # constant everywhere
        mean_series(open_series(path), labels, labels, np.array([1]), 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6


# --- averaging ---------------------------------------------------------------------------


def _reference(data, labels, mask, parcels, min_coverage):
    """The plain definition, in float64."""
    series, coverage = [], []
    for parcel in parcels:
        here = data[labels == parcel].astype(np.float64)
        usable = (mask[labels == parcel] > 0) & (here.std(axis=1) > 0)
        share = usable.mean() if len(usable) else 0.0
        good = usable.any() and share >= min_coverage
        series.append(here[usable].mean(axis=0) if good else np.full(data.shape[3], np.nan))
        coverage.append(share)
    return np.array(series).T, np.array(coverage)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_volumes=st.integers(2, 9),
    min_coverage=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    offset=st.sampled_from([0.0, 1e4, -300.0]),
)
def test_means_are_those_of_the_definition(seed, n_volumes, min_coverage, offset):
    rng = np.random.default_rng(seed)
    data = (offset + rng.normal(size=(*SHAPE, n_volumes))).astype(np.float32)
    labels = rng.choice([0, 3, 5, 6, 9], SHAPE).astype(np.int16)
    mask = rng.random(SHAPE) < 0.7
    data[rng.random(SHAPE) < 0.3] = rng.normal()  # constant voxels, inside the mask too
    parcels = np.array([9, 3, 5, 6, 12])  # any order; 12 has no voxel, 7 is no parcel
    expected, coverage = _reference(data, labels, mask, parcels, min_coverage)
    if np.isnan(expected).all():
        with pytest.raises(DataError):
            mean_series(_flat(data), labels, mask, parcels, min_coverage)
        return
    result = mean_series(_flat(data), labels, mask, parcels, min_coverage)
    assert result.series.dtype == np.float32
    np.testing.assert_allclose(result.coverage, coverage)
    np.testing.assert_allclose(result.series, expected, rtol=1.2e-7, atol=1e-12)


def test_a_parcel_with_just_the_coverage_wanted_is_kept():
    data = np.random.default_rng(0).normal(size=(100, 1, 1, 4))
    mask = (np.arange(100) < 55).reshape(100, 1, 1)
    result = mean_series(_flat(data), np.ones((100, 1, 1), int), mask, np.array([1]), 0.55)
    assert result.coverage.tolist() == [0.55]
    assert np.isfinite(result.series).all()


def test_a_large_offset_costs_no_digits():
    """Constant voxels of 1e8 beside a signal of 1: summing them first would lose it."""
    signal = np.sin(np.arange(50))
    data = np.full((10, 10, 10, 50), 1e8)
    data[0, 0, 0] = signal
    labels, mask = np.ones((10, 10, 10), np.int16), np.ones((10, 10, 10))
    result = mean_series(_flat(data), labels, mask, np.array([1]), 0.0)
    np.testing.assert_allclose(result.series[:, 0], signal, rtol=1e-6, atol=1e-7)
    assert result.n_usable.tolist() == [1]


@pytest.mark.parametrize(
    ("labels", "mask", "fault"),
    [
        (1, 0, "mask holds no voxel"),
        (0, 1, "do not overlap"),
        (7, 1, "do not overlap"),
    ],
)
def test_nothing_to_average_is_a_data_error(labels, mask, fault):
    data = np.random.default_rng(0).normal(size=(*SHAPE, 4))
    with pytest.raises(DataError, match=fault):
        mean_series(
            _flat(data), np.full(SHAPE, labels), np.full(SHAPE, mask), np.array([1, 2]), 0.5
        )


def test_nan_in_the_data_is_a_data_error():
    data = np.random.default_rng(0).normal(size=(*SHAPE, 4))
    data[2, 2, 2, 3] = np.nan
    with pytest.raises(DataError, match="Volume 3"):
        mean_series(_flat(data), np.ones(SHAPE, int), np.ones(SHAPE), np.array([1]), 0.5)


# --- the stage ---------------------------------------------------------------------------

ID = "sub-01_task-rest"
ENTITIES = {"sub": "01", "task": "rest"}
FIELDS = {
    "recording": ID,
    "folder": "sub-01",
    "space": "MNI152NLin2009aSym",
    "res": "4",
    "atlas": "tiny",
    "estimator": "mean",
}


def _params(zoom: float = 4.0, estimator: str = "mean") -> str:
    return params_to_json(
        {
            "parcellate": {"estimator": estimator, "min_coverage": 0.5},
            "atlas": {"name": "tiny", "space_ok": False},
            "space": {"template": "MNI152NLin2009aSym", "resolution_mm": zoom},
        }
    )


PARAMS = _params()


def write_image_of(study: Study, kind: str, data, affine, entities=ENTITIES, **fields) -> None:
    """An image of the recording with its sidecar; `data` may be a file, which is linked."""
    path = study.path(kind, **{**FIELDS, **fields})
    if isinstance(data, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(data)
    else:
        write_image(path, data, affine)
    write_sidecar(
        path, stage="x", code_digest="", entities=entities, sources={}, parameters={}, software={}
    )


def write_small_study(study: Study, *, n_labels: int, **params) -> str:
    """Table of the atlas, table of recordings and config; returns the stage's parameters."""
    study.path("atlas_table", **FIELDS).parent.mkdir(exist_ok=True)
    study.path("atlas_table", **FIELDS).write_text(
        "index\tname\tx\ty\tz\n"
        + "".join(f"{i}\tp{i}\t0\t0\t{i}\n" for i in range(1, n_labels + 1))
    )
    row = dict.fromkeys(COLUMNS) | {
        "recording_id": ID,
        "subject": "01",
        "bold": f"sub-01/func/{ID}_bold.nii.gz",
        "n_volumes": 12,
        "tr": 2.0,
        "eligible": True,
    }
    study.path("recordings").parent.mkdir()
    pd.DataFrame([row]).astype(COLUMNS).to_parquet(study.path("recordings"))
    study.path("config").parent.mkdir()
    study.path("config").write_text("bids_dir: .\n")
    return _params(**params)


@pytest.fixture
def study(tmp_path):
    study = Study(tmp_path)
    rng = np.random.default_rng(5)
    affine = np.diag([4.0, 4, 4, 1])
    data = rng.normal(100, 3, (8, 8, 8, 12)).astype(np.float32)
    labels = np.repeat(np.arange(1, 5), 2)[:, None, None] * np.ones((8, 8, 8), int)
    mask = np.ones((8, 8, 8), np.uint8)
    mask[6:] = 0  # the fourth parcel is not covered
    write_image_of(study, "denoised_bold", data, affine)
    write_image_of(study, "mni_mask", mask, affine)
    write_image_of(study, "atlas_image", labels.astype(np.int16), affine, {})
    write_small_study(study, n_labels=4)
    return study, data, labels, affine


def test_the_stage_writes_series_and_coverage(study):
    study, data, labels, _ = study
    parcellate(ID, study.root, PARAMS)
    path = study.path("timeseries", **FIELDS)
    table = pd.read_parquet(path)
    assert list(table.columns) == ["p1", "p2", "p3", "p4"]
    assert (table.dtypes == np.float32).all()
    assert table["p4"].isna().all()
    for parcel in (1, 2, 3):
        expected = data[labels == parcel].mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(table[f"p{parcel}"], expected, rtol=1e-7)
    coverage = pd.read_csv(study.path("coverage", **FIELDS), sep="\t")
    assert coverage["n_voxels"].tolist() == [128] * 4
    assert coverage["coverage"].tolist() == [1, 1, 1, 0]
    sidecar = read_sidecar(path)
    assert sidecar["SamplingFrequency"] == 0.5
    assert sidecar["AtlasMovedToDataGrid"] is False
    assert len(sidecar["Sources"]) == 4
    before = path.read_bytes()
    parcellate(ID, study.root, PARAMS)
    assert path.read_bytes() == before


def test_a_different_grid_moves_the_labels_and_says_so(study):
    study, data, labels, affine = study
    flipped = affine.copy()
    flipped[0, 0], flipped[0, 3] = -4, 28
    write_image_of(study, "denoised_bold", data[::-1], flipped)
    write_image_of(study, "mni_mask", np.ones((8, 8, 8), np.uint8), flipped)
    parcellate(ID, study.root, PARAMS)
    path = study.path("timeseries", **FIELDS)
    assert read_sidecar(path)["AtlasMovedToDataGrid"] is True
    expected = data[labels == 1].mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(pd.read_parquet(path)["p1"], expected, rtol=1e-7)
    moved = resample_labels(Image(labels.astype(np.int16), affine), flipped, (8, 8, 8))
    assert (moved == labels[::-1]).all()


def test_a_mask_on_another_grid_is_refused(study):
    study, _, _, affine = study
    write_image_of(study, "mni_mask", np.ones((8, 8, 7), np.uint8), affine)
    with pytest.raises(DataError, match="different grids"):
        parcellate(ID, study.root, PARAMS)


def test_an_empty_mask_is_recorded_and_the_cohort_goes_on(study):
    study, _, _, affine = study
    write_image_of(study, "mni_mask", np.zeros((8, 8, 8), np.uint8), affine)
    parcellate(ID, study.root, PARAMS, OnDataError.record)
    assert study.path("timeseries", **FIELDS).stat().st_size == 0
    assert study.path("coverage", **FIELDS).stat().st_size == 0
    assert "mask holds no voxel" in study.path("failure", recording=ID).read_text()


def test_another_subjects_series_is_refused(study):
    study, data, _, affine = study
    write_image_of(study, "denoised_bold", data, affine, {"sub": "02", "task": "rest"})
    with pytest.raises(DataError, match="not of"):
        parcellate(ID, study.root, PARAMS)
