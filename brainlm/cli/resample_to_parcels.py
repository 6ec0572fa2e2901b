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
    from ..series import in_volumes
    from .confounds import write_confounds
    from .denoise import clean_and_sample, design_of
    from .ica import write_components
    from .parcellate import scrubbing_of, write_parcels
    from .resample import open_resampler, write_mask

    with recording_stage(
        "resample-to-parcels",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=_outputs,
        software=(
            "nibabel",
            "nilearn",
            "numpy",
            "pandas",
            "pyarrow",
            "safetensors",
            "python-picard",
            "scipy",
        ),
    ) as run:
        resampler, timing = open_resampler(run)
        series, mask = brain_series(resampler, threads, mem_gb)
        check_mask(mask, run.recording.bold_path)
        write_mask(run, mask, resampler.grid)
        write_confounds(run, series, mask)
        if run.params["denoise"]["method"] == "aroma":
            write_components(run, series, mask, resampler.grid.affine, run.path("confounds"))
        design = design_of(run, run.path("confounds"))
        done = clean_and_sample(run, series, mask, design)
        volumes = (volume.ravel(order="F") for volume in in_volumes(series, mask, design.volumes))
        further = {**timing, **scrubbing_of(done)}
        write_parcels(run, volumes, mask, resampler.grid.affine, further)


def _outputs(params: Mapping[str, Any]) -> tuple[str, ...]:
    from .ica import OUTPUTS

    return (*_OUTPUTS, *(OUTPUTS if params["denoise"]["method"] == "aroma" else ()))
