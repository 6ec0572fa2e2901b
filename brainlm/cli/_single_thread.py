"""Numerical libraries kept to one thread, so that sums are always taken in the same order."""

from __future__ import annotations

import os

from ..threads import ONE_THREAD


def pin_libraries() -> None:
    """Fix threads and seeds through the environment; call it before numpy or ants is imported.

    The libraries read these once, when they load. With more threads than one they split sums
    by the number of cores, and ANTs draws its samples anew in every process: the same data
    would give other bytes. Commands with `--threads` spread whole volumes instead.
    """
    os.environ.update(ONE_THREAD)
