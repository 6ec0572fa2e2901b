"""Room for large arrays: in memory while they fit a bound, else in a scratch file.

A scratch file lies in `$TMPDIR` and has no name, so nothing of it outlives the process, however
it ends. The system keeps in memory what of it is in use and takes that back when others ask.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .errors import ResourceError

#: What a stage takes besides its large arrays (the interpreter, its libraries, one volume at
#: several smoothness levels), GB; 0.25 to 0.4 were measured.
BASE_GB = 0.5


def make_array(
    shape: Sequence[int],
    dtype: DTypeLike,
    mem_gb: float | None = None,
    order: Literal["C", "F"] = "C",
) -> NDArray:
    """An array to be filled, in a process that may take `mem_gb` in all.

    None is no bound. The array's content is not set.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if mem_gb is None or size <= (mem_gb - BASE_GB) * 1e9:
        return np.empty(shape, dtype=dtype, order=order)
    try:
        with tempfile.TemporaryFile(prefix="brainlm-") as file:
            # Claimed now: a disk that fills up under a mapped file kills the process.
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype=dtype, mode="r+", shape=tuple(shape), order=order)
    except OSError as error:
        raise ResourceError(
            f"There is no room for {size / 1e9:.1f} GB of scratch: {error.strerror}",
            file=tempfile.gettempdir(),
            fix="set TMPDIR to a larger disk, or give the stage more memory",
        ) from None
