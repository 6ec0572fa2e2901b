"""The cortex of fsaverage5, drawn in the plane: a picture of it in a fraction of a second.

Three-dimensional axes of matplotlib take seconds for it, and their order of faces is not exact.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_GYRUS, _SULCUS = 0.88, 0.72  # grey where nothing is shown
_AMBIENT = 0.72  # light that a face gets from everywhere; the rest comes from the viewer


class Hemisphere(NamedTuple):
    """One half of the cortex."""

    anatomy: Floats  # (vertices, 3) mm, midway between white matter and pial surface
    inflated: Floats  # (vertices, 3)
    faces: NDArray[np.int64]  # (faces, 3)
    sulcal: Floats  # (vertices,) depth, above 0 in sulci


@cache
def hemispheres() -> dict[str, Hemisphere]:
    """Left and right, from the files that come with nilearn."""
    from nilearn.datasets import load_fsaverage, load_fsaverage_data

    meshes = load_fsaverage("fsaverage5")
    sulcal = load_fsaverage_data("fsaverage5", data_type="sulcal").data.parts
    found = {}
    for side in ("left", "right"):
        white, pial, inflated = (
            meshes[name].parts[side] for name in ("white_matter", "pial", "inflated")
        )
        found[side] = Hemisphere(
            anatomy=(white.coordinates.astype(np.float64) + pial.coordinates) / 2,
            inflated=inflated.coordinates.astype(np.float64),
            faces=np.asarray(inflated.faces, dtype=np.int64),
            sulcal=np.asarray(sulcal[side], dtype=np.float64),
        )
    return found


def draw_cortex(
    axes: Axes, half: Hemisphere, values: Floats, colors: NDArray[np.float64], side: int
) -> None:
    """A hemisphere seen from the left (`side` -1) or from the right (1).

    `values` (vertices,), NaN: bare cortex; `colors` (vertices, 4) of them. A face takes the colour
    of its first vertex, so that parcels have edges and no colours between them arise.
    """
    corners = half.inflated[half.faces]  # (faces, 3, 3)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facing = side * normals[:, 0] / np.linalg.norm(normals, axis=1)
    front = np.flatnonzero(facing > 0)
    front = front[np.argsort(side * corners[front, :, 0].mean(axis=1), kind="stable")]

    first = half.faces[front, 0]
    grey = np.where(half.sulcal[first] > 0, _SULCUS, _GYRUS)
    bare = np.stack([grey, grey, grey, np.ones(len(front))], axis=1)
    painted = np.where(np.isfinite(values[first])[:, None], colors[first], bare)
    painted[:, :3] *= (_AMBIENT + (1 - _AMBIENT) * facing[front])[:, None]

    flat = corners[front][:, :, 1:] * [side, 1]  # the nose to the left when seen from the left
    axes.add_collection(
        PolyCollection(
            list(flat), facecolors=painted, edgecolors=painted, linewidths=0.3, rasterized=True
        )
    )
    axes.set(xlim=(-115, 115), ylim=(-82, 82), aspect="equal")
    axes.axis("off")
