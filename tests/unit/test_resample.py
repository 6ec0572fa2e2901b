from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.errors import DataError
from brainlm.geometry import pose_from_params
from brainlm.images import write_image
from brainlm.preproc.resample import Resampler, StandardGrid
from brainlm.series import Series, open_series, write_series
from brainlm.threads import map_in_order

from .synthetic_head import centered_affine, tissues

CENTER = np.array([0.0, -18, 10])
TO_MNI = pose_from_params([4, -3, 6, 0.1, -0.05, 0.08], CENTER) @ np.diag([1.05, 0.95, 1.02, 1])


def pattern(points: np.ndarray) -> np.ndarray:
    """A smooth image of the world: waves of 50 mm on a pedestal, at points (3 or 4, n)."""
    x, y, z = points[:3] * 2 * np.pi / 50
    return 500 + 100 * np.sin(x) + 80 * np.cos(y + 0.3) + 60 * np.sin(z + x)


def grid_points(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return affine @ np.vstack([np.indices(shape).reshape(3, -1), np.ones(int(np.prod(shape)))])


def raw_series(
    path: Path, poses: list[np.ndarray], shape: tuple[int, ...] = (60, 70, 60), zoom: float = 3.5
) -> Series:
    """A run in which the head, which shows `pattern` in MNI space, has the given poses."""
    affine = centered_affine(shape, zoom)
    volumes = []
    for pose in poses:
        in_mni = np.linalg.inv(pose @ TO_MNI) @ grid_points(affine, shape)
        volumes.append(pattern(in_mni).reshape(shape))
    write_image(path, np.stack(volumes, axis=-1).astype(np.float32), affine, tr=2.0)
    return open_series(path)


def standard_grid(zoom: float = 4.0) -> StandardGrid:
    return StandardGrid(tissues(zoom).affine, tissues(zoom).brain)


def poses_of(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    spread = [2, 2, 2, 0.05, 0.05, 0.05]
    return [pose_from_params(rng.normal(0, spread), CENTER) for _ in range(count)]


def resampled(resampler: Resampler, threads: int = 1) -> np.ndarray:
    return np.stack(list(resampler.volumes(threads)), axis=-1)


def test_known_image_comes_back_through_known_transforms(tmp_path: Path) -> None:
    poses, grid = poses_of(4), standard_grid()
    series = raw_series(tmp_path / "x_bold.nii.gz", poses)
    resampler = Resampler(series, np.array(poses), TO_MNI, grid, order=3)
    found = resampled(resampler)
    assert resampler.mask().sum() == grid.brain.sum()  # the field of view holds all of it
    truth = pattern(grid_points(grid.affine, grid.brain.shape)).reshape(grid.brain.shape)
    error = (found - truth[..., None])[grid.brain]
    assert np.abs(error).max() < 0.5  # of waves of 60 to 100, moved by millimetres
    wrong = resampled(Resampler(series, np.linalg.inv(poses), TO_MNI, grid, order=3))
    assert np.abs((wrong - truth[..., None])[grid.brain]).mean() > 5


def test_outside_the_field_of_view_is_zero_in_every_volume(tmp_path: Path) -> None:
    """A slab that misses the top and bottom of the brain, and a head that moves 6 mm up."""
    poses = [*poses_of(4), pose_from_params([0, 0, 6, 0, 0, 0], CENTER)]
    series = raw_series(tmp_path / "x.nii.gz", poses, shape=(60, 70, 20))
    grid = standard_grid()
    resampler = Resampler(series, np.array(poses), TO_MNI, grid, order=3)
    found, mask = resampled(resampler), resampler.mask()
    points = grid_points(grid.affine, grid.brain.shape)
    seen = np.ones(grid.brain.shape, dtype=bool)
    for pose in poses:
        voxels = (np.linalg.inv(series.affine) @ pose @ TO_MNI @ points)[:3]
        limit = np.array(series.shape[:3])[:, None] - 0.5
        seen &= ((voxels >= -0.5) & (voxels <= limit)).all(axis=0).reshape(seen.shape)
    np.testing.assert_array_equal(mask, seen & grid.brain)
    assert 0.2 < mask.sum() / grid.brain.sum() < 0.8
    assert (found[~seen] == 0).all()
    assert (found[mask] > 100).all()


def test_dead_and_dark_voxels_leave_the_mask(tmp_path: Path) -> None:
    poses = [np.eye(4)] * 5
    shape, affine = (60, 70, 60), centered_affine((60, 70, 60), 3.5)
    rng = np.random.default_rng(1)
    data = rng.normal(500, 10, (*shape, 5))
    data[:20] = 400  # constant
    data[40:, :, :30] = rng.normal(5, 0.1, data[40:, :, :30].shape)  # 1% of the intensity
    write_image(tmp_path / "x.nii.gz", data.astype(np.float32), affine)
    grid = standard_grid()
    resampler = Resampler(
        open_series(tmp_path / "x.nii.gz"), np.array(poses), np.eye(4), grid, order=1
    )
    resampled(resampler)
    mask = resampler.mask()
    where = np.round(np.linalg.inv(affine) @ grid_points(grid.affine, mask.shape)[:, mask.ravel()])
    assert not (where[0] < 19).any()
    assert not ((where[0] > 41) & (where[2] < 28)).any()
    assert mask.sum() > 0.4 * grid.brain.sum()


def test_overshoot_is_clipped_and_threads_change_nothing(tmp_path: Path) -> None:
    data = np.zeros((60, 70, 60, 6), dtype=np.float32)
    data[::2] = 1000.0  # edges that cubic splines overshoot at
    write_image(tmp_path / "x.nii.gz", data, centered_affine((60, 70, 60), 3.5))
    series, poses = open_series(tmp_path / "x.nii.gz"), np.array(poses_of(6))
    one = resampled(Resampler(series, poses, TO_MNI, standard_grid(), order=3))
    three = resampled(Resampler(series, poses, TO_MNI, standard_grid(), order=3), threads=3)
    assert one.min() == 0
    np.testing.assert_array_equal(one, three)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 4),
    dtype=st.sampled_from([np.uint8, np.int16, np.float32, np.float64]),
    slope=st.sampled_from([None, 0.25]),
    kind=st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
)
def test_series_reads_what_nibabel_reads(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, ...],
    dtype: type,
    slope: float | None,
    kind: type,
) -> None:
    path = tmp_path_factory.mktemp("nifti") / "x.nii.gz"
    image = kind(np.arange(np.prod(shape)).reshape(shape).astype(dtype), np.diag([-2, 3, 4, 1.0]))
    if slope:
        image.header.set_slope_inter(slope, 3.0)
    nib.save(image, path)
    series = open_series(path)
    expected = nib.load(path).get_fdata(dtype=np.float32)
    if expected.ndim == 4:
        np.testing.assert_array_equal(np.stack(list(series.volumes()), axis=-1), expected)
        mask = expected[..., 0] >= np.median(expected[..., 0])
        np.testing.assert_array_equal(series.in_mask(mask), expected[mask].T)
    np.testing.assert_allclose(series.affine, np.diag([-2, 3, 4, 1.0]))


