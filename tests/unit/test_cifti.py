"""CIFTI series and atlases, and `brainlm parcellate-file` for these and for NIfTI."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel.cifti2 import BrainModelAxis, Cifti2Header, Cifti2Image, LabelAxis, SeriesAxis

from brainlm.atlas import load_table
from brainlm.atlas.fetch import get_atlas
from brainlm.atlas.registry import find_dense
from brainlm.cli.parcellate_file import parcellate_file
from brainlm.errors import BrainLMError, DataError, InputError
from brainlm.images import write_image
from brainlm.parcellate import cifti
from brainlm.parcellate.cifti import check_models, dense_parcels, open_dtseries, read_dlabel

COUNT = 30


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BRAINLM_REGISTRY", raising=False)


def _models(vertices=range(20), voxels=15, structure="CORTEX_LEFT") -> BrainModelAxis:
    places = np.argwhere(np.ones((5, 5, 5)))[:voxels]
    below = BrainModelAxis("THALAMUS_LEFT", voxel=places, affine=np.eye(4), volume_shape=(5, 5, 5))
    return BrainModelAxis.from_surface(list(vertices), 40, name=structure) + below


def _series(path, data, models):
    header = Cifti2Header.from_axes((SeriesAxis(0, 0.72, len(data)), models))
    Cifti2Image(data, header).to_filename(path)
    return path


def _labels(path, numbers, models):
    names = {int(n): (f"p{n}" if n else "???", (0.0, 0.0, 0.0, 1.0)) for n in {0, *numbers}}
    header = Cifti2Header.from_axes((LabelAxis(["map"], [names]), models))
    Cifti2Image(np.array(numbers, np.float32)[None], header).to_filename(path)
    return path


@pytest.fixture
def pair(tmp_path):
    rng = np.random.default_rng(0)
    models = _models()
    numbers = rng.choice([0, 1, 4, 9], len(models))
    data = rng.normal(1e4, 30, (COUNT, len(models))).astype(np.float32)
    data[:, 3] = 5.0  # no signal
    data[:, 8] = np.nan  # outside the data
    atlas = _labels(tmp_path / "atlas-tiny.dlabel.nii", numbers, models)
    name = "sub-01_task-rest_space-fsLR_den-91k_desc-denoised_bold.dtseries.nii"
    return _series(tmp_path / name, data, models), atlas, data, numbers


@pytest.mark.parametrize("estimator", ["mean", "median", "eigenvariate"])
@pytest.mark.parametrize("block_bytes", [1, 4 * COUNT * 7, 1 << 22])
def test_dense_parcels_are_those_of_the_whole_matrix(pair, monkeypatch, estimator, block_bytes):
    monkeypatch.setattr(cifti, "BLOCK_BYTES", block_bytes)
    series, atlas, data, numbers = pair
    dense, labels = open_dtseries(series), read_dlabel(atlas)
    check_models(dense, labels)
    assert dense.tr == pytest.approx(0.72)
    assert len(list(dense)) == dense.n_blocks
    result = dense_parcels(dense, labels.numbers, np.array([9, 1, 4]), 0.2, estimator)
    usable = np.isfinite(data[0]) & (data.std(axis=0) > 0)
    for column, parcel in enumerate((9, 1, 4)):
        here = data[:, (numbers == parcel) & usable].astype(float)
        assert result.n_voxels[column] == (numbers == parcel).sum()
        assert result.n_usable[column] == here.shape[1]
        if estimator == "eigenvariate":
            u, s, vt = np.linalg.svd(here - here.mean(axis=0), full_matrices=False)
            expected = u[:, 0] * s[0] / here.shape[1] ** 0.5 * np.sign(vt[0].sum()) + here.mean()
        else:
            expected = getattr(np, estimator)(here, axis=1)
        np.testing.assert_allclose(result.series[:, column], expected, rtol=1.2e-7)


@pytest.mark.parametrize(
    ("models", "fault"),
    [
        (_models(voxels=14), "34 grayordinates, the atlas 35"),
        (_models(vertices=range(1, 21)), "from cortex left on"),
        (_models(structure="CORTEX_RIGHT"), "from cortex right on"),
        (_models(vertices=range(19), voxels=16), "from cortex left on"),
    ],
)
def test_other_grayordinates_are_refused(pair, tmp_path, models, fault):
    data = np.random.default_rng(0).normal(size=(COUNT, len(models))).astype(np.float32)
    path = _series(tmp_path / "other.dtseries.nii", data, models)
    with pytest.raises(DataError, match=fault):
        check_models(open_dtseries(path), read_dlabel(pair[1]))


def test_the_published_cifti_atlas_is_that_of_the_table(shared_data):
    atlas = read_dlabel(shared_data / "A424" / "A424.dlabel.nii")
    assert len(atlas.numbers) == 91_282 and (atlas.numbers == 0).sum() == 5_061
    assert dict(sorted(atlas.names.items())) == dict(enumerate(load_table()["name"], start=1))


def test_the_command_on_cifti(pair, tmp_path):
    series, atlas, data, numbers = pair
    parcellate_file(series, str(atlas), tmp_path / "out", min_coverage=0.2, tsv=True)
    stem = tmp_path / "out" / "sub-01_task-rest_space-fsLR_den-91k"
    table = pd.read_parquet(f"{stem}_atlas-atlastiny_stat-mean_timeseries.parquet")
    assert list(table.columns) == ["p1", "p4", "p9"]
    here = data[:, (numbers == 4) & np.isfinite(data[0]) & (data.std(axis=0) > 0)]
    np.testing.assert_allclose(table["p4"], here.mean(axis=1, dtype=float), rtol=1.2e-7)
    tsv = pd.read_csv(f"{stem}_seg-atlastiny_stat-mean_timeseries.tsv", sep="\t")
    np.testing.assert_allclose(tsv, table, rtol=1e-6)
    about = json.loads(
        (tmp_path / "out" / f"{stem.name}_atlas-atlastiny_stat-mean_timeseries.json").read_text()
    )
    assert about["Entities"] == {"sub": "01", "task": "rest"}
    assert set(about["Sources"]) == {f"series::{series.name}", f"atlas::{atlas.name}"}


def test_the_command_finds_the_registered_atlas_of_grayordinates(tmp_path, shared_data):
    published = shared_data / "A424" / "A424.dlabel.nii"
    models = read_dlabel(published).models
    data = np.random.default_rng(0).normal(100, 1, (6, len(models))).astype(np.float32)
    series = _series(tmp_path / "sub-1_task-rest.dtseries.nii", data, models)
    with pytest.raises(InputError, match="A424dense is not on this machine"):
        parcellate_file(series, "A424", tmp_path)
    get_atlas(find_dense("A424"), str(published))
    for name in ("A424", str(published)):
        parcellate_file(series, name, tmp_path)
    table = pd.read_parquet(tmp_path / "sub-1_task-rest_atlas-A424_stat-mean_timeseries.parquet")
    assert list(table.columns) == load_table()["name"].tolist() and table.notna().all().all()


@pytest.fixture
def volume(tmp_path):
    """Two halves of a box, right and left, and a table that says so."""
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = -18, -10, -8
    labels = np.ones((10, 6, 5), np.float32)
    labels[:5] = 2
    rng = np.random.default_rng(1)
    data = rng.normal(100, 3, (*labels.shape, 8)).astype(np.float32)
    write_image(tmp_path / "atlas.nii.gz", labels, affine)
    table = tmp_path / "atlas.tsv"
    table.write_text("index\tname\tx\ty\tz\n1\tright\t10\t0\t0\n2\tleft\t-10\t0\t0\n")
    series = tmp_path / "sub-02_task-rest_space-X_bold.nii.gz"
    write_image(series, data, affine, tr=2.0)
    return tmp_path, series, data, labels, affine


def _run(volume, **options):
    folder, series, *_ = volume
    given = {"table": folder / "atlas.tsv", "space_ok": True, **options}
    parcellate_file(series, str(folder / "atlas.nii.gz"), folder / "out", **given)
    kind = options.get("estimator", "mean")
    return pd.read_parquet(
        folder / "out" / f"sub-02_task-rest_space-X_atlas-atlas_stat-{kind}_timeseries.parquet"
    )


def test_a_nifti_file_shows_how_far_it_is(volume, capsys):
    _run(volume)
    assert "volumes: 8/8" in capsys.readouterr().err


def test_a_series_stored_from_right_to_left_gives_the_same_parcels(volume):
    folder, series, data, labels, affine = volume
    expected = _run(volume)
    np.testing.assert_allclose(expected["right"], data[labels == 1].mean(axis=0), rtol=1e-6)
    flipped = affine.copy()
    flipped[0, 0], flipped[0, 3] = -4, 18
    write_image(series, data[::-1], flipped, tr=2.0)
    for _ in range(2):  # the second time with the labels out of the cache
        pd.testing.assert_frame_equal(_run(volume), expected)
    kept = list((folder / "cache" / "labels").iterdir())
    assert len(kept) == 1
    kept[0].write_bytes(kept[0].read_bytes()[:100])  # a damaged cache is made anew
    pd.testing.assert_frame_equal(_run(volume), expected)


@pytest.mark.parametrize("estimator", ["mean", "median"])
def test_what_the_image_does_not_show_of_a_parcel_is_not_covered(volume, estimator):
    """A slab through the left half: five sixths of it are out of the field of view."""
    folder, series, data, _, affine = volume
    write_image(series, data[4:, 1:], _moved(affine, (4, 1, 0)), tr=2.0)
    table = _run(volume, estimator=estimator)
    assert table["left"].isna().all() and table["right"].notna().all()
    coverage = pd.read_csv(
        folder / "out" / "sub-02_task-rest_space-X_atlas-atlas_stat-coverage_timeseries.tsv",
        sep="\t",
    ).set_index("name")
    assert coverage.loc["right", ["n_voxels", "n_usable"]].tolist() == [150, 125]
    assert coverage.loc["left", ["n_voxels", "n_usable"]].tolist() == [150, 25]
    assert coverage.loc["left", "coverage"] == pytest.approx(1 / 6, abs=1e-6)


def _moved(affine, voxels):
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ voxels
    return moved


@pytest.mark.parametrize("value", [-0.1, np.nan])
def test_weights_that_are_none_are_refused(volume, value):
    folder, _, _, labels, affine = volume
    weights = np.ones(labels.shape, np.float32)
    weights[2, 2, 2] = value
    write_image(folder / "gm.nii.gz", weights, affine)
    with pytest.raises(InputError, match="0 or more") as told:
        _run(volume, estimator="weighted", weights=folder / "gm.nii.gz")
    assert "gm.nii.gz" in str(told.value)


def test_swapped_and_fractional_and_missing_labels_are_refused(volume):
    folder, _, _, labels, affine = volume
    image = folder / "atlas.nii.gz"
    for content, fault in (
        (3 - labels, "2 of 2 parcels lie on the wrong side"),
        (labels + 0.5, "whole label numbers"),
        (np.where(labels == 2, 0, labels), "holds 1 labels where there should be 2"),
        (np.where(labels == 2, 3, labels), "1 labels that the table does not name"),
    ):
        write_image(image, content.astype(np.float32), affine)
        with pytest.raises(InputError, match=fault):
            _run(volume)
    image.write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        _run(volume)


def test_permuted_labels_of_the_real_atlas_are_found_out(shared_data):
    from brainlm.atlas.check import check_places
    from brainlm.atlas.labels import read_labels
    from brainlm.images import Image

    table = load_table()
    for name in ("A424", "A424+2mm", "A424+4mm"):
        real = read_labels(shared_data / "A424" / f"{name}.nii.gz")
        found = check_places(real, table, None)
        assert found.n_wrong_side <= 1 and found.n_elsewhere <= 1
    with pytest.raises(InputError, match=r"4\d\d of 4\d\d parcels lie on the wrong side"):
        check_places(Image(real.data[::-1], real.affine), table, None)
    order = np.arange(425, dtype=np.int16)
    order[1:181] = np.random.default_rng(0).permutation(order[1:181])  # within one hemisphere
    with pytest.raises(InputError, match="far from where the atlas table"):
        check_places(Image(order[real.data], real.affine), table, None)


def test_a_series_without_signal_or_place_is_named(volume, pair):
    _, series, data, _, affine = volume
    dense, atlas, whole, _ = pair
    write_image(series, np.full_like(data, 7), affine, tr=2.0)
    with pytest.raises(DataError, match="No parcel has 50%") as told:
        _run(volume)
    assert str(series) in str(told.value)
    _series(dense, np.full_like(whole, 7), _models())
    with pytest.raises(DataError, match="No parcel has 50%") as told:
        parcellate_file(dense, str(atlas), dense.parent)
    assert str(dense) in str(told.value)
    flat = nib.Nifti1Image(data, affine)
    flat.set_sform(np.diag([4.0, 4, 0, 1]), 1)
    nib.save(flat, series)
    with pytest.raises(DataError, match="affine is singular") as told:
        _run(volume)
    assert str(series) in str(told.value)


def test_other_inputs_that_cannot_be_used(volume, pair, shared_data):
    folder, series, _, labels, affine = volume
    dense, atlas, *_ = pair
    write_image(folder / "none.nii.gz", np.zeros(labels.shape, np.uint8), affine)
    with pytest.raises(DataError, match="mask holds no voxel") as told:
        _run(volume, mask=folder / "none.nii.gz")
    assert "none.nii.gz" in str(told.value)
    with pytest.raises(InputError, match="In which space the atlas lies is not known"):
        _run(volume, space_ok=False)
    with pytest.raises(InputError, match="is not registered"):
        _run(volume, table=None)
    with pytest.raises(InputError, match="no estimator 'mode'"):
        _run(volume, estimator="mode")
    with pytest.raises(InputError, match="go together"):
        _run(volume, estimator="weighted")
    real = str(shared_data / "A424" / "A424+2mm.nii.gz")
    with pytest.raises(InputError, match="drawn in MNI152NLin6Asym, the series lies in X"):
        parcellate_file(series, real, folder)
    with pytest.raises(DataError, match=r"35 grayordinates, the atlas 91,282"):
        parcellate_file(dense, str(shared_data / "A424" / "A424.dlabel.nii"), folder)
    with pytest.raises(InputError, match="no labels for grayordinates"):
        parcellate_file(dense, "A424thin", folder)
    for broken in (dense, atlas):
        whole = broken.read_bytes()
        broken.write_bytes(whole[:-40])
        with pytest.raises(BrainLMError) as caught:
            parcellate_file(dense, str(atlas), folder)
        assert str(broken) in str(caught.value)
        broken.write_bytes(b"")
        with pytest.raises(InputError, match="is empty"):
            parcellate_file(dense, str(atlas), folder)
        broken.write_bytes(whole)
