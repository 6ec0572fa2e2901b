"""Refusing raw images that no later stage could use, and telling how to mend them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..geometry import Array
from ..images import Image
from ..series import HeldSeries
from .pyramid import voxel_sizes

_ANEW = "convert it anew from DICOM, or exclude the run"


def check_affine(affine: Array, file: str | Path) -> None:
    """Refuse an affine that cannot place the voxels: singular, or of impossible voxel size."""
    sizes = voxel_sizes(affine)
    matrix = affine[:3, :3]
    skewed = not np.isfinite(affine).all() or (sizes <= 0).any()
    if skewed or abs(np.linalg.det(matrix / sizes)) < 0.1:
        raise DataError(
            "The image's affine is singular, so its voxels have no place in space",
            file=file,
            fix="mend the header's sform or qform, or convert the image anew",
        )
    if sizes.min() < 0.1 or sizes.max() > 20:
        raise DataError(
            f"Voxels of {' x '.join(f'{size:.3g}' for size in sizes)} mm cannot be of a head",
            file=file,
            fix="mend the voxel size in the header's sform or qform",
        )


def check_bold(bold: HeldSeries, file: str | Path) -> None:
    """Refuse a series that is too short, flat, or holds empty volumes."""
    check_affine(bold.affine, file)
    if bold.shape[3] < 5:
        raise DataError(
            f"The series has {bold.shape[3]} volumes; motion needs at least 5",
            file=file,
            fix="it is an aborted run: exclude it",
        )
    if min(bold.shape[:3]) < 4:
        raise DataError(
            f"The grid {bold.shape[:3]} is too thin for three-dimensional alignment",
            file=file,
            fix=_ANEW,
        )
    flat = np.array([volume.max() <= volume.min() for volume in bold.volumes()])
    if flat.any():
        raise DataError(
            f"{int(flat.sum())} of {flat.size} volumes hold one value only "
            f"(first: volume {int(flat.argmax())})",
            file=file,
            fix=_ANEW,
        )


def check_anatomy(image: Image, file: str | Path) -> Image:
    """A T1w image as (x, y, z) without NaN, or the reason why it is none."""
    check_affine(image.affine, file)
    data = image.data
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise DataError(
            f"A T1w image has three dimensions, this has {data.ndim}: {data.shape}",
            file=file,
            fix="keep one volume of it",
        )
    if not np.isfinite(data).all():
        raise DataError("The T1w image holds NaN or inf", file=file, fix=_ANEW)
    if data.max() <= data.min():
        raise DataError(
            "The T1w image is empty: all its voxels are equal",
            file=file,
            fix="restore it, or remove it: without a T1w, BOLD is registered to the template",
        )
    return Image(data, image.affine)


def check_poses(poses: int, volumes: int, file: str | Path) -> None:
    """Refuse a run for which there are not as many head poses as volumes."""
    if poses != volumes:
        raise DataError(
            f"There are {poses} head poses for {volumes} volumes",
            file=file,
            fix="the raw file changed since: rerun `brainlm onboard`, then motion",
        )


def check_mask(mask: NDArray[np.bool_], file: str | Path) -> None:
    """Refuse a run of which nothing lies in the brain; `mask` (x, y, z) are its usable voxels."""
    if not mask.any():
        raise DataError(
            "No voxel of the brain has data in every volume",
            file=file,
            fix="its head leaves the field of view, or its affine is wrong: look at it",
        )
