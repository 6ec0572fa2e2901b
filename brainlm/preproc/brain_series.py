"""The normalised series of the brain's voxels, held in memory and nowhere else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .resample import Mask, Resampler


def brain_series(resampler: Resampler, threads: int = 1) -> tuple[NDArray[np.float32], Mask]:
    """Resample a whole run; return its usable voxels (T, n) and their mask (x, y, z).

    The voxels stand in the order of `volume[mask]`. Which are usable is known only when the last
    volume has been seen, so the template's whole brain is collected first and then moved
    together in the same memory: T x brain voxels x 4 bytes are held, and no second copy.
    """
    brain = resampler.grid.brain
    count, width = resampler.shape[3], int(brain.sum())
    held = np.empty((count, width), dtype=np.float32)
    for number, volume in enumerate(resampler.volumes(threads)):
        held[number] = volume[brain]
    mask = resampler.mask()
    usable = mask[brain]
    kept = int(usable.sum())
    flat = held.reshape(-1)
    for number in range(count):  # a row never moves past its own beginning
        flat[number * kept : (number + 1) * kept] = held[number][usable]
    return flat[: count * kept].reshape(count, kept), mask
