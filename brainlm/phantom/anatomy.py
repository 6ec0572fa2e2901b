"""A subject's head: the template under a random deformation, and its T1w image.

A point `x` of the template lies at `y = pose @ affine @ (x + d(x))` in the scanner: `d` is a
smooth displacement, `affine` the subject's size and place, `pose` how the head lies in this
session or at the first volume of this run. All in RAS mm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from ..errors import InputError
from ..geometry import pose_from_params
from ..images import Image, load_template
from .parameters import SPACE

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Points = NDArray[np.floating[Any]]

FIELD_MM = 4.0  # grid of the displacement
SMOOTH_MM = 20.0  # SD of the Gaussian that makes it smooth
BRAIN_CENTER = np.array([0.0, -18.0, 8.0])  # mm, of the template's brain
T1W_FOV = (192.0, 224.0, 192.0)  # mm
_INVERSE_STEPS = 7  # of the fixed point below; each shrinks the error at least threefold


@dataclass(frozen=True)
class Head:
    """Where the template's points lie in the scanner."""

    displacement: Floats  # (3, x, y, z) mm, on the template grid `grid`
    grid: Array  # (4, 4) voxel to template mm
    affine: Array  # (4, 4) displaced template mm to scanner mm

    def to_scanner(self, points: Points) -> Array:
        """Template points (n, 3) to scanner points (n, 3)."""
        return _apply(self.affine, points + self._displacement_at(points))

    def to_template(self, points: Points) -> Array:
        """Scanner points (n, 3) to template points (n, 3): the inverse, by fixed point."""
        straight = _apply(np.linalg.inv(self.affine), points)
        found = straight
        for _ in range(_INVERSE_STEPS):
            found = straight - self._displacement_at(found)
        return found

    def near(self, points: Points) -> NDArray[np.bool_]:
        """Which scanner points (n,) can lie in the brain: the others need no tissue."""
        low, high = _brain_box()
        straight = _apply(np.linalg.inv(self.affine), points)
        margin = np.abs(self.displacement).max()
        return np.asarray(((straight > low - margin) & (straight < high + margin)).all(axis=1))

    def moved(self, pose: Array) -> Head:
        """The same head after a rigid movement in the scanner."""
        return replace(self, affine=pose @ self.affine)

    def total_displacement(self) -> Floats:
        """Scanner minus template point (x, y, z, 3) in mm, on the template grid `grid`."""
        shape = self.displacement.shape[1:]
        points = _apply(self.grid, grid_points(shape))
        moved = self.to_scanner(points) - points
        return moved.reshape(*shape, 3).astype(np.float32)

    def _displacement_at(self, points: Points) -> Array:
        place = _apply(np.linalg.inv(self.grid), points).T
        return np.stack(
            [map_coordinates(part, place, order=1, mode="nearest") for part in self.displacement],
            axis=1,
        )


def draw_head(deform_mm: float, rng: np.random.Generator) -> Head:
    """A random subject: size within about 5%, place within a few mm and degrees."""
    grid, inside = _field_grid()
    noise = rng.standard_normal((3, *inside.shape))
    sigma = SMOOTH_MM / FIELD_MM
    field = np.stack([gaussian_filter(part, sigma, mode="reflect") for part in noise])
    field *= deform_mm / np.sqrt((field**2).sum(axis=0)[inside].mean())
    smallest = jacobian(field, FIELD_MM).min()
    if smallest <= 0.1:
        raise InputError(
            f"The deformation folds or nearly so (smallest Jacobian {smallest:.2f})",
            fix="give a smaller --deform-mm",
        )
    scale = np.diag([*np.exp(rng.normal(0, 0.03, 3)), 1.0])
    turn = np.deg2rad(rng.uniform(-4, 4, 3))
    shift = rng.uniform(-5, 5, 3)
    place = pose_from_params([*shift, *turn], BRAIN_CENTER)
    to_center = np.eye(4)
    to_center[:3, 3] = BRAIN_CENTER
    affine = place @ to_center @ scale @ np.linalg.inv(to_center)
    return Head(field.astype(np.float32), grid, affine)


@cache
def _field_grid() -> tuple[Array, NDArray[np.bool_]]:
    """Affine of the displacement's grid, and the brain on it."""
    gm, wm = (load_template(SPACE, name, FIELD_MM) for name in ("GM", "WM"))
    return gm.affine, (gm.data + wm.data) > 0.2


def draw_reposition(mm: float, degrees: float, rng: np.random.Generator) -> Array:
    """A rigid movement (4, 4), uniform to `mm` and `degrees` each way: lying down anew."""
    turn = np.deg2rad(rng.uniform(-degrees, degrees, 3))
    return pose_from_params([*rng.uniform(-mm, mm, 3), *turn], BRAIN_CENTER)


