"""The normalised series of the brain's voxels, held whole and written nowhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..scratch import make_array
from .resample import Mask, Resampler


def brain_series(
    resampler: Resampler, threads: int = 1, mem_gb: float | None = None
) -> tuple[NDArray[np.float32], Mask]:
    """Resample a whole run; return its usable voxels (T, n) and their mask (x, y, z).

    The voxels stand in the order of `volume[mask]`. Which are usable is known only when the last
    volume has been seen, so the template's whole brain is collected first and then moved
    together in the same memory: T x brain voxels x 4 bytes are held, and no second copy; in a
    scratch file where the process may not take more than `mem_gb`.
    """
    brain = resampler.grid.brain
    count, width = resampler.shape[3], int(brain.sum())
    held = make_array((count, width), np.float32, mem_gb)
    for number, volume in enumerate(resampler.volumes(threads)):
        held[number] = volume[brain]
    mask = resampler.mask()
    usable = mask[brain]
    kept = int(usable.sum())
    flat = held.reshape(-1)
    for number in range(count):  # a row never moves past its own beginning
        flat[number * kept : (number + 1) * kept] = held[number][usable]
    return flat[: count * kept].reshape(count, kept), mask
