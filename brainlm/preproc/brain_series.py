"""The normalised series of the brain's voxels, held whole and written nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..scratch import make_array
from ..series import Volume

Mask = NDArray[np.bool_]


class Source(Protocol):
    """What brings a run to the grid volume by volume: `Resampler`, `Adopted`."""

    @property
    def reach(self) -> Mask:
        """The voxels (x, y, z) that may turn out to be usable."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (x, y, z, T) of the result."""

    def volumes(self, threads: int = 1) -> Iterator[Volume]:
        """Yield each volume on the grid."""

    def mask(self) -> Mask:
        """The usable voxels, once all volumes have been seen."""


def brain_series(
    source: Source, threads: int = 1, mem_gb: float | None = None
) -> tuple[NDArray[np.float32], Mask]:
    """Bring a whole run to the grid; return its usable voxels (T, n) and their mask (x, y, z).

    The voxels stand in the order of `volume[mask]`. Which are usable is known only when the last
    volume has been seen, so all that may be is collected first and then moved
    together in the same memory: T x brain voxels x 4 bytes are held, and no second copy; in a
    scratch file where the process may not take more than `mem_gb`.
    """
    brain = source.reach
    count, width = source.shape[3], int(brain.sum())
    held = make_array((count, width), np.float32, mem_gb)
    for number, volume in enumerate(source.volumes(threads)):
        held[number] = volume[brain]
    mask = source.mask()
    usable = mask[brain]
    kept = int(usable.sum())
    flat = held.reshape(-1)
    for number in range(count):  # a row never moves past its own beginning
        flat[number * kept : (number + 1) * kept] = held[number][usable]
    return flat[: count * kept].reshape(count, kept), mask
