"""The atlas that `brainlm parcellate-file` is given, and whether it fits the series."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ._console import warn

if TYPE_CHECKING:
    import pandas as pd

    from ..atlas.registry import Atlas
    from ..images import Image


def label_image(
    atlas: str, table: Path | None, series: Path, *, space: str | None, space_ok: bool
) -> tuple[Image, pd.DataFrame]:
    """The atlas image and its table, checked against each other and the series' space."""
    from ..atlas.check import check_numbers, check_places
    from ..atlas.labels import label_sizes, read_labels
    from ..atlas.table import read_table
    from ..errors import InputError

    known, image = find_atlas_image(atlas)
    if not space_ok:
        _check_space(atlas, series, space, known.space if known else None)
    own = table or (known.table if known else None)
    if own is None:
        raise InputError("This atlas image is not registered", file=image, fix="give its --table")
    parcels, labels = read_table(own), read_labels(image)
    n_labels = known.n_labels if known and not table else len(parcels)
    check_numbers(label_sizes(labels.data), parcels, n_labels, image)
    check_places(labels, parcels, image)
    return labels, parcels


def find_atlas_image(name: str) -> tuple[Atlas | None, Path]:
    """The registered atlas of that name, or of that image, if it is one; and the image."""
    from ..atlas.fetch import locate
    from ..atlas.registry import find_atlas, load_registry
    from ..errors import InputError
    from ..provenance import sha256_file

    path = Path(name)
    if path.is_file():
        digest = sha256_file(path)
        return next((a for a in load_registry().values() if a.sha256 == digest), None), path
    if name.endswith((".nii", ".nii.gz")):
        raise InputError("The atlas image does not exist", file=path)
    atlas = find_atlas(name)
    if atlas.built:
        raise InputError(
            f"{atlas.name} is built for a study, not for a file",
            fix="`brainlm atlas build`, then --atlas with its image and --table",
        )
    return atlas, locate(atlas)


def atlas_file(atlas: str, *, dense: bool) -> Path:
    """The file of the atlas; for a dense series, the labels of its grayordinates."""
    from ..atlas.fetch import locate
    from ..atlas.registry import DENSE, find_dense

    if dense and not atlas.endswith(DENSE):
        return locate(find_dense(atlas))
    return Path(atlas) if Path(atlas).is_file() else find_atlas_image(atlas)[1]


def _check_space(atlas: str, series: Path, given: str | None, drawn_in: str | None) -> None:
    """Refuse a series that lies in another space than the atlas, or nobody knows in which."""
    from ..errors import InputError

    said = re.search(r"_space-([A-Za-z0-9]+)", series.name)
    space = given or (said[1] if said else None)
    if drawn_in is None or space is None:
        raise InputError(
            f"In which space the {'atlas' if drawn_in is None else 'series'} lies is not known",
            file=atlas if drawn_in is None else series,
            fix="--space-ok if both lie in the same" + (", or say --space" if drawn_in else ""),
        )
    if space != drawn_in:
        raise InputError(
            f"The atlas is drawn in {drawn_in}, the series lies in {space}: the two differ by "
            "some mm at places",
            file=series,
            fix="--space-ok to accept that",
        )


def warn_of_tiny(parcels: pd.DataFrame, sizes: dict[int, int]) -> None:
    """Name the parcels of one voxel; `sizes` are the voxels of each label."""
    from ..atlas.check import one_voxel_parcels

    if tiny := one_voxel_parcels(sizes, parcels):
        warn(f"{len(tiny)} parcels are of one voxel: {', '.join(tiny)}")


def label_of(atlas: str) -> str:
    """What file names call the atlas: letters and digits."""
    name = Path(atlas).name
    for extension in (".gz", ".nii", ".dlabel"):
        name = name.removesuffix(extension)
    return re.sub(r"[^A-Za-z0-9+]", "", name)
