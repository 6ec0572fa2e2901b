"""A series that another pipeline brought to a standard space, on the study's grid.

Where its voxels lie on the study's lattice (whatever the order in which they are stored) the
values are taken as they are; else they are interpolated once, as raw data are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..geometry import Array
from ..images import Image
from ..series import Series, Volume
from ..threads import map_in_order
from .pyramid import inside, sample, spline_coefficients, voxel_sizes

Mask = NDArray[np.bool_]
#: World points (3, n) of the template, mm -> world points (3, n) of the series' own space.
Way = Callable[[Array], Array]

#: Voxels that lie closer than this to one of the series' are that voxel, mm.
_SAME_MM = 0.01
#: Largest believable share of a brain mask without a number at some time.
_MOST_LOST = 0.05
#: Smallest believable share of the template's brain that a mask covers.
_LEAST_BRAIN = 0.2


@dataclass(frozen=True)
class Grid:
    """Where to sample, and what of it the template calls brain."""

    affine: Array  # (4, 4)
    brain: Mask  # (x, y, z)


class Adopted:
    """Brings a series' volumes onto the grid one by one, and learns which voxels are usable.

    Iterate over `volumes()` to the end; then `mask()` and `mean()` tell about the whole run.
    """

    def __init__(
        self, series: Series, grid: Grid, brain: Image | None, *, order: int, way: Way | None = None
    ):
        """Prepare; `brain` is the run's mask on any grid of the series' space.

        Without one, every voxel counts that the template calls brain and that varies. `way` leads
        from the template to the series' space, where they differ.
        """
        self.series, self.grid, self._order = series, grid, order
        candidates = np.argwhere(_reach(grid, brain is not None)).T
        points: Array = grid.affine[:3, :3] @ candidates + grid.affine[:3, 3:]
        if way is not None:
            points = way(points)
        kept: Mask = np.asarray(np.isfinite(points).all(axis=0))
        kept[kept] = inside(_to_voxels(series.affine, points[:, kept]), series.shape)
        if brain is not None:
            kept[kept] = _nearest(brain, points[:, kept]) > 0.5
        self._places = tuple(candidates[:, kept])
        self._voxels = _to_voxels(series.affine, points[:, kept])
        off = np.abs(self._voxels - np.round(self._voxels)).max(axis=1, initial=0)
        self.moved = bool((off * voxel_sizes(series.affine) > _SAME_MM).any())
        if not self.moved:
            self._index = tuple(np.round(self._voxels).astype(int))
        n = self._voxels.shape[1]
        self._sum, self._squares = np.zeros(n), np.zeros(n)
        self._finite = np.ones(n, dtype=bool)
        self._count = 0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape (x, y, z, T) of the result."""
        x, y, z = self.grid.brain.shape
        return (x, y, z, self.series.shape[3])

    @property
    def reach(self) -> Mask:
        """The voxels (x, y, z) that may turn out to be usable."""
        reach: Mask = np.zeros(self.grid.brain.shape, dtype=bool)
        reach[self._places] = True
        return reach

    def volumes(self, threads: int = 1) -> Iterator[Volume]:
        """Yield each volume on the grid: (x, y, z) float32, 0 outside the brain."""
        first: Volume | None = None
        for values in map_in_order(self._on_grid, self.series.volumes(), threads):
            finite = np.isfinite(values)
            self._finite &= finite
            values = np.where(finite, values, 0).astype(np.float32)
            first = values if first is None else first
            difference = values.astype(float) - first  # against cancellation
            self._sum += difference
            self._squares += difference**2
            self._count += 1
            yield self._spread(values)
        self._first = first

    def mask(self) -> Mask:
        """Brain voxels (x, y, z) that hold a number at all times and vary."""
        file = self.series.path
        mean = self._sum / self._count
        varies = self._squares / self._count - mean**2 > 0
        if (lost := float(1 - self._finite.mean()) if self._finite.size else 0.0) > _MOST_LOST:
            raise DataError(
                f"{lost:.0%} of the voxels in its brain mask are NaN or infinite at some time",
                file=file,
                fix="make it anew with the pipeline that wrote it, or exclude the run",
            )
        mask = self._spread((varies & self._finite).astype(np.float32)) > 0
        share = (mask & self.grid.brain).sum() / self.grid.brain.sum()
        if share < _LEAST_BRAIN:
            raise DataError(
                f"Only {share:.0%} of the template's brain holds data that vary",
                file=file,
                fix="check its brain mask and that it lies in the space that its name says; "
                "or exclude the run",
            )
        return np.asarray(mask)

    def mean(self) -> Volume:
        """The mean volume (x, y, z)."""
        assert self._first is not None
        return self._spread((self._first + self._sum / self._count).astype(np.float32))

    def _on_grid(self, volume: Volume) -> NDArray[np.float32]:
        if not self.moved:
            return np.asarray(volume[self._index])
        # One voxel without a number would spread over the whole volume in the spline's filter.
        known = np.isfinite(volume)
        filled = volume if known.all() else np.where(known, volume, 0)
        coefficients = spline_coefficients(filled, self.series.affine, order=self._order)
        values = sample(coefficients, self._voxels, self._order)
        if not known.all():
            nearest = np.round(self._voxels).astype(int)
            limit = np.array(volume.shape)[:, None] - 1
            values[~known[tuple(np.clip(nearest, 0, limit))]] = np.nan
        return values

    def _spread(self, values: NDArray) -> Volume:
        volume = np.zeros(self.grid.brain.shape, dtype=np.float32)
        volume[self._places] = values
        return volume


def _reach(grid: Grid, masked: bool) -> Mask:
    """The voxels of the grid that may hold data: all where the run has a mask of its own."""
    return np.ones_like(grid.brain) if masked else grid.brain


def _to_voxels(affine: Array, points: Array) -> Array:
    inverse = np.linalg.inv(affine)
    return np.asarray(inverse[:3, :3] @ points + inverse[:3, 3:])


def _nearest(image: Image, points: Array) -> NDArray:
    """The value (n,) of the voxel that holds each world point (3, n); 0 outside the image."""
    # Rounded first, so that 2.4999999999 and 2.5 go the same way on every machine.
    voxels = np.floor(np.round(_to_voxels(image.affine, points), 6) + 0.5).astype(int)
    limits = np.array(image.data.shape[:3])[:, None]
    there = ((voxels >= 0) & (voxels < limits)).all(axis=0)
    values = np.zeros(points.shape[1], dtype=image.data.dtype)
    values[there] = image.data[tuple(voxels[:, there])]
    return values
