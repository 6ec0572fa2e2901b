"""Values of a cubic B-spline between the voxels, compiled.

Nearly all the time of motion estimation and of resampling goes into this one sum of 64 terms.
Compiled by numba, it takes a fifth of the time of `scipy.ndimage.map_coordinates` or less
(`tests/benchmarks/bench_resample.py`) and releases the interpreter's lock, so threads help.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..geometry import Array


def _compiled(function):  # type: ignore[no-untyped-def]
    """Compile once for all processes; where nothing may be written, once for this one."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:
        return njit(nogil=True)(function)


def sample_cubic(coefficients: NDArray[np.float32], voxels: Array) -> NDArray[np.float32]:
    """Values (n,) at the voxel coordinates (3, n) of a volume's cubic spline coefficients.

    Beyond its outermost voxels the volume is continued by its mirror image.
    """
    values = np.empty(voxels.shape[1], dtype=np.float32)
    _sample(
        np.ascontiguousarray(coefficients, dtype=np.float32),
        np.ascontiguousarray(voxels, dtype=np.float64),
        values,
    )
    return values


@_compiled
def _sample(coefficients, voxels, values):  # type: ignore[no-untyped-def]
    """Fill `values`; each is the sum of 4 x 4 x 4 coefficients, weighted along each axis."""
    index = np.empty((3, 4), np.int64)
    weight = np.empty((3, 4), np.float32)
    for n in range(values.size):
        for axis in range(3):
            size = coefficients.shape[axis]
            below = np.floor(voxels[axis, n])
            right = np.float32(voxels[axis, n] - below)
            left = np.float32(1) - right
            weight[axis, 0] = left * left * left / np.float32(6)
            weight[axis, 1] = _inner_weight(right)
            weight[axis, 2] = _inner_weight(left)
            weight[axis, 3] = right * right * right / np.float32(6)
            for place in range(4):
                index[axis, place] = _mirrored(int(below) - 1 + place, size)
        total = np.float32(0)
        for a in range(4):
            plane = np.float32(0)
            for b in range(4):
                row = np.float32(0)
                for c in range(4):
                    row += weight[2, c] * coefficients[index[0, a], index[1, b], index[2, c]]
                plane += weight[1, b] * row
            total += weight[0, a] * plane
        values[n] = total


@_compiled
def _inner_weight(distance):  # type: ignore[no-untyped-def]
    """The cubic B-spline at a distance in [0, 1] from its centre."""
    return np.float32(2 / 3) - distance * distance * (np.float32(2) - distance) * np.float32(0.5)


@_compiled
def _mirrored(index, size):  # type: ignore[no-untyped-def]
    """`index` reflected into [0, size), as in 2 1 0 1 2 ... without repeating the ends."""
    if 0 <= index < size:
        return index
    if size == 1:
        return 0
    period = 2 * (size - 1)
    index = index % period
    return min(index, period - index)
