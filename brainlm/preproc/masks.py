"""Masks from intensity alone: the head in a T1w image, the brain in a BOLD reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]


def otsu_threshold(values: NDArray, bins: int = 256) -> float:
    """The threshold that separates two classes best (Otsu 1979, IEEE Trans. SMC 9:62).

    Values outside the 1st to 99th percentile are clipped first, so that a few bright
    voxels (vessels, eyes, fat) do not stretch the histogram.
    """
    low, high = np.percentile(values, (1, 99))
    if high <= low:
        return float(low)
    counts, edges = np.histogram(np.clip(values, low, high), bins=bins)
    centers = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sum_below = np.cumsum(counts * centers)
    valid = (below > 0) & (above > 0)
    mean_gap = sum_below[valid] / below[valid] - (sum_below[-1] - sum_below[valid]) / above[valid]
    between = below[valid].astype(float) * above[valid] * mean_gap**2
    return float(centers[valid][np.argmax(between)])


def foreground_mask(image: NDArray, sizes: NDArray, radius_mm: float = 4.0) -> Mask:
    """The one large bright object of an image (x, y, z) with voxel `sizes` (3,) in mm.

    Otsu's threshold, an opening that cuts thin bridges (to the eyes, to the neck's
    vessels), the largest component, a closing that bays the sulci, and filled holes.
    """
    mask = image > otsu_threshold(image)
    ball = _ball(sizes, radius_mm)
    opened = ndimage.binary_opening(mask, ball)
    mask = largest_component(opened if opened.any() else mask)
    pad = tuple(size // 2 for size in ball.shape)
    # Padding keeps the closing from eating the mask at the edge of the field of view.
    padded = np.pad(mask, [(width, width) for width in pad], mode="edge")
    closed = ndimage.binary_closing(padded, ball)
    inner = tuple(
        slice(width, width + length) for width, length in zip(pad, mask.shape, strict=True)
    )
    return np.asarray(ndimage.binary_fill_holes(closed[inner] | mask))


def largest_component(mask: Mask) -> Mask:
    """The largest face-connected part of a mask."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return np.asarray(mask, dtype=bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def dilate(mask: Mask, sizes: NDArray, radius_mm: float) -> Mask:
    """Grow a mask by `radius_mm`."""
    return np.asarray(ndimage.distance_transform_edt(~mask, sampling=sizes) <= radius_mm)


def dice(first: Mask, second: Mask) -> float:
    """Dice's overlap: 1 for equal masks, 0 for disjoint ones."""
    total = int(first.sum()) + int(second.sum())
    return float(2 * (first & second).sum() / total) if total else 0.0


def _ball(sizes: NDArray, radius_mm: float) -> Mask:
    """A ball of `radius_mm` on the voxel grid, at least one voxel in each direction."""
    reach = np.maximum(1, np.round(radius_mm / np.asarray(sizes))).astype(int)
    steps = np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij")
    distance = sum((step / r) ** 2 for step, r in zip(steps, reach, strict=True))
    return np.asarray(distance <= 1.0 + 1e-6)
