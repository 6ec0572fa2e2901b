"""`brainlm adopt-parcels`: parcel series from a clean dense series or a ready table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ._console import say
from ._ready import Ready, about_of, motion_of, ready_of, take
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
    import pandas as pd

    from ..parcellate.extract import ParcelSeries

#: A coverage that comes without numbers of voxels is counted in so many parts.
_PARTS = 10**6


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("adopt-parcels")(adopt_parcels)


def adopt_parcels(
    recording_id: RecordingArg,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
) -> None:
    """Take over a run that is already denoised: a CIFTI dense series, or a table of parcels.

    A dense series (.dtseries.nii) is reduced to the parcels of the atlas (.dlabel.nii); a table of
    parcels is checked against the atlas: names, number, order, columns without data. Writes the
    same parcel series, coverage and motion table as a run that was preprocessed here.
    """
    pin_libraries()
    from ..atlas.table import read_table
    from ..errors import about_file
    from ..parcellate.tables import write_coverage, write_series
    from ..preproc.tables import write_motion

    with recording_stage(
        "adopt-parcels",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=("timeseries", "coverage", "motion"),
        software=("nibabel", "numpy", "pandas", "pyarrow", "scipy"),
    ) as run:
        ready = ready_of(run)
        table = read_table(run.source(run.path("atlas_table")))
        source = take(run, ready, "series")
        assert source is not None
        with about_file(source):
            result, further = (_from_dense if ready.kind == "dense" else _from_table)(
                run, ready, source, table
            )
        motion, about_motion = motion_of(run, ready, None, len(result.series))
        dropped = int((result.coverage < run.params["parcellate"]["min_coverage"]).sum())
        about: dict[str, Any] = {
            **about_of(ready),
            "SamplingFrequency": 1 / run.recording.tr,
            "Atlas": run.params["atlas"]["name"],
            "ParcelsBelowMinCoverage": dropped,
            **further,
            **scrubbing_of(about_motion),
        }
        with run.output("motion", about=about_motion) as path:
            write_motion(path, motion)
        with run.output("coverage", about=about) as path:
            write_coverage(path, table, result)
        with run.output("timeseries", about=about) as path:
            write_series(path, table["name"].tolist(), result)
        say(
            f"{recording_id}: {len(result.series)} volumes, "
            f"{len(table) - dropped} of {len(table)} parcels"
        )


def _from_dense(
    run: RecordingRun, ready: Ready, source: Path, table: pd.DataFrame
) -> tuple[ParcelSeries, dict[str, Any]]:
    """Reduce a dense series to parcels."""
    from ..parcellate.cifti import check_models, dense_parcels, open_dtseries, read_dlabel

    labels = _dense_labels(run)
    atlas, series = read_dlabel(labels), open_dtseries(source)
    check_models(series, atlas)
    options = run.params["parcellate"]
    result = dense_parcels(
        series,
        atlas.numbers,
        table["index"].to_numpy(),
        options["min_coverage"],
        options["estimator"],
    )
    return result, {"Estimator": options["estimator"]}


def _dense_labels(run: RecordingRun) -> Path:
    """The atlas' labels of grayordinates, noted as a source."""
    from ..atlas.fetch import locate
    from ..atlas.registry import find_dense
    from ..provenance import sha256_file

    path = locate(find_dense(run.params["atlas"]["name"]))
    run.sources[f"atlas::{path.name}"] = sha256_file(path)
    return path


def _from_table(
    run: RecordingRun, ready: Ready, source: Path, table: pd.DataFrame
) -> tuple[ParcelSeries, dict[str, Any]]:
    """Take a table of parcels as it is, NaN where it has no data."""
    import numpy as np

    from ..parcellate.extract import ParcelSeries
    from ..parcellate.ready import read_coverage, read_parcels

    names = table["name"].tolist()
    found = read_parcels(source, names)
    there = found.covered.astype(np.int64)
    coverage = take(run, ready, "coverage")
    if coverage is not None:
        # A parcel that they left empty (by a threshold of their own) has no series to count.
        share = np.where(found.covered, read_coverage(coverage, names), 0)
        parts = np.full(len(names), _PARTS)
        usable = (share * _PARTS).round().astype(np.int64)
        low = usable / parts < run.params["parcellate"]["min_coverage"]
        series = np.where(low, np.nan, found.series).astype(np.float32)
        return ParcelSeries(series, parts, usable), {
            "TableNotes": list(found.notes),
            "CoverageFrom": coverage.name,
        }
    return ParcelSeries(found.series, np.ones_like(there), there), {
        "TableNotes": list(found.notes),
        "CoverageFrom": "not known: a parcel counts as covered where it has a series",
    }
