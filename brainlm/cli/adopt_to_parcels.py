"""`brainlm adopt-to-parcels`: a preprocessed run to its parcels, without 4-D files between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from ._scrubbing import scrubbing_of
from ._single_thread import pin_libraries
from ._stage import (
    HERE,
    MemoryOption,
    OnDataError,
    OnDataErrorOption,
    ParamsOption,
    RecordingArg,
    StudyOption,
    ThreadsOption,
    recording_stage,
)
from ._straight import SOFTWARE, outputs_with_components, to_parcels


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("adopt-to-parcels")(adopt_to_parcels)


def adopt_to_parcels(
    recording_id: RecordingArg,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
    threads: ThreadsOption = 1,
    mem_gb: MemoryOption = None,
) -> None:
    """Do what adopt, ica, denoise and parcellate do, in memory.

    The workflow uses it for runs that another pipeline preprocessed where resample.output is
    parcels. Writes the same mask, tables, carpet, parcel series and coverage, and no 4-D series.
    """
    pin_libraries()
    from ..preproc.brain_series import brain_series
    from .adopt import open_ready

    with recording_stage(
        "adopt-to-parcels",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=_outputs,
        software=SOFTWARE,
    ) as run:
        opened = open_ready(run)
        series, mask = brain_series(opened.adopted, threads, mem_gb)
        opened.write_images(run, mask)
        opened.write_tables(run, mask, series)
        to_parcels(run, series, mask, opened.adopted.grid.affine, scrubbing_of(opened.about_motion))


def _outputs(params: Mapping[str, Any]) -> tuple[str, ...]:
    kinds = ("mni_mask", "mni_boldref", "motion", "confounds", "carpet", "timeseries", "coverage")
    return outputs_with_components(params, *kinds)
