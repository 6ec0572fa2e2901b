"""The brain on a run's own grid: its bright object, where registration says that brain is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..geometry import Array
from ..images import Image
from .grids import resample_onto, shrink
from .masks import Mask, dilate, largest_component

#: Voxel size (mm) on which a brain is carried over: half of a fine BOLD voxel.
_CARRIED_MM = 1.5


def pull_brain(
    brain: Image, grid: Array, shape: tuple[int, ...], grid_to_brain: Array
) -> tuple[NDArray[np.float32], Mask]:
    """The share of brain (x, y, z), 0 to 1, in each voxel of a grid, and where `brain` reaches.

    `brain` is positive inside; `grid_to_brain` maps points of `brain` to points of the grid, as
    a `from-grid_to-brain` file does.
    """
    inside = Image((brain.data > 0).astype(np.float32), brain.affine)
    to_brain = np.asarray(np.linalg.inv(grid_to_brain), dtype=float)
    return resample_onto(shrink(inside, _CARRIED_MM), grid, shape, to_brain)


def refine_mask(foreground: Mask, brain_share: NDArray, sizes: Array) -> Mask:
    """What of the bright object `foreground` (x, y, z) is brain, to within a voxel.

    Intensity knows the edge and where signal is lost; registration, wrong by up to a
    voxel, knows what eyes, scalp and neck are. So the latter is grown by a voxel (`sizes` in mm)
    before the two are intersected, holes are filled and crumbs left out.
    """
    near = dilate(brain_share > 0.5, sizes, float(sizes.max()) * 1.01)
    return np.asarray(ndimage.binary_fill_holes(largest_component(foreground & near)))
