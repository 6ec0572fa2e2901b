"""The field in Hz from what a scanner stores, and the way of a field to a run's reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import DataError
from ..geometry import Array
from ..images import Image
from .distortion import Floats, shift_from_field, unwarp
from .grids import resample_onto, world_points
from .masks import dilate, foreground_mask
from .pyramid import voxel_sizes
from .registration import correct_bias, register

Mask = NDArray[np.bool_]

#: SDs (mm) of the Gaussians by which a field is smoothed inside the head and continued beyond it.
_SPREAD_MM = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
#: A voxel believes a narrower Gaussian when that much of its weight lies on measured tissue.
_ENOUGH = 0.1
#: Robust SDs from its neighbours' median at which a voxel is a spike.
_SPIKE = 5.0
#: Around the head, its edge helps registration.
_RIM_MM = 6.0
#: The second registration sees the reference without the distortion that the first one found.
_PASSES = 2


def phase_in_radians(phase: NDArray, file: str | None = None) -> Floats:
    """A phase image (x, y, z) in the units of common converters, as radians.

    Known are radians (to one turn), Siemens's 0 to 4095 and -4096 to 4095, and GE's
    thousandths of a radian. `file` is named where it is none of these.
    """
    low, high = float(phase.min()), float(phase.max())
    if high - low <= 2 * np.pi + 0.1:
        turns = phase / (2 * np.pi)
    elif low >= 0 and 2048 < high <= 4096:
        turns = phase / 4096
    elif -3142 <= low < 0 < high <= 3142 and high - low > 5000:
        turns = phase / (2000 * np.pi)
    elif -4096 <= low < 0 and high <= 4096 and high - low > 5000:
        turns = phase / 8192
    else:
        raise DataError(
            f"The phase image runs from {low:g} to {high:g}: neither radians nor a scanner's units",
            file=file,
            fix="convert it anew, or take the field map out of fmap/ and onboard again: the run is "
            "then used without",
        )
    return np.asarray(2 * np.pi * turns, dtype=np.float32)


def field_from_phase(phase: NDArray, magnitude: Image, echo_gap_s: float) -> Floats:
    """The field (x, y, z) in Hz of a phase difference in radians, of echoes `echo_gap_s` apart.

    Unwrapped in three dimensions by reliability (Abdul-Rahman et al. 2007, Appl. Opt. 46:6623);
    then as `field_in_head`.
    """
    from skimage.restoration import unwrap_phase

    head = foreground_mask(magnitude.data, voxel_sizes(magnitude.affine))
    wrapped = np.angle(np.exp(1j * phase.astype(float)))
    unwrapped = unwrap_phase(np.ma.masked_array(wrapped, ~head), rng=0)
    return field_in_head(np.ma.filled(unwrapped, 0.0) / (2 * np.pi * echo_gap_s), magnitude)


def field_in_head(field: NDArray, magnitude: Image) -> Floats:
    """A measured field (x, y, z) without spikes, smoothed, and continued beyond the head."""
    sizes = voxel_sizes(magnitude.affine)
    head = foreground_mask(magnitude.data, sizes)
    filled = spread(field, head.astype(float), sizes, _SPREAD_MM[1:])
    quiet = ndimage.median_filter(np.where(head, field, filled), 3)
    difference = np.abs(field - quiet)
    usual = _SPIKE * 1.4826 * float(np.median(difference[head])) + 1e-6
    clean = np.where(difference < usual, field, quiet)
    return spread(clean, np.where(head, magnitude.data.astype(float) ** 2, 0.0), sizes)


def spread(
    field: NDArray, weights: NDArray, sizes: Array, widths_mm: tuple[float, ...] = _SPREAD_MM
) -> Floats:
    """Smooth a field where it has weight and continue it smoothly where it has none.

    Normalised convolution with Gaussians from wide to narrow: each voxel takes the narrowest
    that still sees measured tissue, with soft transitions.
    """
    scaled = weights / weights.max()
    result = np.full(field.shape, np.average(field, weights=scaled))
    for width in reversed(widths_mm):
        sigma = width / sizes
        seen = ndimage.gaussian_filter(scaled, sigma, mode="constant", truncate=3)
        total = ndimage.gaussian_filter(scaled * field, sigma, mode="constant", truncate=3)
        trust = np.clip(seen / _ENOUGH, 0, 1) ** 2
        result = trust * total / np.maximum(seen, 1e-12) + (1 - trust) * result
    return np.asarray(result, dtype=np.float32)


def bring_to_boldref(
    field: Image,
    shown: Image,
    boldref: Image,
    mask: Mask,
    *,
    direction: str,
    readout_s: float,
    zoom: float,
) -> Image:
    """The field (Hz) on the grid of a run's reference, its median in the brain put at 0.

    `shown` is the undistorted image that lies where the field does; it is registered rigidly to
    the reference at `zoom` mm, and a second time when the distortion found first is undone. A
    constant field moves the whole image, which the registration to the T1w sees to; field maps
    know it only up to the scanner's centre frequency.
    """
    gain = correct_bias(boldref.data, boldref.affine, mask)
    even = Image(boldref.data / gain, boldref.affine)
    pose, found = np.eye(4), Image(np.zeros_like(gain), boldref.affine)
    for _ in range(_PASSES):
        shift = shift_from_field(found, direction, readout_s)
        undistorted = Image(unwarp(even, shift), boldref.affine)
        grid, target, near = upright(undistorted, mask, zoom)
        pose = register(target, grid, near, shown, pose, "Rigid")
        found = onto_boldref(field, boldref, mask, pose)
    return found


def onto_boldref(field: Image, boldref: Image, mask: Mask, pose: Array | None = None) -> Image:
    """The field on the grid of the reference, its median in `mask` put at 0.

    `pose` (4, 4) maps points of the reference to points of the field.
    """
    pull = np.linalg.inv(field.affine) @ (np.eye(4) if pose is None else pose) @ boldref.affine
    moved = ndimage.affine_transform(
        field.data, pull[:3, :3], pull[:3, 3], boldref.data.shape, order=1, mode="nearest"
    )
    return Image((moved - np.median(moved[mask])).astype(np.float32), boldref.affine)


def upright(image: Image, mask: Mask, zoom: float) -> tuple[Array, Floats, Mask]:
    """An axis-aligned grid of `zoom` mm about `mask`, the image on it, and the mask with a rim."""
    world = world_points(image.affine, mask)[:3]
    low, high = world.min(axis=1) - 2 * _RIM_MM, world.max(axis=1) + 2 * _RIM_MM
    shape = tuple(int(np.ceil(length / zoom)) + 1 for length in high - low)
    grid = np.diag([zoom, zoom, zoom, 1.0])
    grid[:3, 3] = low
    values, _ = resample_onto(image, grid, shape, order=3)
    inside, _ = resample_onto(Image(mask.astype(np.float32), image.affine), grid, shape)
    return grid, np.clip(values, 0, None), dilate(inside > 0.5, voxel_sizes(grid), _RIM_MM)
