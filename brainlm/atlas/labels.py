"""Label images: reading them, counting them, moving them to another grid."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, InputError
from ..geometry import Array
from ..images import Image, read_image

#: Of a grid on which labels are counted: a brain in voxels of 0.15 mm.
_MOST_VOXELS = 1e9


def read_labels(path: str | Path) -> Image:
    """Read a 3-D image of whole label numbers (0 is outside) as int16."""
    path = Path(path)
    if path.is_file() and path.stat().st_size == 0:
        raise InputError("The atlas image is empty", file=path, fix="copy it anew from its source")
    image = read_image(path)
    data = image.data
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise InputError(
            f"An atlas image has three dimensions, this has {data.ndim}",
            file=path,
            fix="take the image of labels, not a series or one map for each region",
        )
    if not np.isfinite(data).all() or (data != np.round(data)).any():
        raise InputError(
            "An atlas image holds whole label numbers, this one holds others too",
            file=path,
            fix="probabilistic maps must be made into labels first",
        )
    limits = np.iinfo(np.int16)
    if data.min() < 0 or data.max() > limits.max:
        raise InputError(
            f"Label numbers must lie between 0 and {limits.max}",
            file=path,
            fix="number the labels anew, in the image and in its table",
        )
    return Image(data.astype(np.int16), image.affine)


def label_sizes(labels: NDArray) -> dict[int, int]:
    """Voxels of each label that occurs, 0 left out."""
    numbers, counts = np.unique(labels[labels > 0], return_counts=True)
    return {int(number): int(count) for number, count in zip(numbers, counts, strict=True)}


def resample_labels(labels: Image, affine: Array, shape: Sequence[int]) -> NDArray[np.int16]:
    """The labels (int16) on another grid: for each voxel, the label at its centre.

    Nearest neighbour in world space, so orientation and origin may differ; 0 outside the
    labels' own grid. A centre on a border goes to the voxel of the higher index.
    """
    step = np.linalg.inv(labels.affine) @ affine
    i, j, k = (np.arange(n, dtype=float) for n in shape[:3])
    moved = np.zeros(tuple(shape[:3]), dtype=np.int16)
    limits = np.array(labels.data.shape)[:, None, None]
    for index in i:  # by planes: a few MB at a time
        plane = (
            step[:3, 0, None, None] * index
            + step[:3, 1, None, None] * j[:, None]
            + step[:3, 2, None, None] * k
            + step[:3, 3, None, None]
        )
        # Rounded first, so that 2.4999999999 and 2.5 go the same way on every machine.
        source = np.floor(np.round(plane, 6) + 0.5).astype(int)
        inside = ((source >= 0) & (source < limits)).all(axis=0)
        x, y, z = source[:, inside]
        moved[int(index)][inside] = labels.data[x, y, z]
    return moved


def beyond_grid(
    labels: Image, affine: Array, shape: Sequence[int], numbers: NDArray
) -> NDArray[np.int64]:
    """How many voxels of each label in `numbers` (n,) lie beyond the grid's edges, (n,).

    The grid's lattice is thought to go on. An image that shows half of a parcel has half of its
    voxels: without these, it would seem to cover all of it.
    """
    inside = np.argwhere(labels.data > 0)
    if not len(inside):
        return np.zeros(len(numbers), dtype=np.int64)
    box = product(*zip(inside.min(axis=0) - 0.5, inside.max(axis=0) + 0.5, strict=True))
    way = np.linalg.inv(affine) @ labels.affine
    corners = np.array(list(box)) @ way[:3, :3].T + way[:3, 3]
    # The labels' own box, however far from the image a header puts it.
    first = np.ceil(np.round(corners.min(axis=0), 6)).astype(int)
    end = np.floor(np.round(corners.max(axis=0), 6)).astype(int) + 1
    if (first >= 0).all() and (end <= np.array(shape[:3])).all():
        return np.zeros(len(numbers), dtype=np.int64)
    size = np.maximum(end - first, 1)
    if np.prod(size, dtype=float) > _MOST_VOXELS:
        raise DataError(
            "The header gives voxels so small that no brain would fit into the memory",
            fix="convert the series anew, or copy the header of an image on the same grid",
        )
    wider = np.array(affine, dtype=float)
    wider[:3, 3] += wider[:3, :3] @ first
    moved = resample_labels(labels, wider, size)
    seen = zip(first, shape, strict=False)
    moved[tuple(slice(max(0, -a), max(0, n - a)) for a, n in seen)] = 0
    sizes = label_sizes(moved)
    return np.array([sizes.get(int(number), 0) for number in numbers], dtype=np.int64)
