"""Bad and odd input, from onboarding to the interpolation: told, flagged, or of no consequence.

What each module's own tests hold already is not repeated here; docs/bad-input.md lists all.
"""

from __future__ import annotations

import errno
import os
from functools import cache
from pathlib import Path

import isal.igzip
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.bids.scan import scan_image
from brainlm.cli._stage import OnDataError
from brainlm.cli.motion import motion
from brainlm.errors import DataError, ResourceError
from brainlm.geometry import grid_center, pose_from_params
from brainlm.images import Image, write_image
from brainlm.preproc.motion import MotionEstimate, estimate_motion
from brainlm.preproc.normalize import check_anatomy_quality, normalize_anat
from brainlm.preproc.resample import Resampler, StandardGrid
from brainlm.series import HeldSeries, open_series, read_bold, write_series

from .small_bids import AFFINE, BOLD, N_VOLUMES, SHAPE, make_bids, row_of, write_bold
from .synthetic_head import (
    brain_points,
    centered_affine,
    make_study,
    mean_displacement,
    moving_run,
    tissues,
)
from .test_normalize import affine_truth, displaced_t1w

OPTIONS = {"iterations": 12, "tolerance_mm": 0.001, "fd_radius_mm": 50.0}
COARSE = (31, 37, 31)  # at 6 mm: a head in a second
T1W = "sub-01/anat/sub-01_T1w.nii.gz"


@pytest.fixture
def bids(tmp_path):
    return make_bids(tmp_path / "bids")


def signal() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 900, (*SHAPE, N_VOLUMES))


# --- what the file holds -----------------------------------------------------------------


def test_empty_volumes_are_counted(bids):
    data = signal()
    data[..., 3] = 0
    data[..., 7] = 12
    write_bold(bids / f"{BOLD}.nii.gz", data=data)
    reason = row_of(bids).reason
    assert reason == "2 of 20 volumes hold one value only (first: volume 3)"


def test_an_empty_run_is_refused_and_an_empty_t1w_passed_over(bids):
    write_bold(bids / f"{BOLD}.nii.gz", data=np.zeros((*SHAPE, N_VOLUMES)))
    assert row_of(bids).reason.startswith("20 of 20 volumes hold one value only")
    write_bold(bids / f"{BOLD}.nii.gz")
    write_bold(bids / T1W, data=np.zeros(SHAPE))
    row = row_of(bids)
    assert row.eligible and pd.isna(row.t1w)
    assert "is passed over: 1 of 1 volumes hold one value only" in row.notes


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_handful_of_volumes_is_refused(bids, count):
    write_bold(bids / f"{BOLD}.nii.gz", count)
    assert f"too short: {count} volumes" in row_of(bids).reason


def test_a_true_fifth_axis_is_refused(bids):
    write_bold(bids / f"{BOLD}.nii.gz", data=np.stack([signal(), signal()], axis=-1))
    assert "not a 4-D series: 6 x 7 x 4 x 20 x 2" in row_of(bids).reason


def _in_microns(image):
    image.header.set_xyzt_units("micron", "sec")
    affine = image.affine @ np.diag([1000, 1000, 1000, 1])
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)


def _in_metres(image):
    image.header.set_xyzt_units("meter", "sec")
    image.set_sform(image.affine @ np.diag([0.001, 0.001, 0.001, 1]), 1)
    image.header["qform_code"] = 0


def _placed_twice(image):
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINE + 5 * np.eye(4, k=3), 1)


def _called_microns(image):
    image.header.set_xyzt_units("micron", "sec")


def _of_no_known_unit(image):
    image.header["xyzt_units"] = 0


def _of_an_impossible_unit(image):
    image.header["xyzt_units"] = 7 + 56


def _scaled_by_no_number(image):
    image.header["scl_slope"], image.header["scl_inter"] = 2, np.inf


