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
    turned, size = np.asarray(affine)[:3, :3], np.array(shape[:3])
    centre = turned @ ((size - 1) / 2) + np.asarray(affine)[:3, 3]
    reach = np.abs(turned) @ (size / 2)
    return centre - reach, centre + reach
