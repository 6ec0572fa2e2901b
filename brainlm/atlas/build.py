"""The offline stand-in for A424: nearest-centre parcels inside the template's grey matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from ..images import Image, load_template

if TYPE_CHECKING:
    import pandas as pd

#: Grey-matter probability above which a voxel belongs to some parcel. At one half the
#: thalamus, mostly white in the template, would lose nuclei on coarse grids.
GREY_MATTER = 0.35


def approximate_labels(table: pd.DataFrame, space: str, zoom: float) -> Image:
    """A stand-in for the atlas of `table` on the grid of template `space` at `zoom` mm.

    Each voxel of grey matter (cortex, deep nuclei, cerebellum) takes the parcel whose
    centre (columns x, y, z, mm) is nearest: the Voronoi cells of the centres. Ties go to
    the parcel that stands first in the table. Every parcel gets at least one voxel. The
    labels are the table's `index`; 0 is outside. The data is int16, (x, y, z).

    The borders are not the atlas's own: results must name it `A424approx`.
    """
    template = load_template(space, "GM", zoom)
    centers = table[["x", "y", "z"]].to_numpy(dtype=float)
    voxels = np.argwhere(template.data > GREY_MATTER)
    points = voxels @ template.affine[:3, :3].T + template.affine[:3, 3]
    parcels = _nearest(points, centers)
    parcels = _fill_empty(parcels, points, centers)
    labels = np.zeros(template.data.shape, dtype=np.int16)
    labels[tuple(voxels.T)] = table["index"].to_numpy()[parcels]
    return Image(labels, template.affine)


def _nearest(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Row of the nearest center of each point; the smallest row among equals."""
    distances, rows = cKDTree(centers).query(points, k=min(8, len(centers)))
    tied = distances <= distances[:, :1] + 1e-9
    nearest: np.ndarray = np.where(tied, rows, len(centers)).min(axis=1)
    return nearest


def _fill_empty(parcels: np.ndarray, points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Give each parcel without a voxel the nearest voxel that its owner can spare."""
    parcels = parcels.copy()
    sizes = np.bincount(parcels, minlength=len(centers))
    for empty in np.flatnonzero(sizes == 0):
        distances = ((points - centers[empty]) ** 2).sum(axis=1)
        distances[sizes[parcels] < 2] = np.inf
        voxel = int(distances.argmin())
        sizes[parcels[voxel]] -= 1
        sizes[empty] += 1
        parcels[voxel] = empty
    return parcels