@pytest.mark.parametrize(
    ("change", "reason", "note"),
    [
        (_in_microns, "voxels of 4e.03 x 4e.03 x 4e.03 mm are not believable", None),
        (_in_metres, "voxels of 0.004 x 0.004 x 0.004 mm are not believable", None),
        (_placed_twice, None, "sform and qform place the image differently; the sform is used"),
        (_called_microns, None, "lengths in micron, but they are believable as mm"),
        (_of_no_known_unit, None, None),
        (_of_an_impossible_unit, None, None),
        (_scaled_by_no_number, "cannot be read: .*[Vv]alid slope", None),
    ],
)
def test_odd_headers(bids, change, reason, note):
    path = bids / f"{BOLD}.nii"
    image = nib.Nifti1Image(signal().astype(np.int16), AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 2
    (bids / f"{BOLD}.nii.gz").unlink()
    change(image)
    scaling = [image.header["scl_slope"], image.header["scl_inter"]]
    raw = bytearray(image.to_bytes())
    raw[112:120] = np.array(scaling, "<f4").tobytes()  # nibabel would write others
    path.write_bytes(bytes(raw))
    row = row_of(bids)
    told = pd.Series([row.notes if reason is None else row.reason])
    assert row.eligible == (reason is None), row.reason
    if reason or note:
        assert told.str.contains(reason or note).all(), told[0]
    else:
        assert pd.isna(row.notes)


def test_a_complex_image_is_refused(bids):
    (bids / f"{BOLD}.nii.gz").unlink()
    image = nib.Nifti1Image(signal().astype(np.complex64), AFFINE)
    nib.save(image, bids / f"{BOLD}.nii")
    assert "are not a magnitude image" in row_of(bids).reason


def _as(dtype: str, *, suffix: str = ".nii.gz", slope: float | None = None, axis: int = 4):
    def write(path: Path, data: np.ndarray) -> Path:
        header = nib.Nifti1Header(endianness="big" if dtype[0] == ">" else "little")
        stored = (data - 10) / slope if slope else data
        stored = stored.reshape(data.shape + (1,) * (axis - 4)).astype(dtype)
        image = nib.Nifti1Image(stored, AFFINE, header)
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = 2.0
        if slope:
            image.header.set_slope_inter(slope, 10)
        path = path.with_name(path.name + suffix)
        path.unlink(missing_ok=True)
        nib.save(image, path)
        return path

    return write


@pytest.mark.parametrize(
    "write",
    [
        _as("<i2"),
        _as("<i2", suffix=".nii"),
        _as(">i2"),
        _as("<u2"),
        _as("<f4"),
        _as(">f8", suffix=".nii"),
        _as("<f8"),
        _as("<i2", slope=0.5),
        _as("<i2", axis=5),
    ],
)
def test_ways_to_store_the_same_run_make_no_difference(bids, write):
    data = signal()
    (bids / f"{BOLD}.nii.gz").unlink()
    path = write(bids / BOLD, data)
    row = row_of(bids)
    assert row.eligible and (row.n_volumes, row.tr) == (N_VOLUMES, 2.0), row.reason
    np.testing.assert_allclose(read_bold(path).data, data, rtol=1e-6)


@given(keep=st.floats(0.02, 0.999), flip=st.booleans())
@settings(max_examples=30)
def test_a_damaged_gzip_is_a_fault_and_a_data_error_wherever_it_breaks(
    tmp_path_factory, keep, flip
):
    path = tmp_path_factory.mktemp("damaged") / "x_bold.nii.gz"
    raw = np.random.default_rng(1).integers(0, 2**15, (9, 9, 9, 9)).astype(np.int16)
    write_image(path, raw, AFFINE)
    whole = bytearray(path.read_bytes())
    at = 20 + int(keep * (len(whole) - 30))
    if flip:
        whole[at] ^= 0x55
    path.write_bytes(bytes(whole if flip else whole[:at]))
    assert scan_image(path, full=True).faults
    with pytest.raises(DataError) as caught:
        read_bold(path)
    assert caught.value.file == str(path)


# --- how the head moves and lies ---------------------------------------------------------


def found_in(run: np.ndarray, affine: np.ndarray) -> MotionEstimate:
    return estimate_motion(HeldSeries(run, affine), **OPTIONS)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_jump_of_50_mm_is_found_flagged_and_costs_the_field_of_view(tmp_path, axis):
    truth = np.zeros((14, 6))
    truth[7:, axis] = 50
    run, affine = moving_run(truth, affine=centered_affine(COARSE, 6.0), shape=COARSE)
    found = found_in(run, affine)
    np.testing.assert_allclose((found.params - found.params[0])[:, :3], truth[:, :3], atol=0.5)
    quiet = np.delete(np.arange(1, 14), 6)
    assert found.framewise_displacement[7] > 45 and found.rms_displacement[7] > 45
    assert found.framewise_displacement[quiet].max() < 0.5
    grid = StandardGrid(tissues(6.0).affine, tissues(6.0).brain)
    poses = found.poses @ np.linalg.inv(found.poses[0])  # the head begins where the template is
    still = resampled(tmp_path / "still.nii.gz", run[..., :7], affine, poses[:7], grid)
    moved = resampled(tmp_path / "moved.nii.gz", run, affine, poses, grid)
    # What left the field of view in one volume is nowhere called brain.
    assert moved[1].sum() < 0.95 * still[1].sum()
    assert not moved[0][~grid.wanted].any()
    both = moved[1] & still[1]
    np.testing.assert_allclose(moved[0][both][:, 8].mean(), still[0][both].mean(), rtol=0.03)


def resampled(
    path: Path, run: np.ndarray, affine: np.ndarray, poses: np.ndarray, grid: StandardGrid
) -> tuple[np.ndarray, np.ndarray]:
    write_image(path, run, affine, tr=2.0)
    resampler = Resampler(open_series(path), poses, np.eye(4), grid, order=3)
    data = np.stack(list(resampler.volumes()), axis=-1)
    return data, resampler.mask()


def restored(run: np.ndarray, affine: np.ndarray, axes: tuple[int, ...], flips: tuple[bool, ...]):
    """The same run, stored along other axes: `(run, affine)`."""
    for axis, flip in enumerate(flips):
        if flip:
            turn = np.eye(4)
            turn[axis, axis], turn[axis, 3] = -1, run.shape[axis] - 1
            run, affine = np.flip(run, axis), affine @ turn
    return np.ascontiguousarray(run.transpose(*axes, 3)), affine[:, [*axes, 3]]


@cache
def upright() -> tuple[np.ndarray, np.ndarray, MotionEstimate]:
    steps = np.random.default_rng(3).normal(size=(6, 6)).cumsum(axis=0)
    run, affine = moving_run(
        steps * ([0.8] * 3 + [0.01] * 3), affine=centered_affine(COARSE, 6.0), shape=COARSE, noise=5
    )
    return run, affine, found_in(run, affine)


@given(axes=st.permutations(range(3)), flips=st.tuples(*[st.booleans()] * 3))
@settings(max_examples=8)
def test_how_the_voxels_are_stored_changes_nothing_in_the_world(tmp_path_factory, axes, flips):
    """RAS, LAS, LPI, sagittal or coronal slices: the same movement, the same resampled series."""
    run, affine, expected = upright()
    other, other_affine = restored(run, affine, tuple(axes), flips)
    found = found_in(other, other_affine)
    np.testing.assert_allclose(found.params, expected.params, atol=0.03)
    folder = tmp_path_factory.mktemp("stored")
    grid = StandardGrid(tissues(6.0).affine, tissues(6.0).brain)
    one = resampled(folder / "one.nii.gz", run, affine, expected.poses, grid)
    two = resampled(folder / "two.nii.gz", other, other_affine, expected.poses, grid)
    np.testing.assert_array_equal(one[1], two[1])
    np.testing.assert_allclose(one[0], two[0], atol=0.5)  # of about 1000
    estimated = resampled(folder / "three.nii.gz", other, other_affine, found.poses, grid)
    assert np.abs(estimated[0] - one[0])[one[1]].mean() < 2


@pytest.mark.parametrize("sizes", [(4.0, 4.0, 7.0), (6.0, 3.5, 3.5)])
def test_oblong_voxels_and_tilted_slices_do_no_harm(sizes):
    truth = np.random.default_rng(4).normal(size=(6, 6)).cumsum(axis=0)
    truth *= [0.7] * 3 + [0.01] * 3
    shape = tuple(
        int(np.ceil(length / size)) for length, size in zip((186, 222, 186), sizes, strict=True)
    )
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = np.array([0, -18, 10]) - np.array(sizes) * (np.array(shape) - 1) / 2
    center = grid_center(shape, affine)
    tilted = pose_from_params([0, 0, 0, 0.3, -0.1, 0.2], center) @ affine
    tilted[:3, 3] += center - grid_center(shape, tilted)
    run, _ = moving_run(truth, affine=tilted, shape=shape, noise=10)
    found = found_in(run, tilted)
    poses = np.array([pose_from_params(row, center) for row in truth])
    error = mean_displacement(found.poses, poses, brain_points(), relative_to=2)
    assert error < 0.1


# --- the T1w -----------------------------------------------------------------------------

TRUTH = affine_truth([4, -6, 8, 0.1, 0.03, -0.05], (1.05, 0.96, 1.08))


def _slow(kind: str):
    return pytest.param(kind, marks=pytest.mark.slow)


def cut(t1w: Image, low: int, high: int) -> Image:
    """Keep the axial slices `low` to `high`."""
    affine = t1w.affine.copy()
    affine[:3, 3] += low * affine[:3, 2]
    return Image(t1w.data[..., low:high], affine)


def not_a_head(t1w: Image, kind: str) -> Image:
    rng = np.random.default_rng(0)
    if kind == "noise":
        return Image(rng.random(t1w.data.shape).astype(np.float32), t1w.affine)
    distance = np.indices(t1w.data.shape).T - (np.array(t1w.data.shape) - 1) / 2
    bottle = np.linalg.norm(distance[..., :2], axis=-1).T < 30
    return Image((bottle * 800 + rng.normal(20, 5, bottle.shape)).astype(np.float32), t1w.affine)


@pytest.mark.parametrize("kind", ["top cut", "lower half", "bottle", _slow("slab"), _slow("noise")])
def test_a_cropped_t1w_or_no_head_is_told_or_refused(kind):
    t1w, _ = displaced_t1w(TRUTH, skull=True)
    images = {"top cut": (0, 70), "slab": (55, 70), "lower half": (0, 50)}
    image = cut(t1w, *images[kind]) if kind in images else not_a_head(t1w, kind)
    found = normalize_anat(image, tissues(5.0))
    error = mean_displacement(found.t1w_to_mni, TRUTH, brain_points())
    assert found.doubtful, (kind, found.correlation, found.brain_in_view)
    if kind == "top cut":  # is placed rightly all the same
        check_anatomy_quality(found, "x")
        assert error < 2.5
        return
    with pytest.raises(DataError, match=r"does not look like|shows \d+% of the brain") as caught:
        check_anatomy_quality(found, "x_T1w.nii.gz")
    assert "without a T1w" in caught.value.fix


# --- the disk ----------------------------------------------------------------------------


def fill_the_disk(monkeypatch, after: int) -> None:
    """Every gzip file may take `after` bytes more; then the disk is full."""
    write, left = isal.igzip.IGzipFile.write, [after]

    def full(self, data):
        left[0] -= len(data)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, data)

    monkeypatch.setattr(isal.igzip.IGzipFile, "write", full)


