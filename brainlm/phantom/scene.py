"""The head in the scanner: what tissue and which parcels each BOLD voxel sees."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude
from scipy.sparse import coo_matrix, csr_matrix

from ..geometry import Array, rotation
from ..images import Image
from .anatomy import (
    BRAIN_CENTER,
    Head,
    centered_grid,
    grid_points,
    sample,
    shell,
    smooth_bias,
    template_maps,
)
from .cycles import closeness, pulsatility
from .parameters import stream

Floats = NDArray[np.float32]

FOV = (184.0, 220.0, 184.0)  # mm
CONTRAST = {"GM": 0.85, "WM": 0.65, "CSF": 1.2}  # of a T2*-weighted EPI
BASELINE = 1000.0  # image units of contrast 1
_SHOT_S = 0.04  # a shot of EPI takes no less
#: Signal loss beside air: template mm of its middle, its SD in mm and the share lost there.
DROPOUTS = (((0, 40, -22), 13, 0.75), ((47, -22, -30), 10, 0.6), ((-47, -22, -30), 10, 0.6))


@dataclass(frozen=True)
class Scene:
    """The head in the scanner at the first volume, on the BOLD grid of `shape`."""

    affine: Array
    shape: tuple[int, int, int]
    baseline: Floats  # (x, y, z) image units
    voxels: NDArray[np.int64]  # (n,) flat indices of the head
    mixing: csr_matrix  # (n, parcels): grey matter of each parcel, as a share of the voxel
    vessels: Floats  # (n,) 0 to 1, where the pulse shows
    height: Floats  # (x, y, z) mm above the middle of the brain, in the scanner
    edge: Floats  # (n,) 0 to 1, the head's edge


def bold_grid(site: int, voxel_mm: float) -> tuple[Array, tuple[int, int, int]]:
    """Affine and shape. Odd sites tilt by 8 degrees and store right to left (LAS)."""
    if site % 2 == 0:
        return centered_grid(FOV, voxel_mm, BRAIN_CENTER)
    turn = rotation([np.deg2rad(8), 0, 0]) @ np.diag([-1.0, 1.0, 1.0])
    return centered_grid(FOV, voxel_mm, BRAIN_CENTER, turn)


def slice_times(slices: int, tr: float, site: int) -> tuple[list[float], int]:
    """Acquisition time of each slice in s, and how many slices are taken at once at most.

    Even sites interleave, odd sites ascend. No shot is shorter than 40 ms. Where the slices cannot
    be shared out evenly, some shots take one slice less, rather than one shot all of them.
    """
    enough = [m for m in range(1, slices + 1) if tr / ceil(slices / m) >= _SHOT_S] or [slices]
    together = next((m for m in enough[:-1] if slices % m == 0), enough[0])
    shots = ceil(slices / together)
    order = list(range(shots)) if site % 2 else [*range(0, shots, 2), *range(1, shots, 2)]
    times = np.empty(shots)
    times[order] = np.arange(shots) * tr / shots
    return [round(float(times[k % shots]), 6) for k in range(slices)], together


def make_scene(
    head: Head, labels: Image, parcels: int, site: int, voxel_mm: float, skull: bool
) -> Scene:
    """Tissue and parcels as seen by each voxel: the average over points about 2 mm apart.

    Voxels above 6 mm get no more than 27 points.
    """
    affine, shape = bold_grid(site, voxel_mm)
    maps = template_maps()
    tissue = {name: np.zeros(np.prod(shape), dtype=np.float32) for name in CONTRAST}
    kept, close = (np.zeros(np.prod(shape), dtype=np.float32) for _ in range(2))
    rows, columns, shares = [], [], []
    fine = min(3, max(1, round(voxel_mm / 2)))
    every = grid_points(shape)
    near = np.flatnonzero(head.near(_world(affine, every)))
    voxels = every[near]
    for offset in grid_points((fine,) * 3):
        place = voxels + (offset + 0.5) / fine - 0.5
        points = head.to_template(_world(affine, place))
        gm = sample(maps["GM"], points)
        parcel = sample(labels, points, order=0).astype(np.int64)
        for name in CONTRAST:
            tissue[name][near] += gm if name == "GM" else sample(maps[name], points)
        kept[near] += _kept_signal(points)
        close[near] += closeness(points)
        grey = np.flatnonzero((parcel > 0) & (gm > 0))
        rows.append(near[grey])
        columns.append(parcel[grey] - 1)
        shares.append(gm[grey])
    n_points = fine**3
    contrast = sum(CONTRAST[name] * tissue[name] for name in CONTRAST) / n_points
    rng = stream(0, "coil", str(site))
    gain = BASELINE * (1 + 0.1 * site)
    baseline = np.reshape(contrast * kept / n_points, shape)
    if skull:
        baseline = baseline + 0.25 * shell(baseline > 0.2, voxel_mm)
    # The point spread of an EPI readout is about a voxel wide.
    baseline = gaussian_filter(baseline, 0.42) * gain * smooth_bias(shape, 0.08, rng)
    edge = gaussian_gradient_magnitude(baseline, 0.7)
    inside = np.flatnonzero(baseline.ravel() > 0.02 * gain)
    mixing = coo_matrix(
        (np.concatenate(shares) / n_points, (np.concatenate(rows), np.concatenate(columns))),
        shape=(len(every), parcels),
        dtype=np.float32,
    ).tocsr()[inside]
    beating = pulsatility(tissue["CSF"] / n_points, close / n_points).reshape(shape)
    height = (_world(affine, every)[:, 2] - BRAIN_CENTER[2]).reshape(shape)
    return Scene(
        affine,
        shape,
        baseline.astype(np.float32),
        inside,
        mixing,
        gaussian_filter(beating, 0.42).ravel()[inside],
        height.astype(np.float32),
        (edge / edge.max()).ravel()[inside].astype(np.float32),
    )


def _world(affine: Array, voxels: Array) -> Array:
    return np.asarray(voxels @ affine[:3, :3].T + affine[:3, 3])


def _kept_signal(points: Array) -> Floats:
    """Share (n,) of the signal that susceptibility leaves at template points (n, 3)."""
    kept = np.ones(len(points))
    for center, sd, loss in DROPOUTS:
        distance = ((points - np.array(center)) ** 2).sum(axis=1)
        kept *= 1 - loss * np.exp(-distance / (2 * sd**2))
    return kept.astype(np.float32)
