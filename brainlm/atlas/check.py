"""Whether a label image and its table belong together: the numbers, the places, the sides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..geometry import Array
from ..images import Image
from .labels import label_sizes

if TYPE_CHECKING:
    import pandas as pd

#: Parcels nearer than this to the midline (mm) lie on no side.
MIDLINE_MM = 2.0
#: Share of parcels that may lie elsewhere than the table says: published tables are not flawless
#: (A424's has one of 424 on the wrong side, and none beyond the distance below).
TOLERATED = 0.1
#: A parcel lies elsewhere if its centre is off by more than this (mm) and twice its own extent.
FAR_MM = 10.0


@dataclass(frozen=True)
class Placement:
    """How the labels of an image lie against the coordinates in the table."""

    n_lateral: int  # parcels that both put off the midline
    n_wrong_side: int  # of these, those on opposite sides
    n_present: int
    n_elsewhere: int  # of those present, those far from where the table puts them


def check_numbers(
    sizes: dict[int, int], table: pd.DataFrame, n_labels: int, file: Path | None
) -> None:
    """Refuse an image (`label_sizes`) whose labels are not those of its table.

    `n_labels` is how many of them the image should hold: all of the table unless the registry
    says that some have no voxel.
    """
    fix = "the image and the table must be of the same atlas and version"
    if unnamed := sorted(set(sizes) - set(table["index"])):
        raise InputError(
            f"The image holds {len(unnamed)} labels that the table does not name "
            f"(the first is {unnamed[0]})",
            file=file,
            fix=fix,
        )
    if len(sizes) != n_labels:
        raise InputError(
            f"The image holds {len(sizes)} labels where there should be {n_labels}",
            file=file,
            fix=fix,
        )


def one_voxel_parcels(sizes: dict[int, int], table: pd.DataFrame) -> list[str]:
    """Names of the parcels of a single voxel: their series is that voxel's noise too."""
    return [
        name
        for number, name in zip(table["index"], table["name"], strict=True)
        if sizes.get(number) == 1
    ]


def check_places(labels: Image, table: pd.DataFrame, file: Path | None) -> Placement:
    """Refuse labels that lie elsewhere than their table says: mirrored, or numbered otherwise."""
    found = placement(labels, table)
    fix = (
        "the image's header or its label numbers are wrong, or the table is of another atlas; "
        "`brainlm atlas check` tells which registered atlas an image is"
    )
    if found.n_wrong_side > TOLERATED * found.n_lateral:
        raise InputError(
            f"{found.n_wrong_side} of {found.n_lateral} parcels lie on the wrong side: left and "
            "right are swapped between the label image and the atlas table",
            file=file,
            fix=fix,
        )
    if found.n_elsewhere > TOLERATED * found.n_present:
        raise InputError(
            f"{found.n_elsewhere} of {found.n_present} parcels lie far from where the atlas table "
            "puts them",
            file=file,
            fix=fix,
        )
    return found


def placement(labels: Image, table: pd.DataFrame) -> Placement:
    """Compare the centroid of each label of `labels` with columns x, y, z (mm, RAS+) of `table`.

    The extent of a parcel is the root mean square distance of its voxels from their centroid,
    so that a large or curved parcel, whose table may give a peak instead, is not taken for a
    displaced one.
    """
    numbers = table["index"].to_numpy()
    wanted = table[["x", "y", "z"]].to_numpy(dtype=float)
    sizes = label_sizes(labels.data)
    here = np.array([number in sizes for number in numbers])
    numbers, wanted = numbers[here], wanted[here]
    centres, extents = _centroids(labels.data, labels.affine, numbers)
    lateral = (np.abs(centres[:, 0]) > MIDLINE_MM) & (np.abs(wanted[:, 0]) > MIDLINE_MM)
    wrong = lateral & (np.sign(centres[:, 0]) != np.sign(wanted[:, 0]))
    distances = np.linalg.norm(centres - wanted, axis=1)
    elsewhere = distances > FAR_MM + 2 * extents
    return Placement(int(lateral.sum()), int(wrong.sum()), len(numbers), int(elsewhere.sum()))


def _centroids(data: NDArray, affine: Array, numbers: NDArray) -> tuple[Array, Array]:
    """Centre (n, 3) and RMS extent (n,), mm, of each of these labels."""
    voxels = np.argwhere(data > 0)
    points = voxels @ affine[:3, :3].T + affine[:3, 3]
    of = data[data > 0]
    counts = np.maximum(np.bincount(of), 1)
    sums = np.stack([np.bincount(of, weights=axis) for axis in points.T], axis=1)
    means = sums / counts[:, None]
    spread = np.bincount(of, weights=((points - means[of]) ** 2).sum(axis=1)) / counts
    return means[numbers], np.sqrt(spread)[numbers]
