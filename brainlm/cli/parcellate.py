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
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from ..geometry import Array
    from ..parcellate.extract import ParcelSeries
    from ..parcellate.stream import VolumeStream

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
    from ..parcellate.stream import open_series
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
        mask = _read_mask(run.input("mni_mask"), volumes)
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

    from ..atlas.table import read_table
    from ..parcellate.extract import mean_series

    table = read_table(run.source(run.path("atlas_table")))
    labels, moved = _labels_on_grid(run, affine, mask.shape)
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
        _write_coverage(path, table, result)
    with run.output("timeseries", about=about) as path:
        _write_series(path, table["name"].tolist(), result)
    say(
        f"{run.recording.id}: {len(result.series)} volumes, {len(table) - dropped} of "
        f"{len(table)} parcels, mean coverage {result.coverage.mean():.0%}"
    )


def _read_mask(path: Path, volumes: VolumeStream) -> NDArray:
    from ..atlas.labels import same_grid
    from ..errors import DataError
    from ..images import read_image

    mask = read_image(path)
    if not same_grid(mask.affine, mask.data.shape, volumes.affine, volumes.shape):
        raise DataError(
            "The brain mask and the denoised series lie on different grids",
            file=path,
            fix="delete both and rerun from `brainlm resample`",
        )
    return mask.data


def _labels_on_grid(
    run: RecordingRun, affine: Array, shape: tuple[int, ...]
) -> tuple[NDArray, bool]:
    """The atlas on the data's own grid, and whether it had to be moved there."""
    from ..atlas.labels import read_labels, resample_labels, same_grid

    labels = read_labels(run.source(run.path("atlas_image")))
    if same_grid(labels.affine, labels.data.shape, affine, shape):
        return labels.data, False
    return resample_labels(labels, affine, shape), True


def _write_series(path: Path, names: list[str], result: ParcelSeries) -> None:
    """T rows, one float32 column per parcel; equal data gives equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [pa.array(column) for column in result.series.T.copy()]
    pq.write_table(
        pa.table(columns, names=names),
        path,
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
    )


def _write_coverage(path: Path, table: pd.DataFrame, result: ParcelSeries) -> None:
    rows = table[["index", "name"]].assign(
        n_voxels=result.n_voxels,
        n_usable=result.n_usable,
        coverage=result.coverage.round(6),
    )
    rows.to_csv(path, sep="\t", index=False, lineterminator="\n")
