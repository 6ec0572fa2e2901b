"""Whether two images of one head lie at the same place of the world."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..geometry import Array

#: Smallest believable share of the smaller image's box that the other one covers.
MIN_OVERLAP = 0.25


def box_overlap(
    affine_a: Array, shape_a: Sequence[int], affine_b: Array, shape_b: Sequence[int]
) -> float:
    """Share (0 to 1) of the smaller bounding box, along R, A, S in mm, inside the other."""
    low_a, high_a = _box(affine_a, shape_a)
    low_b, high_b = _box(affine_b, shape_b)
    common = np.clip(np.minimum(high_a, high_b) - np.maximum(low_a, low_b), 0, None).prod()
    return float(common / min((high_a - low_a).prod(), (high_b - low_b).prod()))


def _box(affine: Array, shape: Sequence[int]) -> tuple[Array, Array]:
    """Lowest and highest world coordinate (3,) of a grid's outer corners."""
    ends = [(-0.5, n - 0.5) for n in shape[:3]]
    corners = np.array(np.meshgrid(*ends, [1.0])).reshape(4, -1)
    world = (np.asarray(affine) @ corners)[:3]
    return world.min(axis=1), world.max(axis=1)
