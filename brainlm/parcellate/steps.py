"""The parcel series of a run, from files to files; `brainlm.pinned` calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..atlas.labels import beyond_grid, read_labels
from ..atlas.moved import labels_on_grid
from ..atlas.table import read_table
from ..config import Config
from ..images import Image
from ..series import read_mask
from ..tissues import tissues_on
from .extract import parcel_series
from .stream import open_series
from .tables import write_coverage, write_series


def parcel_means(
    folder: Path, config: Config, *, bold: str, mni_mask: str, atlas_image: str, atlas_table: str
) -> dict[str, Any]:
    """The series of each parcel, and how much of it the run covers."""
    volumes = open_series(bold)
    mask = read_mask(mni_mask, volumes.affine, volumes.shape).data
    table = read_table(atlas_table)
    atlas = read_labels(atlas_image)
    labels, moved = labels_on_grid(atlas, volumes.affine, mask.shape)
    parcels = table["index"].to_numpy()
    options = config.parcellate
    grey = None
    if options.estimator == "weighted":
        grey = tissues_on(Image(mask, volumes.affine), config.space.template, mni_mask).gm
    result = parcel_series(
        volumes,
        labels,
        mask,
        parcels,
        options.min_coverage,
        estimator=options.estimator,
        weights=grey,
        beyond=beyond_grid(atlas, volumes.affine, mask.shape, parcels) if moved else None,
    )
    files = {"timeseries": folder / "timeseries.parquet", "coverage": folder / "coverage.tsv"}
    write_series(files["timeseries"], table["name"].tolist(), result)
    write_coverage(files["coverage"], table, result)
    about = {
        "AtlasMovedToDataGrid": moved,
        "ParcelsBelowMinCoverage": int(np.isnan(result.series[0]).sum()),
    }
    return {**{name: str(path) for name, path in files.items()}, "about": about}
