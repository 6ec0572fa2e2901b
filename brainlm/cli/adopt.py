"""`brainlm adopt`: a run that another pipeline preprocessed, in our own files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ._ready import Ready, about_of, kept_of, motion_of, ready_of, take
from ._single_thread import pin_libraries
from ._stage import (
    HERE,
    MemoryOption,
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
    from numpy.typing import NDArray

    from ..preproc.adopt import Adopted
    from ..series import Series

OUTPUTS = ("preproc_bold", "mni_mask", "mni_boldref", "motion", "confounds")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("adopt")(adopt)


def adopt(
    recording_id: RecordingArg,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
    mem_gb: MemoryOption = None,
) -> None:
    """Take over a 4-D series that fMRIPrep, XCP-D, HCP's or UK Biobank's pipeline preprocessed.

    Writes what resample and confounds write of a raw run: the series on the study's grid, its
    brain mask and mean volume, motion and confounds. Values are copied where the voxels lie on the
    study's lattice, else interpolated once. fMRIPrep's own confounds are kept; for the others they
    are computed from the series and their motion parameters. Sidecars say who did which step.
    """
    pin_libraries()
    from ..preproc.tables import write_motion
    from ..series import open_series

    with recording_stage(
        "adopt",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=OUTPUTS,
        software=("nibabel", "nilearn", "numpy", "pandas", "scipy"),
    ) as run:
        ready = ready_of(run)
        path = take(run, ready, "series")
        assert path is not None
        series = open_series(path)
        table = _their_confounds(run, ready, series.shape[3])
        motion, about_motion = motion_of(run, ready, table, series.shape[3])
        mask = _write_images(run, ready, _open(run, ready, series), kept_of(about_motion))
        with run.output("motion", about=about_motion) as place:
            write_motion(place, motion)
        _write_confounds(run, ready, table, mask, mem_gb)


def _open(run: RecordingRun, ready: Ready, series: Series) -> Adopted:
    """The series' way onto the study's grid."""
    from ..images import load_template, read_image
    from ..preproc.adopt import Adopted, Grid

    space = run.params["space"]
    template = load_template(run.template(), "brain", space["resolution_mm"])
    brain = take(run, ready, "mask")
    warp = take(run, ready, "warp")
    way = None
    if warp is not None:
        from ..preproc.fnirt import read_fnirt_field

        way = read_fnirt_field(warp, series).to_run
    return Adopted(
        series,
        Grid(template.affine, template.data > 0.5),
        None if brain is None else read_image(brain),
        order=run.params["derivatives"]["order"],
        way=way,
    )


def _write_images(
    run: RecordingRun, ready: Ready, adopted: Adopted, kept: dict[str, Any]
) -> NDArray:
    """Write the series, its mask and its mean; return the mask (x, y, z)."""
    import numpy as np

    from ..images import write_image
    from ..series import write_series

    tr, affine = run.recording.tr, adopted.grid.affine
    resolution = f"{run.params['space']['resolution_mm']:g} mm isotropic"
    about: dict[str, Any] = {
        **about_of(ready),
        "Resolution": resolution,
        "Interpolated": adopted.moved,
    }
    further = {"RepetitionTime": tr, "SkullStripped": True, "AlreadyDenoised": ready.cleaned}
    with run.output("preproc_bold", about={**about, **further, **kept}) as path:
        write_series(path, adopted.volumes(), adopted.shape, affine, tr=tr)
        mask = adopted.mask(adopted.series.path)
    share = round(float(mask.sum() / adopted.grid.brain.sum()), 4)
    with run.output("mni_mask", about={**about, "ShareOfTemplateBrain": share}) as path:
        write_image(path, mask.astype(np.uint8), affine, in_mni=True, atomic=False)
    with run.output("mni_boldref", about={**about, "Statistic": "mean over time"}) as path:
        write_image(path, adopted.mean(), affine, in_mni=True, atomic=False)
    return mask


def _their_confounds(run: RecordingRun, ready: Ready, n_volumes: int) -> pd.DataFrame | None:
    """The table of confounds that came with the series, checked; None where there is none."""
    from ..bids.ready.names import read_json_or_empty
    from ..preproc.adopted_tables import by_tissue, read_confounds

    path = take(run, ready, "confounds")
    if path is None:
        return None
    return by_tissue(read_confounds(path, n_volumes), read_json_or_empty(path.with_suffix(".json")))


def _write_confounds(
    run: RecordingRun,
    ready: Ready,
    table: pd.DataFrame | None,
    mask: NDArray,
    mem_gb: float | None,
) -> None:
    """Write fMRIPrep's confounds as they stand, or our own of the adopted series."""
    import numpy as np

    from ..preproc.tables import write_confounds as write_table
    from ..series import open_series
    from .confounds import write_confounds

    if table is None:
        series = open_series(run.path("preproc_bold")).in_mask(mask, mem_gb)
        write_confounds(run, series, mask)
        return
    fd = table.get("framewise_displacement")
    about = {
        **about_of(ready),
        "RepetitionTime": run.recording.tr,
        "MeanFramewiseDisplacement": None if fd is None else float(np.nanmean(fd)),
    }
    with run.output("confounds", about=about) as path:
        write_table(path, table)
