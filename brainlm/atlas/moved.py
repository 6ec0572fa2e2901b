"""Labels on the grid of the data, moved there once for all recordings on that grid."""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ResourceError
from ..fetch import cache_dir
from ..files import atomic_path
from ..geometry import Array, same_grid
from ..images import Image
from .labels import resample_labels

#: Goes into the name of what is kept: raise it when `resample_labels` gives other labels.
_VERSION = 1


def labels_on_grid(
    labels: Image, affine: Array, shape: Sequence[int]
) -> tuple[NDArray[np.int16], bool]:
    """The labels (int16) on a grid, compared in world space, and whether they had to be moved.

    What was moved is kept in the cache (BRAINLM_CACHE, else ~/.cache/brainlm), under a digest of
    the labels and both grids: a cohort on one grid moves them once. A damaged or unwritable cache
    costs time and nothing else.
    """
    if same_grid(labels.affine, labels.data.shape, affine, shape):
        return labels.data, False
    kept = cache_dir("labels") / f"{_digest(labels, affine, shape)}.npz"
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return _read(kept, shape), True
    moved = resample_labels(labels, affine, shape)
    with contextlib.suppress(OSError, ResourceError), atomic_path(kept) as temporary:
        np.savez_compressed(temporary, labels=moved)
    return moved, True


def _read(path: Path, shape: Sequence[int]) -> NDArray[np.int16]:
    with np.load(path, allow_pickle=False) as archive:  # its members carry a checksum
        moved: NDArray[np.int16] = archive["labels"]
    if moved.shape != tuple(shape[:3]) or moved.dtype != np.int16:
        raise ValueError("not the labels that the name promises")
    return moved


def _digest(labels: Image, affine: Array, shape: Sequence[int]) -> str:
    digest = hashlib.sha256(f"{_VERSION} {labels.data.shape} {tuple(shape[:3])}".encode())
    for part in (labels.data.astype(np.int16), labels.affine, np.asarray(affine, dtype=float)):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
