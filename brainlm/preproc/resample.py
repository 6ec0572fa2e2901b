"""The one interpolation: every raw volume straight onto the standard grid.

For each volume the way from the grid to the raw voxels is one matrix,

    voxel = inv(bold affine) . pose of the volume . boldref_to_mni . grid affine . index,

where a nonlinear warp, if there is one, moves the grid's points before boldref_to_mni does, and
susceptibility distortion, if it is known, moves the points of boldref along the phase-encoding
axis to where EPI shows them, before the pose does (the field is taken to move with the head);
so the data are interpolated once, whatever the number of transforms (Glasser et al. 2013,
NeuroImage 80:105). Cubic B-splines blur least of the affordable kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geometry import Array
from ..series import Series, Volume
from ..threads import map_in_order
from ..warps import Warp
from .distortion import Shift
from .masks import dilate
from .pyramid import inside, sample, spline_coefficients, voxel_sizes
from .slicetiming import SliceTimed

Mask = NDArray[np.bool_]

#: Voxels around the template's brain that are computed too, for the eyes and for smoothing.
_RIM_MM = 4.0
#: A voxel with less than this share of the brain's median intensity shows no tissue.
_SIGNAL_SHARE = 0.05


@dataclass(frozen=True)
class StandardGrid:
    """Where to sample, and what is known about the brain there."""

    affine: Array  # (4, 4)
    brain: Mask  # (x, y, z), the template's brain

    @property
    def wanted(self) -> Mask:
        """The voxels to compute: the brain and a rim."""
        return dilate(self.brain, voxel_sizes(self.affine), _RIM_MM)


class Resampler:
    """Brings volumes onto the grid one by one, and learns which voxels are usable.

    Iterate over `volumes()` to the end; then `mask()` tells where all volumes have data.
    """

    def __init__(
        self,
        series: Series | SliceTimed,
        poses: Array,
        boldref_to_mni: Array,
        grid: StandardGrid,
        *,
        order: int,
        warp: Warp | None = None,
        shift: Shift | None = None,
        modulate: bool = False,
    ):
        """Prepare; `poses` (T, 4, 4) are the head's in each volume of the raw `series`.

        `shift` is the distortion on the grid of boldref; with `modulate` the values are also
        multiplied by how far it stretches tissue.
        """
        self.series = series
        self.order = order
        self.grid = grid
        self.wanted = grid.wanted
        indices = np.argwhere(self.wanted).T
        homogeneous: Array = np.vstack([indices, np.ones(indices.shape[1])])
        points = boldref_to_mni @ grid.affine @ homogeneous
        if warp is not None:
            points[:3] += boldref_to_mni[:3, :3] @ warp.at(grid.affine @ homogeneous)
        gain: Array = np.ones(points.shape[1])
        if shift is not None:
            gain = np.clip(shift.jacobian_at(points), 0, None) if modulate else gain
            points[:3] += shift.at(points)
        to_voxels = np.linalg.inv(series.affine)
        self._pulls = [to_voxels @ pose for pose in poses]
        self._points = points
        # The field of view of the whole run is that of all its volumes together.
        self.in_view = np.ones(points.shape[1], dtype=bool)
        for pull in self._pulls:
            self.in_view &= inside((pull @ points)[:3], series.shape)
        self._visible = points[:, self.in_view]
        self._gain = gain[self.in_view].astype(np.float32)
        self._sum = np.zeros(self._visible.shape[1])
        self._squares = np.zeros(self._visible.shape[1])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (x, y, z, T) of the result."""
        return (*self.wanted.shape, self.series.shape[3])

    @property
    def reach(self) -> Mask:
        """The voxels (x, y, z) that may turn out to be usable."""
        return self.grid.brain

    def volumes(self, threads: int = 1) -> Iterator[Volume]:
        """Yield each volume on the grid: (x, y, z) float32, 0 outside the field of view."""
        first = None
        for values in map_in_order(self._one, enumerate(self.series.volumes()), threads):
            first = values if first is None else first
            difference = values - first  # against cancellation in the sum of squares
            self._sum += difference
            self._squares += difference.astype(float) ** 2
            volume = np.zeros(self.wanted.shape, dtype=np.float32)
            volume[self.wanted] = self._spread(values)
            yield volume
        self._first = first

    def mask(self) -> Mask:
        """Brain voxels (x, y, z) inside every volume's field of view that hold a signal."""
        count = self.series.shape[3]
        assert self._first is not None
        mean = self._first + self._sum / count
        varies = self._squares / count - (self._sum / count) ** 2 > 0
        inside_brain = self.grid.brain[self.wanted][self.in_view]
        positive = mean[inside_brain & (mean > 0)]
        floor = _SIGNAL_SHARE * np.median(positive) if positive.size else np.inf
        mask = np.zeros(self.wanted.shape, dtype=bool)
        mask[self.wanted] = self._spread(varies & (mean > floor) & inside_brain) > 0
        return mask

    def _one(self, item: tuple[int, Volume]) -> Volume:
        number, volume = item
        coefficients = spline_coefficients(volume, self.series.affine, order=self.order)
        voxels = (self._pulls[number] @ self._visible)[:3]
        # A spline overshoots at sharp edges; MR magnitudes are never negative.
        return np.clip(sample(coefficients, voxels, self.order), 0, None) * self._gain

    def _spread(self, values: NDArray) -> Volume:
        """Values of the visible voxels, as values of all wanted ones."""
        spread = np.zeros(self.in_view.size, dtype=np.float32)
        spread[self.in_view] = values
        return spread
