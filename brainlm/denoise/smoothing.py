"""Gaussian smoothing inside a mask, and how smooth a series is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..geometry import FWHM_TO_SIGMA, Array

Series = NDArray[np.float32]
Mask = NDArray[np.bool_]


def smooth_in_mask(series: Series, mask: Mask, sizes_mm: Array, fwhm_mm: float) -> Series:
    """`series` (T, n) of the voxels of `mask` (x, y, z), smoothed by a Gaussian of `fwhm_mm`.

    Each value is a weighted mean of voxels inside the mask only, so its edge neither darkens
    nor takes anything in from outside.
    """
    box = ndimage.find_objects(mask.astype(np.int8))[0]
    inside = mask[box]
    sigma = fwhm_mm * FWHM_TO_SIGMA / sizes_mm

    def blur(volume: NDArray[np.float32]) -> NDArray[np.float32]:
        return ndimage.gaussian_filter(volume, sigma, mode="constant", truncate=3)[inside]

    weight = blur(inside.astype(np.float32))
    smooth = np.empty_like(series)
    volume = np.zeros(inside.shape, dtype=np.float32)
    for row, values in zip(smooth, series, strict=True):
        volume[inside] = values
        row[:] = blur(volume) / weight
    return smooth


def smoothness_mm(series: Series, mask: Mask, sizes_mm: Array) -> Array:
    """FWHM (3,), mm, along each axis of the grid, of the noise in `series` (T, n).

    From the correlation `r` of neighbours, `FWHM = size sqrt(-2 log 2 / log r)`, which holds for
    white noise seen through a Gaussian (Forman et al. 1995, Magn. Reson. Med. 33:636). Not less
    than a voxel.
    """
    order = np.full(mask.shape, -1)
    order[mask] = np.arange(mask.sum())
    widths = []
    for axis, size in enumerate(sizes_mm):
        here = np.moveaxis(order, axis, 0)
        pairs = (here[:-1] >= 0) & (here[1:] >= 0)
        first, second = here[:-1][pairs], here[1:][pairs]
        products = squares = 0.0
        for values in series:
            a, b = values[first], values[second]
            products += float(a @ b)
            squares += float(a @ a + b @ b) / 2
        share = min(max(products / squares, 1e-9), 1 - 1e-9) if squares > 0 else 1e-9
        widths.append(max(size, size * np.sqrt(-2 * np.log(2) / np.log(share))))
    return np.array(widths)
