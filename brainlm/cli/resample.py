"""`brainlm resample`: a raw run onto the standard grid, in one interpolation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ._single_thread import pin_libraries
from ._stage import (
    HERE,
    OnDataError,
    OnDataErrorOption,
    ParamsOption,
    RecordingArg,
    RecordingRun,
    StudyOption,
    ThreadsOption,
    recording_stage,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..preproc.resample import Resampler, StandardGrid


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("resample")(resample)


def resample(
    recording_id: RecordingArg,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
    threads: ThreadsOption = 1,
) -> None:
    """Interpolate every raw volume of a run once, onto the template's grid.

    Head pose and normalisation are composed into one matrix per volume, and the nonlinear
    warp, if the config asks for one, moves the grid's points before. Writes the 4-D
    series (float32) and a mask of the brain voxels that every volume has data for; outside
    the acquired field of view the series is 0. Slices are brought to one moment of their
    volume where their times are known. Volumes are streamed: memory does not grow
    with the run's length.
    """
    pin_libraries()
    from ..preproc.checks import check_mask
    from ..series import write_series

    with recording_stage(
        "resample",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=("preproc_bold", "mni_mask"),
        software=("nibabel", "nilearn", "numpy", "scipy"),
    ) as run:
        resampler, timing = open_resampler(run)
        about = {
            "RepetitionTime": run.recording.tr,
            "Resolution": f"{run.params['space']['resolution_mm']:g} mm isotropic",
            "SkullStripped": True,
            **timing,
        }
        with run.output("preproc_bold", about=about) as path:
            volumes, affine = resampler.volumes(threads), resampler.grid.affine
            write_series(path, volumes, resampler.shape, affine, tr=run.recording.tr)
            mask = resampler.mask()
            check_mask(mask, run.recording.bold_path)
        write_mask(run, mask, resampler.grid)


def open_resampler(run: RecordingRun) -> tuple[Resampler, dict[str, object]]:
    """The way of this run's volumes onto the grid, and what a sidecar says of slice timing."""
    import numpy as np

    from ..geometry import read_itk_affines
    from ..images import load_template
    from ..preproc.checks import check_poses
    from ..preproc.resample import Resampler, StandardGrid
    from ..preproc.slicetiming import to_one_moment
    from ..provenance import read_sidecar
    from ..series import open_series
    from ._distortion import read_shift_of
    from ._warp import read_warp_of

    recording, space = run.recording, run.params["space"]
    # What earlier stages gave up is not told a second time, so their files come first.
    poses_file = run.input("hmc_xfm")
    poses = np.array(read_itk_affines(poses_file))
    (to_mni,) = read_itk_affines(run.input("boldref_to_mni"))
    warp, shift = read_warp_of(run), read_shift_of(run)
    raw = open_series(recording.bold_path)
    run.raw_source(recording.bold, recording.bold_sha256)
    check_poses(len(poses), raw.shape[3], recording.bold_path)
    template = load_template(run.template(), "brain", space["resolution_mm"])
    grid = StandardGrid(template.affine, template.data > 0.5)
    options = run.params["resample"]
    source, timing = to_one_moment(
        raw,
        recording.slice_timing,
        tr=recording.tr,
        reference=options["slice_reference"],
        ignored=read_sidecar(poses_file)["NonSteadyStateVolumes"],
        switched_off=options["slice_timing"] == "off",
    )
    resampler = Resampler(
        source,
        poses,
        to_mni,
        grid,
        order=options["order"],
        warp=warp,
        shift=shift,
        modulate=run.params["distortion"]["modulate"],
    )
    return resampler, timing


def write_mask(run: RecordingRun, mask: NDArray[np.bool_], grid: StandardGrid) -> None:
    """Write which voxels (x, y, z) of the brain are usable."""
    import numpy as np

    from ..images import write_image

    about = {
        "Type": "Brain",
        "Resolution": f"{run.params['space']['resolution_mm']:g} mm isotropic",
        "ShareOfTemplateBrain": round(float(mask.sum() / grid.brain.sum()), 4),
    }
    with run.output("mni_mask", about=about) as path:
        write_image(path, mask.astype(np.uint8), grid.affine, in_mni=True, atomic=False)
