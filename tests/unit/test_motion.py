from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from brainlm.errors import DataError
from brainlm.geometry import (
    MOTION_NAMES,
    grid_center,
    params_from_pose,
    pose_from_params,
    read_itk_affines,
)
from brainlm.images import read_image, write_image
from brainlm.preproc.checks import check_bold
from brainlm.preproc.masks import dice, foreground_mask, otsu_threshold
from brainlm.preproc.motion import MotionEstimate, estimate_motion
from brainlm.preproc.pyramid import spline_coefficients, world_gradient
from brainlm.series import HeldSeries, read_bold

from .synthetic_head import (
    SHAPE,
    brain_points,
    brainlm,
    bytes_below,
    centered_affine,
    make_study,
    mean_displacement,
    moving_run,
    sample_head,
)

OPTIONS = {"iterations": 12, "tolerance_mm": 0.001, "fd_radius_mm": 50.0}
SMALL = (31, 37, 31)  # at 6 mm


def wander(count: int, mm: float = 1.5, degrees: float = 1.5, seed: int = 1) -> np.ndarray:
    """Smooth random motion (count, 6) with the given largest values."""
    steps = np.random.default_rng(seed).standard_normal((count, 6)).cumsum(axis=0)
    return steps / np.abs(steps).max(axis=0) * ([mm] * 3 + [np.deg2rad(degrees)] * 3)


def estimate(run: np.ndarray, affine: np.ndarray, **options: float) -> MotionEstimate:
    return estimate_motion(HeldSeries(run, affine), **{**OPTIONS, **options})


@pytest.mark.parametrize(("mm", "degrees"), [(1.5, 1.5), (8.0, 6.0)])
def test_known_poses_are_found(mm: float, degrees: float) -> None:
    params = wander(12, mm, degrees)
    run, affine = moving_run(params, noise=20)
    found = estimate(run, affine)
    center = grid_center(run.shape, affine)
    true = np.array([pose_from_params(row, center) for row in params])
    error = mean_displacement(found.poses, true, brain_points(), relative_to=5)
    assert found.converged.all()
    assert error < 0.05  # mm, at 4 mm voxels; the head moved by up to `mm`