def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path, monkeypatch):
    run, affine = moving_run(np.zeros((6, 6)), shape=(16, 18, 16))
    study, identifier = make_study(tmp_path, run, affine)
    fill_the_disk(monkeypatch, after=5000)
    with pytest.raises(ResourceError, match="No space is left") as caught:
        motion(identifier, study, on_data_error=OnDataError.record)
    assert caught.value.file.endswith(f"{identifier}_boldref.nii.gz")
    assert caught.value.exit_code == 1  # Snakemake may try again; the recording is not given up
    func = study / "derivatives/brainlm/sub-01/func"
    left = sorted(path.name.removeprefix(f"{identifier}_") for path in func.iterdir())
    assert left == [
        "desc-motion_timeseries.json",
        "desc-motion_timeseries.tsv",
        "from-orig_to-boldref_mode-image_desc-hmc_xfm.json",
        "from-orig_to-boldref_mode-image_desc-hmc_xfm.txt",
    ]
    assert all(path.stat().st_size for path in func.iterdir())
    assert not (study / "qc").exists()


def test_a_series_is_not_left_half_written_either(tmp_path, monkeypatch):
    from brainlm.files import atomic_path

    fill_the_disk(monkeypatch, after=5000)
    volumes = iter(np.random.default_rng(0).random((9, 9, 9, 9), dtype=np.float32))
    final = tmp_path / "desc-preproc_bold.nii.gz"
    with pytest.raises(ResourceError, match="No space") as caught, atomic_path(final) as path:
        write_series(path, volumes, (9, 9, 9, 9), np.eye(4), tr=2.0)
    assert caught.value.file == str(final)
    assert list(tmp_path.iterdir()) == []
