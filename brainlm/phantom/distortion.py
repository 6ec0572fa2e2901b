"""Susceptibility: the off-resonance field of a head, and how an EPI readout shows it displaced.

Air in the sinuses and ears disturbs the field around it. EPI encodes place by frequency along
the phase-encoding axis, slowly, so tissue off resonance by `f` Hz appears

    s = +-f * TotalReadoutTime    voxels further along that axis, + for "j", - for "j-",

and where tissue is pushed together its signal piles up, `1 / (1 + ds/dj)` (Jezzard & Balaban
1995, Magn. Reson. Med. 34:65). The field belongs to the head and moves with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from ..errors import InputError
from ..geometry import Array
from .anatomy import BRAIN_CENTER, Head, brain_points, grid_points
from .parameters import Parameters, Session, stream

Floats = NDArray[np.float32]

READOUT_S = 0.03  # total readout time of every EPI
#: Field beside air: template mm of its middle, SD in mm and height, before scaling.
_SOURCES = (((0, 42, -24), 17, 1.0), ((48, -22, -32), 14, -0.7), ((-48, -22, -32), 14, -0.6))
_BACKGROUND = 0.12  # RMS in the brain of what shimming left, beside sources of height 1
_BACKGROUND_MM = 80.0
_INVERSE_STEPS = 10  # of the fixed point below; each shrinks the error at least twofold


@dataclass(frozen=True)
class Field:
    """The off-resonance of one head, as a function of template points."""

    weights: Array  # (9,) of a quadratic background
    scale: float  # Hz
    offset: float  # before scaling; puts the brain's median at 0, as shimming does

    def at(self, points: Array) -> Array:
        """Hz (n,) at template points (n, 3)."""
        return np.asarray(self.scale * (_shape(self.weights, points) - self.offset))


def draw_field(parameters: Parameters, session: Session) -> Field:
    """The field of a subject: its largest shift in the brain is `distortion_mm`."""
    rng = stream(parameters.seed, f"sub-{session.subject}", "off-resonance")
    points = brain_points()
    weights = rng.standard_normal(9)
    weights *= _BACKGROUND / _quadratic(weights, points).std()
    shape = _shape(weights, points)
    offset = float(np.median(shape))
    largest = parameters.distortion_mm / parameters.voxel_mm / READOUT_S
    return Field(weights, largest / float(np.abs(shape - offset).max()), offset)


def field_on(field: Field, head: Head, affine: Array, shape: tuple[int, int, int]) -> Floats:
    """The field (x, y, z) in Hz on a grid in the scanner."""
    points = grid_points(shape) @ affine[:3, :3].T + affine[:3, 3]
    return field.at(head.to_template(points)).reshape(shape).astype(np.float32)


def phase_encoding(site: int) -> str:
    """The direction of the BOLD runs of a site: sites differ."""
    return "j" if site % 2 else "j-"


def shift_of(field: Floats, direction: str) -> Floats:
    """Voxels (x, y, z) by which signal moves along +j."""
    shift = (-1 if direction.endswith("-") else 1) * READOUT_S * field
    if (1 + np.gradient(shift, axis=1)).min() < 0.1:
        raise InputError(
            "The distortion folds the image over itself, or nearly so",
            fix="give a smaller --distortion-mm",
        )
    return np.asarray(shift)


def origin_of(voxels: Array, to_head: Array, shift: Floats) -> tuple[Array, Array]:
    """Where the signal of displaced voxels (3, n) comes from, and how much it piles up there.

    `to_head` (4, 4) brings voxels to those of the grid of `shift`, in which the head holds
    still. Solves `origin + shift(origin) = voxel` by fixed point. Returns the origins (3, n) and
    the factor of intensity (n,).
    """

    def shift_at(places: Array) -> Array:
        still = to_head[:3, :3] @ places + to_head[:3, 3:]
        return map_coordinates(shift, still, order=1, mode="nearest", output=float)

    origin = voxels.copy()
    for _ in range(_INVERSE_STEPS):
        origin[1] = voxels[1] - shift_at(origin)
    half = np.array([[0.0], [0.5], [0.0]])
    stretch = 1 + shift_at(origin + half) - shift_at(origin - half)
    return origin, 1 / stretch


def _shape(weights: Array, points: Array) -> Array:
    total = _quadratic(weights, points)
    for center, sd, height in _SOURCES:
        distance = ((points - np.array(center)) ** 2).sum(axis=1)
        total += height * np.exp(-distance / (2 * sd**2))
    return total


def _quadratic(weights: Array, points: Array) -> Array:
    x, y, z = np.clip((points - BRAIN_CENTER) / _BACKGROUND_MM, -1.5, 1.5).T
    return np.asarray(weights @ np.stack([x, y, z, x * x, y * y, z * z, x * y, y * z, x * z]))