def jacobian(displacement: NDArray, zoom: float) -> Array:
    """Determinant (x, y, z) of `I + grad d`: below 0 the deformation folds."""
    gradient = np.stack(
        [np.stack(np.gradient(part, zoom), axis=-1) for part in displacement], axis=-2
    )
    return np.asarray(np.linalg.det(np.eye(3) + gradient))


@cache
def brain_points() -> Array:
    """Template points (n, 3) of the brain, 4 mm apart."""
    grid, inside = _field_grid()
    return _apply(grid, np.argwhere(inside).astype(float))


@cache
def template_maps() -> dict[str, Image]:
    """T1w and GM, WM, CSF (0 to 1) at 2 mm; CSF is what of the brain is neither GM nor WM."""
    t1w, gm, wm = (load_template(SPACE, name, 2.0) for name in ("T1w", "GM", "WM"))
    inside = gaussian_filter((t1w.data > 0.05).astype(np.float32), 0.5)
    csf = np.clip(inside - gm.data - wm.data, 0, 1)
    return {"T1w": t1w, "GM": gm, "WM": wm, "CSF": Image(csf, t1w.affine)}


@cache
def _brain_box() -> tuple[Array, Array]:
    """Lowest and highest template coordinates (3,) of the brain, mm."""
    t1w = template_maps()["T1w"]
    inside = np.argwhere(t1w.data > 0)
    low, high = _apply(t1w.affine, np.stack([inside.min(axis=0), inside.max(axis=0)]))
    return low - 4, high + 4


def sample(image: Image, points: Points, order: int = 1) -> Floats:
    """Values (n,) of a template image at template points (n, 3); 0 outside."""
    place = _apply(np.linalg.inv(image.affine), points).T
    return np.asarray(map_coordinates(image.data, place, order=order, output=np.float32))


def grid_points(shape: tuple[int, ...]) -> Array:
    """Voxel indices (n, 3) of a grid, in C order."""
    return np.moveaxis(np.indices(shape), 0, -1).reshape(-1, 3).astype(float)


def centered_grid(
    fov: tuple[float, float, float], zoom: float, center: Array, turn: Array | None = None
) -> tuple[Array, tuple[int, int, int]]:
    """Affine and shape of a grid of `zoom` mm about `center`, its axes turned by `turn`."""
    x, y, z = (max(1, round(length / zoom)) for length in fov)
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) * zoom
    affine[:3, 3] = center - affine[:3, :3] @ ((np.array([x, y, z]) - 1) / 2)
    return affine, (x, y, z)


def make_t1w(head: Head, zoom: float, skull: bool, rng: np.random.Generator) -> Image:
    """T1w image (int16) with intensity bias (about +-20%) and Rician noise (2%)."""
    affine, shape = centered_grid(T1W_FOV, zoom, BRAIN_CENTER)
    source = _t1w_template(1.0 if zoom <= 2 else zoom / 2)
    points = _apply(affine, grid_points(shape))
    near = head.near(points)
    signal = np.zeros(len(points), dtype=np.float32)
    signal[near] = sample(source, head.to_template(points[near]))
    signal = signal.reshape(shape)
    if skull:
        signal += shell(signal > 0.1, zoom) * 0.85
    signal = signal * 1000 * smooth_bias(shape, 0.12, rng)
    noise = rng.normal(0, 20, (2, *shape))
    measured = np.hypot(signal + noise[0], noise[1])
    return Image(np.clip(np.round(measured), 0, 32767).astype(np.int16), affine)


@cache
def _t1w_template(zoom: float) -> Image:
    return load_template(SPACE, "T1w", zoom)


def shell(brain: NDArray[np.bool_], zoom: float) -> Floats:
    """Scalp (0 to 1) around a brain mask: 5 mm of fat beyond 7 mm of dark bone."""
    distance = distance_transform_edt(~brain, sampling=zoom)
    scalp = ((distance > 7) & (distance <= 12)).astype(np.float32)
    return np.asarray(gaussian_filter(scalp, 0.5))


def smooth_bias(shape: tuple[int, ...], size: float, rng: np.random.Generator) -> Floats:
    """A positive field (x, y, z), exp of a random quadratic with SD `size` over the grid."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij", sparse=True)
    weights = rng.standard_normal(6)
    field = sum(w * axis for w, axis in zip(weights[:3], axes, strict=True))
    field = field + sum(w * (axis**2 - 1 / 3) for w, axis in zip(weights[3:], axes, strict=True))
    return np.exp(size * (field - field.mean()) / field.std()).astype(np.float32)


def _apply(affine: Points, points: Points) -> Array:
    return np.asarray(points @ affine[:3, :3].T + affine[:3, 3], dtype=float)