def test_written_series_is_valid_nifti_and_reproducible(tmp_path: Path) -> None:
    data = np.random.default_rng(0).random((4, 5, 6, 7), dtype=np.float32)
    affine = np.array([[0, 2.0, 0, -5], [-2, 0, 0, 9], [0, 0, 3, 1], [0, 0, 0, 1]])
    for name in ("a.nii.gz", "b.nii.gz"):
        write_series(tmp_path / name, np.moveaxis(data, -1, 0), data.shape, affine, tr=0.735)
    image = nib.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), data)
    np.testing.assert_allclose(image.affine, affine)
    assert image.header.get_zooms() == pytest.approx((2, 2, 3, 0.735))
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert int(image.header["sform_code"]) == 4
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_broken_series_name_their_file(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    noise = np.random.default_rng(0).random((9, 9, 9, 9)).astype(np.float32)
    write_image(path, noise, np.eye(4))
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(DataError, match="cannot be read") as caught:
        list(open_series(path).volumes())
    assert caught.value.file == str(path)
    with pytest.raises(DataError, match="does not exist"):
        open_series(tmp_path / "none.nii.gz")
    write_image(path, noise[..., 0], np.eye(4))
    with pytest.raises(DataError, match="four dimensions"):
        open_series(path)


@given(items=st.lists(st.integers(), max_size=30), threads=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_threads_keep_the_order(items: list[int], threads: int) -> None:
    assert list(map_in_order(lambda item: item * 2, items, threads)) == [i * 2 for i in items]
