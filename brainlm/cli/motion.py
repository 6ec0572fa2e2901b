"""`brainlm motion`: where the head was in every volume."""

from __future__ import annotations

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


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("motion")(motion)


def motion(
    recording_id: RecordingArg,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
    threads: ThreadsOption = 1,
    mem_gb: MemoryOption = None,
) -> None:
    """Estimate the head's pose in every volume of one raw BOLD run.

    Aligns each volume rigidly to a reference made of the run's best-agreeing volumes
    (inverse-compositional Gauss-Newton at 8, then 4 mm smoothness); volumes at the start that
    were taken before the magnetisation had settled are told apart. Writes, under
    derivatives/brainlm: the motion parameters with framewise and relative RMS displacement
    (mm and rad, the head's own movement along +R, +A, +S), the poses as ITK transforms, the
    reference volume (boldref) and the mask of its bright object. Nothing is resampled here:
    `brainlm resample` interpolates once, with all transforms composed.
    """
    pin_libraries()
    import numpy as np

    from ..geometry import write_itk_affines
    from ..images import write_image
    from ..preproc.checks import check_bold
    from ..preproc.motion import RMS_RADIUS_MM, estimate_motion
    from ..preproc.tables import write_motion
    from ..series import read_bold

    with recording_stage(
        "motion",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=("motion", "hmc_xfm", "boldref", "foreground_mask"),
        software=("nibabel", "numpy", "scipy"),
    ) as run:
        recording = run.recording
        bold = read_bold(recording.bold_path, mem_gb)
        check_bold(bold, recording.bold_path)
        run.raw_source(recording.bold, recording.bold_sha256)
        found = estimate_motion(bold, threads=threads, **run.params["motion"])

        about = {
            "RepetitionTime": recording.tr,
            "Units": {"trans": "mm", "rot": "rad", "framewise_displacement": "mm", "rmsd": "mm"},
            "RadiusOfRMSD": RMS_RADIUS_MM,
            "NonSteadyStateVolumes": found.unsteady,
            "MeanFramewiseDisplacement": float(np.nanmean(found.framewise_displacement)),
            "VolumesNotConverged": np.flatnonzero(~found.converged).tolist(),
        }
        with run.output("motion", about=about) as path:
            write_motion(path, found.table)
        about = {
            "PullsFrom": "orig",
            "OntoGridOf": "boldref",
            "NonSteadyStateVolumes": found.unsteady,
        }
        with run.output("hmc_xfm", about=about) as path:
            write_itk_affines(path, list(found.poses))
        about = {"SkullStripped": False, "VolumesAveraged": found.averaged.tolist()}
        with run.output("boldref", about=about) as path:
            write_image(path, found.boldref, bold.affine, atomic=False)
        with run.output("foreground_mask", about={"Type": "ROI"}) as path:
            write_image(path, found.mask.astype("uint8"), bold.affine, atomic=False)
