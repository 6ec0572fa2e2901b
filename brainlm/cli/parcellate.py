"""`brainlm parcellate`: the parcel series of one recording."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ._console import say
from ._stage import (
    HERE,
    OnDataError,
    OnDataErrorOption,
    ParamsOption,
    RecordingArg,
    RecordingRun,
    StudyOption,
    recording_stage,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from ..geometry import Array

#: What `denoise` says in its sidecars of the volumes it left out.
_SCRUBBING_FIELDS = ("Scrubbing", "CensoredVolumes", "KeptVolumes")


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("parcellate")(parcellate)


def parcellate(
    recording_id: RecordingArg,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
) -> None:
    """Average the denoised series within each parcel of the atlas.

    Writes a table of T rows and one float32 column per parcel, in atlas order, and how much
    of each parcel the recording covers. Only voxels inside the brain mask whose value
    changes count. Parcels with less than parcellate.min_coverage of their voxels are NaN,
    never 0. If the grids differ, the labels are moved (nearest neighbour), not the data.
    """
    from ..parcellate.stream import open_series, read_mask
    from ..provenance import read_sidecar

    with recording_stage(
        "parcellate",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=("timeseries", "coverage"),
        software=("isal", "nibabel", "numpy", "pyarrow"),
    ) as run:
        denoised = run.input("denoised_bold")
        volumes = open_series(denoised)
        mask = read_mask(run.input("mni_mask"), volumes)
        write_parcels(run, volumes, mask, volumes.affine, scrubbing_of(read_sidecar(denoised)))


def scrubbing_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """What a sidecar says of volumes that were scrubbed: a parcel series says the same."""
    return {key: about[key] for key in _SCRUBBING_FIELDS if key in about}


def write_parcels(
    run: RecordingRun,
    volumes: Iterable[NDArray],
    mask: NDArray,
    affine: Array,
    further: Mapping[str, Any],
) -> None:
    """Average flat `volumes` (Fortran order) on the grid of `mask` (x, y, z) and write both tables.

    `further` fields go into the sidecars as they are.
    """
    import numpy as np

    from ..atlas.labels import labels_on_grid, read_labels
    from ..atlas.table import read_table
    from ..parcellate.extract import mean_series
    from ..parcellate.tables import write_coverage, write_series

    table = read_table(run.source(run.path("atlas_table")))
    atlas = read_labels(run.source(run.path("atlas_image")))
    labels, moved = labels_on_grid(atlas, affine, mask.shape)
    result = mean_series(
        volumes,
        labels,
        mask,
        table["index"].to_numpy(),
        run.params["parcellate"]["min_coverage"],
    )
    dropped = int(np.isnan(result.series[0]).sum())
    about: dict[str, Any] = {
        "SamplingFrequency": 1 / run.recording.tr,
        "Atlas": run.params["atlas"]["name"],
        "AtlasMovedToDataGrid": moved,
        "ParcelsBelowMinCoverage": dropped,
        **further,
    }
    with run.output("coverage", about=about) as path:
        write_coverage(path, table, result)
    with run.output("timeseries", about=about) as path:
        write_series(path, table["name"].tolist(), result)
    say(
        f"{run.recording.id}: {len(result.series)} volumes, {len(table) - dropped} of "
        f"{len(table)} parcels, mean coverage {result.coverage.mean():.0%}"
    )
