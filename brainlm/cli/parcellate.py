"""`brainlm parcellate`: the parcel series of one recording."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._console import say
from ._scrubbing import scrubbing_of
from ._single_thread import pin_libraries
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

TsvOption = Annotated[
    bool,
    typer.Option(
        "--tsv", help="also write series and coverage as TSV, named and laid out as XCP-D does"
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("parcellate")(parcellate)


def parcellate(
    recording_id: RecordingArg,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
    tsv: TsvOption = False,
) -> None:
    """Reduce the denoised series to one series for each parcel of the atlas.

    Writes a table of T rows and one float32 column per parcel, in atlas order, and how much
    of each parcel the recording covers. parcellate.estimator says how voxels are joined: their
    mean, unless another is chosen. Only voxels inside the brain mask whose value
    changes count. Parcels with less than parcellate.min_coverage of their voxels are NaN,
    never 0. If the grids differ, the labels are moved (nearest neighbour), not the data.
    """
    pin_libraries()
    from ..errors import about_file
    from ..parcellate.stream import open_series
    from ..provenance import read_sidecar
    from ..series import read_mask

    with recording_stage(
        "parcellate",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=("timeseries", "coverage"),
        software=("isal", "nibabel", "numpy", "pyarrow", "scipy"),
    ) as run:
        denoised = run.input("denoised_bold")
        volumes = open_series(denoised)
        mask = read_mask(run.input("mni_mask"), volumes.affine, volumes.shape).data
        further = scrubbing_of(read_sidecar(denoised))
        with about_file(denoised):
            write_parcels(run, volumes, mask, volumes.affine, further, tsv=tsv)


def write_parcels(
    run: RecordingRun,
    volumes: Iterable[NDArray],
    mask: NDArray,
    affine: Array,
    further: Mapping[str, Any],
    *,
    tsv: bool = False,
) -> None:
    """Reduce flat `volumes` (Fortran order) on the grid of `mask` (x, y, z); write both tables.

    `further` fields go into the sidecars as they are; with `tsv` the tables are written twice.
    """
    import numpy as np

    from ..atlas.labels import beyond_grid, read_labels
    from ..atlas.moved import labels_on_grid
    from ..atlas.table import read_table
    from ..parcellate.extract import parcel_series
    from ..parcellate.tables import (
        write_coverage,
        write_coverage_tsv,
        write_series,
        write_series_tsv,
    )

    table = read_table(run.source(run.path("atlas_table")))
    atlas = read_labels(run.source(run.path("atlas_image")))
    labels, moved = labels_on_grid(atlas, affine, mask.shape)
    numbers = table["index"].to_numpy()
    options = run.params["parcellate"]
    result = parcel_series(
        volumes,
        labels,
        mask,
        numbers,
        options["min_coverage"],
        estimator=options["estimator"],
        weights=_grey_matter(run, affine, mask) if options["estimator"] == "weighted" else None,
        beyond=beyond_grid(atlas, affine, mask.shape, numbers) if moved else None,
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
    names = table["name"].tolist()
    if tsv:
        with run.output("coverage_tsv", about=about) as path:
            write_coverage_tsv(path, names, result)
        with run.output("timeseries_tsv", about=about) as path:
            write_series_tsv(path, names, result)
    with run.output("timeseries", about=about) as path:
        write_series(path, names, result)
    say(
        f"{run.recording.id}: {len(result.series)} volumes, {len(table) - dropped} of "
        f"{len(table)} parcels, mean coverage {result.coverage.mean():.0%}"
    )


def _grey_matter(run: RecordingRun, affine: Array, mask: NDArray) -> NDArray:
    """The template's grey-matter share (0 to 1) on the grid of the data."""
    from ..errors import DataError
    from ..geometry import same_grid
    from ..images import load_template

    share = load_template(run.template(), "GM", run.params["space"]["resolution_mm"])
    if not same_grid(share.affine, share.data.shape, affine, mask.shape):
        raise DataError(
            "The series is not on the template's grid, so its voxels cannot be weighted",
            fix="rerun from `brainlm resample`, or take another parcellate.estimator",
        )
    return share.data
