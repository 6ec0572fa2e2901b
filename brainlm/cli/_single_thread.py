"""Numerical libraries kept to one thread, so that sums are always taken in the same order."""

from __future__ import annotations

import os

_ONE = {
    "ANTS_RANDOM_SEED": "1",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def pin_libraries() -> None:
    """Fix threads and seeds through the environment; call it before numpy or ants is imported.

    The libraries read these once, when they load. With more threads than one they split sums
    by the number of cores, and ANTs draws its samples anew in every process: the same data
    would give other bytes. Commands with `--threads` spread whole volumes instead.
    """
    os.environ.update(_ONE)
