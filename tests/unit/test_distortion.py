"""Susceptibility distortion: signs, the two estimators, and the one interpolation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from brainlm.errors import DataError
from brainlm.geometry import Array, pose_from_params, rotation
from brainlm.images import Image, write_image
from brainlm.phantom.distortion import origin_of
from brainlm.preproc.distortion import Shift, axis_and_sign, shift_from_field, unwarp, unwarp_mask
from brainlm.preproc.fieldmap import bring_to_boldref, field_from_phase, phase_in_radians, spread
from brainlm.preproc.pepolar import field_from_opposite
from brainlm.preproc.resample import Resampler
from brainlm.series import open_series

from .synthetic_head import SHAPE, ZOOM, brain_points, centered_affine, sample_head
from .test_resample import grid_points, pattern, resampled, standard_grid

READOUT = 0.03
LAS = np.diag([-1.0, 1, 1, 1])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = rotation([0.2, -0.1, 0.15])


def smooth_hz(points: Array, mm: float = 8.0) -> Array:
    """A field (n,) that shifts 4 mm voxels by up to `mm`: a blob at the front, one at the side."""
    total = np.zeros(points.shape[1])
    for center, sd, height in (((0, 40, -20), 18, 1.0), ((45, -20, -25), 16, -0.7)):
        distance = ((points[:3] - np.array(center)[:, None]) ** 2).sum(axis=0)
        total += height * np.exp(-distance / (2 * sd**2))
    return total * mm / ZOOM / READOUT


def distorted(image: Image, hz: np.ndarray, direction: str) -> np.ndarray:
    """What EPI would show of an image, by pushing each voxel's signal along its line.

    Not the inverse of the code under test: voxels are cut into 20 pieces, and each piece's signal
    is dropped, with linear weights, where the field brings it.
    """
    axis, sign = axis_and_sign(direction)
    lines = np.moveaxis(image.data, axis, -1)
    shift = np.moveaxis(sign * READOUT * hz, axis, -1)
    length, fine = lines.shape[-1], 20
    place = (np.arange(length * fine) + 0.5) / fine - 0.5
    flat, moved = lines.reshape(-1, length), shift.reshape(-1, length)
    result = np.zeros_like(flat, dtype=float)
    for row in range(len(flat)):
        signal = np.interp(place, np.arange(length), flat[row]) / fine
        to = np.clip(place + np.interp(place, np.arange(length), moved[row]), 0, length - 1.001)
        low = to.astype(int)
        np.add.at(result[row], low, signal * (1 - (to - low)))
        np.add.at(result[row], low + 1, signal * (to - low))
    return np.moveaxis(result.reshape(lines.shape), -1, axis)


def head(turn: Array | None = None) -> Image:
    """A head on a grid whose axes are turned about its middle."""
    affine = centered_affine(SHAPE, ZOOM)
    if turn is not None:
        middle = np.append((np.array(SHAPE) - 1) / 2, 1)
        center = affine @ middle
        affine[:3, :3] = turn[:3, :3] * ZOOM
        affine[:3, 3] += (center - affine @ middle)[:3]
    return Image(sample_head(np.eye(4), affine, SHAPE).astype(np.float32), affine)


@pytest.mark.parametrize("direction", ["i", "i-", "j", "j-", "k", "k-"])
@pytest.mark.parametrize("turn", [np.eye(4), LAS, OBLIQUE @ LAS])
def test_a_positive_field_moves_signal_towards_the_direction_named(
    direction: str, turn: np.ndarray
) -> None:
    """A point of light at a known voxel, three voxels further in the image."""
    affine = turn @ np.diag([4.0, 3.0, 5.0, 1.0])
    axis, sign = "ijk".index(direction[0]), -1 if direction.endswith("-") else 1
    true = np.zeros((15, 15, 15), dtype=np.float32)
    true[7, 7, 7] = 100
    seen = np.roll(true, 3 * sign, axis=axis)
    shift = shift_from_field(Image(np.full(true.shape, 3 / READOUT), affine), direction, READOUT)
    undone = unwarp(Image(seen, affine), shift)
    assert np.unravel_index(undone.argmax(), undone.shape) == (7, 7, 7)
    # In the world, the light has moved along the stored axis, whatever that is called there.
    lit, shown = (affine @ np.append(np.argwhere(image == 100)[0], 1) for image in (true, seen))
    np.testing.assert_allclose(shift.at(lit[:, None])[:, 0], (shown - lit)[:3], atol=1e-4)


@pytest.mark.parametrize("direction", ["j", "j-", "i"])
def test_undone_distortion_gives_the_image_back_pile_up_and_all(direction: str) -> None:
    original = head()
    points = grid_points(original.affine, SHAPE)
    hz = smooth_hz(points).reshape(SHAPE)
    seen = Image(distorted(original, hz, direction).astype(np.float32), original.affine)
    image = Image(distorted(original, 0 * hz, direction), original.affine)  # as blurred as `seen`
    assert seen.data.sum() == pytest.approx(image.data.sum(), rel=1e-3)  # none is lost
    shift = shift_from_field(Image(hz.astype(np.float32), image.affine), direction, READOUT)
    inside = ndimage.binary_erosion(image.data > 300, iterations=2)

    def gap(data: np.ndarray) -> float:
        return float(np.abs(data - image.data)[inside & (np.abs(shift.mm) > 3)].mean())

    full, pale = unwarp(seen, shift), unwarp(seen, shift, modulate=False)
    assert gap(full) < 0.35 * gap(seen.data)
    assert gap(full) < 0.6 * gap(pale)
    wrong = Shift(-shift.voxels, shift.axis, shift.affine)
    assert gap(unwarp(seen, wrong)) > gap(seen.data)
    brain, seen_brain = image.data > 300, seen.data > 300
    moved = unwarp_mask(Image(seen_brain.astype(np.float32), image.affine), shift)
    far = np.abs(shift.mm) > 3
    assert (moved ^ brain)[far].sum() < 0.4 * (seen_brain ^ brain)[far].sum()


def test_the_phantom_distorts_as_the_correction_believes() -> None:
    """Two models written apart, one pulling and one pushing, show the same image."""
    hz = smooth_hz(grid_points(head().affine, SHAPE)).reshape(SHAPE)
    image = Image(distorted(head(), 0 * hz, "j-"), head().affine)
    places, factor = origin_of(
        np.indices(SHAPE, dtype=float).reshape(3, -1), np.eye(4), -READOUT * hz
    )
    pulled = (ndimage.map_coordinates(image.data, places, order=3) * factor).reshape(SHAPE)
    pushed = distorted(head(), hz, "j-")
    change = np.abs(image.data - pushed).mean()
    assert np.abs(pulled - pushed).mean() < 0.25 * change


# --- fields -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "whole_turn"),
    [(0, 4095, 4096), (-4096, 4094, 8192), (-3141, 3142, 2000 * np.pi), (-3.14, 3.14, 2 * np.pi)],
)
def test_phases_are_read_in_each_scanners_units(low: float, high: float, whole_turn: float) -> None:
    phase = np.linspace(low, high, 1000).reshape(10, 10, 10)
    turns = np.diff(phase_in_radians(phase).ravel()[[0, -1]])[0] / (2 * np.pi)
    assert turns == pytest.approx((high - low) / whole_turn, rel=1e-5)


def test_phases_in_units_that_nobody_uses_are_refused() -> None:
    with pytest.raises(DataError, match="neither radians") as caught:
        phase_in_radians(np.linspace(0, 255, 1000).reshape(10, 10, 10), "sub-01_phasediff.nii.gz")
    assert "sub-01_phasediff" in str(caught.value)


def test_a_wrapped_and_noisy_phase_gives_the_field_and_repeats() -> None:
    """A field to 400 Hz wraps twice in 2.46 ms; median error in the brain below 1.5 Hz."""
    image, gap, rng = head(), 0.00246, np.random.default_rng(0)
    hz = smooth_hz(grid_points(image.affine, SHAPE), 48.0).reshape(SHAPE)
    phase = 2 * np.pi * gap * hz + 1.0
    noise = rng.normal(0, 15, SHAPE) + 1j * rng.normal(0, 15, SHAPE)
    signal = image.data * np.exp(1j * phase) + noise
    wrapped = np.angle(signal)
    assert np.ptp(phase[image.data > 300]) > 2 * np.pi
    found = field_from_phase(wrapped, image, gap)
    brain = image.data > 300
    error = (found - hz)[brain]
    assert np.median(np.abs(error - np.median(error))) < 1.5
    assert np.percentile(np.abs(error - np.median(error)), 99) < 25
    np.testing.assert_array_equal(field_from_phase(wrapped, image, gap), found)


def test_a_field_goes_on_smoothly_where_nothing_was_measured() -> None:
    x = np.indices((30, 30, 30))[0].astype(float)
    known = np.zeros((30, 30, 30))
    known[10:20, 8:22, 8:22] = 1
    found = spread(np.where(known > 0, x, 1e6), known, np.full(3, 4.0))
    assert np.abs(np.diff(found, axis=0)).max() < 2  # of a slope of 1 inside
    assert found.min() >= 10 and found.max() <= 20
    assert np.abs(found - x)[12:18, 10:20, 10:20].max() < 0.3


@pytest.mark.parametrize(
    ("turn", "directions"),
    [
        (OBLIQUE @ LAS, ("i-", "i")),
        pytest.param(np.eye(4), ("j", "j-"), marks=pytest.mark.slow),
    ],
)
def test_two_opposite_epis_give_the_field(turn: np.ndarray, directions: tuple[str, str]) -> None:
    """Up to 8 mm, with noise and a head that moves in between: median error 0.1 mm, p95 0.5."""
    image = head(turn)
    points = grid_points(image.affine, SHAPE)
    hz = smooth_hz(points).reshape(SHAPE)
    pose = pose_from_params([0.3, -0.2, 0.4, 0.004, 0.003, -0.004], np.array([0, -18.0, 10]))
    moved = Image(sample_head(pose, image.affine, SHAPE), image.affine)
    moved_hz = smooth_hz(np.linalg.inv(pose) @ points).reshape(SHAPE)
    rng = np.random.default_rng(1)
    first, second = (
        Image((distorted(one, f, d) + rng.normal(0, 10, SHAPE)).astype(np.float32), image.affine)
        for one, f, d in ((image, hz, directions[0]), (moved, moved_hz, directions[1]))
    )
    axis, sign = axis_and_sign(directions[0])
    found = field_from_opposite(first, second, axis, (sign * READOUT, -sign * READOUT))
    brain = image.data > 300
    true = (hz - np.median(hz[brain])) * READOUT * ZOOM
    error = np.abs(found.field.data * READOUT * ZOOM - true)[brain]
    assert np.median(error) < 0.1
    assert np.percentile(error, 95) < 0.5
    assert found.correlation > 0.97 > found.correlation_before


def test_a_field_is_brought_to_a_distorted_reference() -> None:
    """The head moved by 2 mm and 2 degrees since the field map: median error below 0.2 mm."""
    image, direction = head(), "j-"
    pose = pose_from_params([1.5, -1, 1, 0.02, -0.03, 0.02], np.array([0, -18.0, 10]))
    field_hz = smooth_hz(np.linalg.inv(pose) @ grid_points(image.affine, SHAPE)).reshape(SHAPE)
    shown = Image(sample_head(pose, image.affine, SHAPE).astype(np.float32), image.affine)
    hz = smooth_hz(grid_points(image.affine, SHAPE)).reshape(SHAPE)
    boldref = Image(distorted(image, hz, direction).astype(np.float32), image.affine)
    mask = boldref.data > 300
    found = bring_to_boldref(
        Image(field_hz.astype(np.float32), image.affine),
        shown,
        boldref,
        mask,
        direction=direction,
        readout_s=READOUT,
        zoom=6.0,
    )
    error = (found.data - (hz - np.median(hz[mask])))[image.data > 300] * READOUT * ZOOM
    assert np.median(np.abs(error)) < 0.2


# --- the one interpolation ----------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["j", "j-", "k"])
def test_resampling_looks_where_epi_shows_each_point(tmp_path: Path, direction: str) -> None:
    """A run with a moving head, tilted storage and a known field comes back in one step."""
    shape, zoom = (60, 70, 60), 3.5
    affine = centered_affine(shape, zoom)
    to_mni = pose_from_params([4, -3, 6, 0.1, -0.05, 0.08], np.array([0.0, -18, 10]))
    poses = [np.eye(4), pose_from_params([0, 1, 0, 0.01, 0, 0.0], np.array([0.0, -18, 10]))]
    axis, sign = axis_and_sign(direction)
    hz = smooth_hz(grid_points(affine, shape)).reshape(shape)
    shift = shift_from_field(Image(hz.astype(np.float32), affine), direction, READOUT)
    volumes = []
    for pose in poses:
        # Where in boldref the tissue lies that voxel u shows: q + shift(q) = inv(pose) u.
        shown = np.linalg.inv(pose) @ grid_points(affine, shape)
        origin = shown.copy()
        for _ in range(15):
            hz_there = smooth_hz(origin)
            origin[:3] = shown[:3] - np.outer(affine[:3, axis], sign * READOUT * hz_there)
        volumes.append(pattern(np.linalg.inv(to_mni) @ origin).reshape(shape))
    write_image(tmp_path / "x.nii.gz", np.stack(volumes, axis=-1).astype(np.float32), affine)
    series, grid = open_series(tmp_path / "x.nii.gz"), standard_grid()
    truth = pattern(grid_points(grid.affine, grid.brain.shape)).reshape(grid.brain.shape)

    def error(shift: Shift | None) -> float:
        found = resampled(Resampler(series, np.array(poses), to_mni, grid, order=3, shift=shift))
        return float(np.abs(found - truth[..., None])[grid.brain].max())

    assert error(shift) < 2  # of waves of 60 to 100
    assert error(None) > 20
    modulated = resampled(
        Resampler(series, np.array(poses), to_mni, grid, order=3, shift=shift, modulate=True)
    )
    plain = resampled(Resampler(series, np.array(poses), to_mni, grid, order=3, shift=shift))
    points = brain_points()[:, :1]
    voxel = tuple(np.round(np.linalg.inv(grid.affine) @ points).astype(int)[:3, 0])
    factor = shift.jacobian_at(to_mni @ points)
    np.testing.assert_allclose(modulated[voxel], plain[voxel] * factor, rtol=1e-4)
