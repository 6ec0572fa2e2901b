"""Median, eigenvariate and weighted mean of parcels against series that are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from brainlm.errors import DataError
from brainlm.images import load_template
from brainlm.parcellate.estimators import eigenvariate
from brainlm.parcellate.extract import parcel_series
from brainlm.parcellate.stream import open_series

SHAPE = (6, 5, 4)
TIMES = np.arange(40)


def _flat(data):
    return [data[..., t].ravel(order="F") for t in range(data.shape[3])]


@pytest.fixture
def scene():
    """Three parcels in no order of place, constant voxels and a mask."""
    rng = np.random.default_rng(3)
    data = (1000 + rng.normal(size=(*SHAPE, len(TIMES)))).astype(np.float32)
    labels = rng.choice([0, 2, 5, 7], SHAPE).astype(np.int16)
    mask = rng.random(SHAPE) < 0.8
    data[rng.random(SHAPE) < 0.2] = 7.0
    return data, labels, mask


def test_the_median_is_that_of_the_usable_voxels(scene):
    data, labels, mask = scene
    result = parcel_series(
        _flat(data), labels, mask, np.array([7, 2, 5, 9]), 0.3, estimator="median"
    )
    for column, parcel in enumerate((7, 2, 5)):
        here = data[(labels == parcel) & mask].astype(float)
        here = here[here.std(axis=1) > 0]
        assert result.n_usable[column] == len(here)
        np.testing.assert_allclose(result.series[:, column], np.median(here, axis=0), rtol=1.2e-7)
    assert np.isnan(result.series[:, 3]).all()


def test_weights_of_one_give_the_mean_and_others_the_weighted_mean(scene):
    data, labels, mask = scene
    given = (_flat(data), labels, mask, np.array([2, 5, 7]), 0.3)
    mean = parcel_series(*given)
    ones = parcel_series(*given, estimator="weighted", weights=np.full(SHAPE, 1.0))
    np.testing.assert_array_equal(ones.series, mean.series)
    weights = np.random.default_rng(0).random(SHAPE)
    weights[labels == 5] = 0  # a parcel of no grey matter has no weighted mean
    result = parcel_series(*given, estimator="weighted", weights=weights)
    here = (labels == 2) & mask & (data.std(axis=3) > 0)
    expected = np.average(data[here].astype(float), axis=0, weights=weights[here])
    np.testing.assert_allclose(result.series[:, 0], expected, rtol=1.2e-7)
    assert np.isnan(result.series[:, 1]).all()
    np.testing.assert_array_equal(result.n_usable, mean.n_usable)


@pytest.mark.parametrize("n_voxels", [3, 25, 300])  # fewer voxels than volumes, and more
def test_the_eigenvariate_is_the_first_singular_vector_and_finds_a_hidden_signal(n_voxels):
    rng = np.random.default_rng(n_voxels)
    signal = np.sin(TIMES / 3)
    loadings = rng.uniform(0.5, 2, n_voxels)
    loadings[0] *= -1
    noise = rng.normal(0, 0.05, (len(TIMES), n_voxels))
    values = 500 + np.outer(signal, loadings) + noise
    found = eigenvariate(values)
    centred = values - values.mean(axis=0)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    expected = u[:, 0] * s[0] / np.sqrt(n_voxels) * np.sign(vt[0].sum())
    np.testing.assert_allclose(found - values.mean(), expected, atol=1e-9)
    assert np.corrcoef(found, signal)[0, 1] > 0.99  # not turned upside down


def test_the_eigenvariate_of_equal_voxels_is_their_series():
    values = np.tile(np.sin(TIMES)[:, None] + 30, 6)
    np.testing.assert_allclose(eigenvariate(values), values[:, 0], rtol=1e-12)


@pytest.mark.parametrize("estimator", ["mean", "median", "eigenvariate"])
def test_one_voxel_gives_its_own_series(scene, estimator):
    data, _, _ = scene
    labels = np.zeros(SHAPE, np.int16)
    voxel = tuple(np.argwhere(data.std(axis=3) > 0)[0])
    labels[voxel] = 1
    result = parcel_series(
        _flat(data), labels, np.ones(SHAPE), np.array([1]), 0.5, estimator=estimator
    )
    np.testing.assert_allclose(result.series[:, 0], data[voxel], rtol=1.2e-7)


@pytest.mark.parametrize("estimator", ["mean", "median", "eigenvariate"])
def test_nan_is_refused_by_every_estimator(scene, estimator):
    data, labels, mask = scene
    data[(*np.argwhere((labels > 0) & mask)[0], 4)] = np.nan
    with pytest.raises(DataError, match="Volume 4"):
        parcel_series(_flat(data), labels, mask, np.array([2, 5, 7]), 0.3, estimator=estimator)


@pytest.mark.parametrize("slope", [None, (0.5, 20.0)])
def test_scaled_integers_give_what_their_values_give(tmp_path, slope):
    import nibabel as nib

    rng = np.random.default_rng(4)
    stored = rng.integers(-3000, 3000, (*SHAPE, 12)).astype(np.int16)
    image = nib.Nifti1Image(stored, np.eye(4))
    if slope:
        image.header.set_slope_inter(*slope)
    nib.save(image, tmp_path / "bold.nii.gz")
    values = stored * (slope or (1, 0))[0] + (slope or (1, 0))[1]
    labels = rng.choice([0, 1], SHAPE)
    result = parcel_series(
        open_series(tmp_path / "bold.nii.gz"), labels, np.ones(SHAPE), np.array([1]), 0.5
    )
    expected = values[labels == 1].mean(axis=0)
    np.testing.assert_allclose(result.series[:, 0], expected, rtol=1.2e-7, atol=1e-4)


def test_the_stage_weighs_by_grey_matter_and_names_its_files_after_the_estimator(tmp_path):
    from brainlm.cli.parcellate import parcellate
    from brainlm.layout import Study

    from .test_parcellate import FIELDS, ID, write_image_of, write_small_study

    share = load_template("MNI152NLin2009aSym", "GM", 8.0)
    study, params = Study(tmp_path), {"res": "8"}
    shape = share.data.shape
    data = np.random.default_rng(0).normal(100, 3, (*shape, 6)).astype(np.float32)
    labels = np.where(np.indices(shape)[0] < shape[0] // 2, 1, 2).astype(np.int16)
    text = write_small_study(study, n_labels=2, zoom=8.0, estimator="weighted")
    for kind, content in (
        ("denoised_bold", data),
        ("mni_mask", np.ones(shape, np.uint8)),
        ("atlas_image", labels),
    ):
        entities = {} if kind == "atlas_image" else {"sub": "01", "task": "rest"}
        write_image_of(study, kind, content, share.affine, entities, **params)
    parcellate(ID, study.root, text, tsv=True)
    fields = {**FIELDS, **params, "estimator": "weighted"}
    path = study.path("timeseries", **fields)
    assert "_stat-weighted_timeseries" in path.name
    table = pd.read_parquet(path)
    for parcel in (1, 2):
        here = labels == parcel
        expected = np.average(data[here].astype(float), axis=0, weights=share.data[here])
        np.testing.assert_allclose(table[f"p{parcel}"], expected, rtol=1e-6)
    tsv = pd.read_csv(study.path("timeseries_tsv", **fields), sep="\t")
    np.testing.assert_allclose(tsv, table, rtol=1e-6)
    coverage = pd.read_csv(study.path("coverage_tsv", **fields), sep="\t")
    assert list(coverage.columns) == ["Node", "coverage"] and coverage["Node"].tolist() == [
        "p1",
        "p2",
    ]
