"""Slice timing: every slice of a volume as it would have been at one moment.

A slice acquired `t_k` seconds into its volume holds, in volume `n`, the signal at `n TR + t_k`.
What is wanted is the signal at `n TR + r`, which lies `s_k = (r - t_k) / TR` volumes further on:

    y_k[n] = sum over m of x_k[n + m] eta(s_k - m),

with `eta` the cardinal cubic spline, the interpolating kernel of cubic splines (Unser 1999, IEEE
Signal Processing Magazine 16(6):22). It falls off by 3.7 with each volume, so that it can be cut
at `REACH` volumes and the run be streamed: at no time are more than 2 REACH + 1 volumes held, and
a spike does not ring through the run as with a sinc.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geometry import Array
from ..series import Series, Volume

#: Volumes on either side that the kernel sees; what is cut off is below 1e-4.
REACH = 9
#: Slices that differ less than this, s, were acquired together (a 3-D sequence).
_TOGETHER_S = 1e-3
#: With fewer volumes there is nothing to interpolate between.
_FEWEST_VOLUMES = 5
#: The pole of the cubic spline's prefilter.
_POLE = np.sqrt(3.0) - 2.0


@dataclass(frozen=True)
class SliceTimed:
    """A series whose slices have all been moved to the same moment of their volume."""

    series: Series
    weights: NDArray[np.float32]  # (2 REACH + 1, slices), what each neighbour in time adds
    ignored: int = 0  # volumes at the start that are passed on and not used for others

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape (x, y, z, T)."""
        return self.series.shape

    @property
    def affine(self) -> Array:
        """Voxel index to RAS mm, (4, 4)."""
        return self.series.affine

    def volumes(self) -> Iterator[Volume]:
        """Yield each volume (x, y, z); the run is continued by its mirror image at both ends."""
        count, source = self.shape[3], self.series.volumes()
        held: dict[int, Volume] = {}
        read = 0
        for number in range(count):
            while read <= min(number + REACH, count - 1):
                held[read] = next(source)
                read += 1
            if number < self.ignored:
                yield held.pop(number)
                continue
            total = np.zeros(self.shape[:3], dtype=np.float32)
            for place, weight in enumerate(self.weights):
                neighbour = _mirrored(number + place - REACH, self.ignored, count - 1)
                total += held[neighbour] * weight
            yield total
            if count - self.ignored > 2 * REACH:
                held.pop(number - REACH, None)


def to_one_moment(
    series: Series,
    slice_times: Sequence[float] | None,
    *,
    tr: float,
    reference: float,
    ignored: int = 0,
    switched_off: bool = False,
) -> tuple[Series | SliceTimed, dict[str, object]]:
    """The series with its slices at one moment, and what a sidecar says of it.

    `slice_times` in s along the third axis of the stored volume. The moment lies at the share
    `reference` between the first and the last slice's time, as in fMRIPrep: 0.5 is the middle.
    `ignored` volumes at the start, before the steady state, are left as they are.
    """
    reason = "switched off" if switched_off else _why_not(series, slice_times, ignored)
    if reason or slice_times is None:
        return series, {"SliceTimingCorrected": False, "WhyNoSliceTiming": reason}
    times = np.asarray(slice_times, dtype=float)
    moment = float(times.min() + reference * (times.max() - times.min()))
    weights = kernel_weights((moment - times) / tr)
    about: dict[str, object] = {"SliceTimingCorrected": True, "StartTime": round(moment, 6)}
    return SliceTimed(series, weights, ignored), about


def kernel_weights(shifts: Array) -> NDArray[np.float32]:
    """Weights (2 REACH + 1, n) of the volumes around, for `shifts` (n,) in volumes.

    Each column sums to 1, so that a constant stays what it is.
    """
    offsets = np.arange(-REACH, REACH + 1)
    weights = _cardinal_spline(shifts[None, :] - offsets[:, None])
    return (weights / weights.sum(axis=0)).astype(np.float32)


def _cardinal_spline(x: Array) -> Array:
    """The kernel eta: 1 at 0, 0 at all other whole numbers, a cubic spline between them.

    It is the B-spline summed with the impulse response of its inverse filter,
    `c_j = -6 z / (1 - z^2) z^|j|` with the pole `z`.
    """
    near = np.rint(x)
    total = np.zeros(x.shape)
    for step in range(-2, 3):
        knot = near + step
        response = -6 * _POLE / (1 - _POLE**2) * _POLE ** np.abs(knot)
        total += response * _b_spline(x - knot)
    return total


def _b_spline(x: Array) -> Array:
    """The cubic B-spline."""
    far = np.abs(x)
    middle = 2 / 3 - far**2 + far**3 / 2
    tail = np.clip(2 - far, 0, None) ** 3 / 6
    return np.where(far < 1, middle, tail)


def _mirrored(index: int, first: int, last: int) -> int:
    """`index` reflected into [first, last], as in 2 1 0 1 2 ... without repeating the ends."""
    period = 2 * (last - first)
    if period == 0:
        return first
    place = (index - first) % period
    return first + min(place, period - place)


def _why_not(series: Series, slice_times: Sequence[float] | None, ignored: int) -> str:
    """Why the run's slices stay as they are; empty when they can be moved."""
    if slice_times is None:
        return "no usable SliceTiming"
    if len(slice_times) != series.shape[2]:
        return f"{len(slice_times)} slice times for {series.shape[2]} slices"
    if max(slice_times) - min(slice_times) < _TOGETHER_S:
        return "all slices were acquired together"
    if series.shape[3] - ignored < _FEWEST_VOLUMES:
        return f"fewer than {_FEWEST_VOLUMES} volumes"
    return ""