def test_params_are_the_heads_own_movement() -> None:
    """Built without `geometry`: a shift of one voxel by hand, a rotation by its formula."""
    affine = centered_affine(SHAPE, 4.0)
    still = sample_head(np.eye(4), affine, SHAPE)
    to_right = np.roll(still, 1, axis=0)  # RAS grid: one voxel = 4 mm towards +R
    up = np.roll(still, 1, axis=2)
    angle, middle = np.deg2rad(3), (np.array(SHAPE) - 1) / 2
    # Turning +R towards +A is right-handed about +S; pull with the inverse turn.
    inverse = np.array(
        [[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    turned = ndimage.affine_transform(still, inverse, middle - inverse @ middle, order=3)
    run = np.stack([still, still, still, still, to_right, up, turned], axis=-1)
    found = estimate(run.astype(np.float32), affine).params
    change = found - found[0]
    np.testing.assert_allclose(change[4], [4, 0, 0, 0, 0, 0], atol=0.02)
    np.testing.assert_allclose(change[5], [0, 0, 4, 0, 0, 0], atol=0.02)
    np.testing.assert_allclose(change[6], [0, 0, 0, 0, 0, angle], atol=0.02)
    assert change[6][5] == pytest.approx(angle, abs=2e-4)


@pytest.fixture(scope="module")
def upright() -> tuple[np.ndarray, np.ndarray, np.ndarray, MotionEstimate]:
    params = wander(8, seed=3)
    run, affine = moving_run(params, noise=5)
    return params, run, affine, estimate(run, affine)


def test_storage_order_does_not_matter(upright: tuple) -> None:
    _, run, affine, expected = upright
    to_las = np.diag([-1.0, 1, 1, 1])
    to_las[0, 3] = run.shape[0] - 1
    las = estimate(np.ascontiguousarray(run[::-1]), affine @ to_las)
    np.testing.assert_allclose(las.params, expected.params, atol=0.02)
    permuted = estimate(np.ascontiguousarray(run.transpose(2, 0, 1, 3)), affine[:, [2, 0, 1, 3]])
    np.testing.assert_allclose(permuted.params, expected.params, atol=0.02)


def test_oblique_slices_give_the_same_world_motion(upright: tuple) -> None:
    params, run, affine, expected = upright
    tilt = pose_from_params([0, 0, 0, 0.3, 0.1, -0.2], grid_center(run.shape, affine))
    oblique = tilt @ affine  # the same centre, other directions
    tilted_run, _ = moving_run(params, affine=oblique, noise=5)
    found = estimate(tilted_run, oblique).params
    gap = (found - found[0]) - (expected.params - expected.params[0])
    assert np.abs(gap[:, :3]).max() < 0.05
    assert np.abs(gap[:, 3:]).max() < 1e-3


def test_result_does_not_depend_on_threads(upright: tuple) -> None:
    _, run, affine, expected = upright
    threaded = estimate_motion(HeldSeries(run, affine), threads=3, **OPTIONS)
    np.testing.assert_array_equal(threaded.poses, expected.poses)
    np.testing.assert_array_equal(threaded.boldref, expected.boldref)


def test_spoilt_first_volume_is_not_the_reference() -> None:
    params = np.zeros((10, 6))
    params[0] = [5, -4, 3, 0.05, 0, 0.05]
    run, affine = moving_run(params)
    run[..., 0] *= 1.3  # not yet at steady state
    found = estimate(run, affine)
    assert 0 not in found.averaged
    assert np.abs(found.params[1:]).max() < 0.05
    np.testing.assert_allclose(found.params[0] - found.params[1], params[0], atol=0.05)


def test_volumes_before_the_steady_state_are_not_the_reference() -> None:
    """They are crisper here (more contrast), and all others are noisy: they would be chosen."""
    run, affine = moving_run(np.zeros((16, 6)), affine=centered_affine(SMALL, 6.0), shape=SMALL)
    rng = np.random.default_rng(7)
    crisp, gain = run[..., :3].copy(), np.array([1.6, 1.4, 1.2], np.float32)
    run += rng.normal(0, 150, run.shape).astype(np.float32)
    run[..., :3] = crisp * gain
    found = estimate(run, affine)
    assert found.unsteady == 3
    assert found.averaged.min() >= 3 and len(found.averaged) == 5
    assert found.boldref.mean() < 1.1 * run[..., 3:].mean()
    assert (np.abs(found.params) < 0.5).all()


def test_slice_dropout_hardly_moves_the_estimate() -> None:
    params = wander(8, seed=5)
    run, affine = moving_run(params)
    run[:, :, 20:24, 3] *= 0.2
    found = estimate(run, affine)
    center = grid_center(run.shape, affine)
    true = np.array([pose_from_params(row, center) for row in params])
    relative = found.poses[3] @ np.linalg.inv(found.poses[6])
    expected = true[3] @ np.linalg.inv(true[6])
    assert mean_displacement(relative, expected, brain_points()) < 0.1


def test_gradient_is_per_mm_of_world() -> None:
    affine = pose_from_params([5, 6, 7, 0.4, -0.2, 0.3], np.zeros(3)) @ np.diag([-2, 3, 4, 1.0])
    index = np.indices((20, 20, 20), dtype=float)
    world = np.tensordot(affine[:3, :3], index, axes=1) + affine[:3, 3, None, None, None]
    ramp = 2 * world[0] - 3 * world[1] + 0.5 * world[2]
    slope = world_gradient(spline_coefficients(ramp, affine), affine)
    inner = slope[:, 8:12, 8:12, 8:12].reshape(3, -1)
    np.testing.assert_allclose(inner.T, np.tile([2, -3, 0.5], (inner.shape[1], 1)), atol=2e-3)


def test_otsu_and_foreground_find_the_head() -> None:
    affine = centered_affine(SHAPE, 4.0)
    head = sample_head(np.eye(4), affine, SHAPE)
    assert 150 < otsu_threshold(head) < 700  # air is 0, tissue 650 to 1200
    speckled = head.copy()
    speckled[2:4, 2:4, 2:4] = 900  # a bright spot in the air
    mask = foreground_mask(speckled, np.full(3, 4.0))
    assert dice(mask, ndimage.binary_fill_holes(head > 400)) > 0.97
    assert not mask[2:4, 2:4, 2:4].any()


def _series(**change: object) -> HeldSeries:
    data = np.random.default_rng(0).random((6, 6, 6, 8), dtype=np.float32)
    affine = np.diag([3.0, 3, 3, 1])
    return HeldSeries(change.get("data", data), change.get("affine", affine))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("run", "word"),
    [
        (_series(data=np.ones((6, 6, 6, 4), np.float32)), "4 volumes"),
        (_series(data=np.zeros((6, 6, 6, 8), np.float32)), "8 of 8 volumes"),
        (_series(data=np.ones((6, 6, 2, 8), np.float32)), "too thin"),
        (_series(affine=np.diag([3.0, 3, 0, 1])), "singular"),
        (
            _series(affine=np.array([[3.0, 3, 0, 0], [3, 3, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])),
            "sing",
        ),
        (_series(affine=np.diag([300.0, 3, 3, 1])), "Voxels of"),
        (_series(affine=np.diag([np.nan, 3, 3, 1])), "singular"),
    ],
)
def test_unusable_series_are_refused(run: HeldSeries, word: str) -> None:
    with pytest.raises(DataError, match=word) as caught:
        check_bold(run, "some_bold.nii.gz")
    assert caught.value.fix and caught.value.file == "some_bold.nii.gz"


def test_one_empty_volume_is_named() -> None:
    data = _series().data.copy()
    data[..., 5] = 0
    with pytest.raises(DataError, match="first: volume 5"):
        check_bold(_series(data=data), "x")


def test_command_writes_what_it_says(tmp_path: Path) -> None:
    run, affine = moving_run(wander(8), affine=centered_affine(SMALL, 6.0), shape=SMALL)
    study, identifier = make_study(tmp_path, run, affine)
    brainlm("motion", identifier, "--study", study, "--threads", "2")
    func = study / "derivatives/brainlm/sub-01/func"
    table = pd.read_csv(
        func / f"{identifier}_desc-motion_timeseries.tsv", sep="\t", na_values="n/a"
    )
    assert list(table.columns) == [*MOTION_NAMES, "framewise_displacement", "rmsd"]
    poses = read_itk_affines(
        func / f"{identifier}_from-orig_to-boldref_mode-image_desc-hmc_xfm.txt"
    )
    center = grid_center(run.shape, affine)
    for row, pose in zip(table[list(MOTION_NAMES)].to_numpy(), poses, strict=True):
        np.testing.assert_allclose(params_from_pose(pose, center), row, atol=1e-7)
    boldref = read_image(func / f"{identifier}_boldref.nii.gz")
    mask = read_image(func / f"{identifier}_desc-foreground_mask.nii.gz")
    np.testing.assert_allclose(boldref.affine, affine)
    assert set(np.unique(mask.data)) == {0, 1}
    sidecar = json.loads((func / f"{identifier}_desc-motion_timeseries.json").read_text())
    assert sidecar["Entities"] == {"sub": "01", "task": "rest"}
    assert sidecar["RepetitionTime"] == 2.0
    assert sidecar["NonSteadyStateVolumes"] == 0
    assert table["rmsd"].isna().tolist() == [True] + [False] * 7

    first = bytes_below(study / "derivatives")
    brainlm("motion", identifier, "--study", study)
    assert bytes_below(study / "derivatives") == first


def test_truncated_run_is_told_or_recorded(tmp_path: Path) -> None:
    run, affine = moving_run(np.zeros((6, 6)), shape=(16, 18, 16))
    study, identifier = make_study(tmp_path, run, affine)
    file = tmp_path / f"bids/sub-01/func/{identifier}_bold.nii.gz"
    whole = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(whole)[: len(whole) // 4])
    said = brainlm("motion", identifier, "--study", study, code=3)
    assert "truncated" in said and str(file) in said and "Traceback" not in said
    brainlm("motion", identifier, "--study", study, "--on-data-error", "record")
    reason = json.loads((study / f"qc/failures/{identifier}.json").read_text())
    assert reason["stage"] == "motion"
    left = bytes_below(study / "derivatives")
    assert len(left) == 4 and set(left.values()) == {b""}


def test_a_run_that_changed_since_onboarding_is_refused(tmp_path: Path) -> None:
    """Its TR and its length, in the table, would be those of another file."""
    run, affine = moving_run(np.zeros((6, 6)), shape=(16, 18, 16))
    study, identifier = make_study(tmp_path, run, affine)
    file = tmp_path / f"bids/sub-01/func/{identifier}_bold.nii.gz"
    write_image(file, run[..., :5].round().astype(np.int16), affine, tr=2.0)
    said = brainlm("motion", identifier, "--study", study, code=3)
    assert "changed since" in said and str(file) in said and "onboard" in said
    assert not (study / "derivatives").exists()


def test_real_run_gets_steadier(shared_data: Path) -> None:
    (file,) = (shared_data / "real").rglob("*_bold.nii.gz")
    bold = read_bold(file)
    run = bold.data[..., :40]
    found = estimate(run, bold.affine)
    assert found.converged.all()
    before, after = (
        tsnr(realigned(run, bold.affine, poses), found.mask)
        for poses in (np.tile(np.eye(4), (40, 1, 1)), found.poses)
    )
    assert after > before * 1.03


def realigned(run: np.ndarray, affine: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Both series are interpolated (the first by half a voxel), so that blur explains nothing."""
    volumes = []
    for index, pose in enumerate(poses):
        offset = np.eye(4)
        offset[:3, 3] = 1.0
        pull = np.linalg.inv(affine) @ pose @ offset @ affine
        volumes.append(
            ndimage.affine_transform(run[..., index], pull[:3, :3], pull[:3, 3], order=1)
        )
    return np.stack(volumes, axis=-1)


def tsnr(series: np.ndarray, mask: np.ndarray) -> float:
    values = series[mask]
    return float(np.median(values.mean(axis=1) / values.std(axis=1).clip(1e-6)))
