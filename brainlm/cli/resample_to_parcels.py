"""`brainlm resample-to-parcels`: a raw run to its parcel series, without 4-D files between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

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

_OUTPUTS = ("mni_mask", "confounds", "carpet", "timeseries", "coverage")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("resample-to-parcels")(resample_to_parcels)


def resample_to_parcels(
    recording_id: RecordingArg,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
    threads: ThreadsOption = 1,
    mem_gb: MemoryOption = None,
) -> None:
    """Do what resample, confounds, denoise and parcellate do, in memory.

    The workflow uses it where resample.output is parcels. Writes the same brain mask,
    confounds, carpet, parcel series and coverage as the four commands, and neither the
    normalised nor the denoised 4-D series. The brain's voxels of the whole run are held
    once, in single precision.
    """
    pin_libraries()
    from ..preproc.brain_series import brain_series
    from ..preproc.checks import check_mask
    from .confounds import write_confounds
    from .resample import open_resampler, write_mask

    with recording_stage(
        "resample-to-parcels",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=_outputs,
        software=SOFTWARE,
    ) as run:
        resampler, timing = open_resampler(run)
        series, mask = brain_series(resampler, threads, mem_gb)
        check_mask(mask, run.recording.bold_path)
        write_mask(run, mask, resampler.grid)
        write_confounds(run, series, mask)
        to_parcels(run, series, mask, resampler.grid.affine, timing)


def _outputs(params: Mapping[str, Any]) -> tuple[str, ...]:
    return outputs_with_components(params, *_OUTPUTS)
