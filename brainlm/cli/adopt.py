"""`brainlm adopt`: a run that another pipeline preprocessed, in our own files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from ._ready import Ready, about_of, motion_of, ready_of, take
from ._scrubbing import scrubbing_of
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
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ..preproc.adopt import Adopted

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
    from ..series import open_series, write_series

    with recording_stage(
        "adopt",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=OUTPUTS,
        software=("nibabel", "nilearn", "numpy", "pandas", "scipy"),
    ) as run:
        opened = open_ready(run)
        adopted = opened.adopted
        with run.output("preproc_bold", about={**opened.about, **opened.of_series}) as path:
            write_series(path, adopted.volumes(), adopted.shape, adopted.grid.affine, tr=opened.tr)
            mask = adopted.mask()
        opened.write_images(run, mask)
        held = None
        if opened.confounds is None:
            held = open_series(run.path("preproc_bold")).in_mask(mask, mem_gb)
        opened.write_tables(run, mask, held)


@dataclass(frozen=True)
class Opened:
    """A preprocessed run with its tables, ready to be brought onto the study's grid."""

    adopted: Adopted
    confounds: pd.DataFrame | None  # that came with it
    motion: pd.DataFrame
    about_motion: dict[str, Any]
    about: dict[str, Any]  # where it comes from
    cleaned: bool
    resolution: str
    tr: float  # s

    @property
    def of_series(self) -> dict[str, Any]:
        """Sidecar fields of the series alone."""
        return {
            "RepetitionTime": self.tr,
            "SkullStripped": True,
            "AlreadyDenoised": self.cleaned,
            "Resolution": self.resolution,
            "Interpolated": self.adopted.moved,
            **scrubbing_of(self.about_motion),
        }

    def write_images(self, run: RecordingRun, mask: NDArray[np.bool_]) -> None:
        """Write the brain mask (x, y, z) and the mean volume; all volumes have been seen."""
        import numpy as np

        from ..images import write_image

        grid = self.adopted.grid
        share = round(float((mask & grid.brain).sum() / grid.brain.sum()), 4)
        about = {**self.about, "Resolution": self.resolution}
        with run.output("mni_mask", about={**about, "ShareOfTemplateBrain": share}) as path:
            write_image(path, mask.astype(np.uint8), grid.affine, in_mni=True, atomic=False)
        with run.output("mni_boldref", about={**about, "Statistic": "mean over time"}) as path:
            write_image(path, self.adopted.mean(), grid.affine, in_mni=True, atomic=False)

    def write_tables(
        self, run: RecordingRun, mask: NDArray[np.bool_], series: NDArray[np.float32] | None
    ) -> None:
        """Write the motion, and their confounds as they stand or our own of `series` (T, n)."""
        from ..preproc.tables import write_confounds as write_table
        from ..preproc.tables import write_motion
        from .confounds import mean_fd, write_confounds

        with run.output("motion", about=self.about_motion) as path:
            write_motion(path, self.motion)
        if self.confounds is None:
            assert series is not None
            write_confounds(run, series, mask)
            return
        fd = {"MeanFramewiseDisplacement": mean_fd(self.motion)}
        with run.output("confounds", about={**self.about, "RepetitionTime": self.tr, **fd}) as path:
            write_table(path, self.confounds)


def open_ready(run: RecordingRun) -> Opened:
    """Check the files of a preprocessed run, and find the way of its series onto the grid."""
    from ..images import load_template, read_image
    from ..preproc.adopt import Adopted, Grid
    from ..series import open_series

    ready = ready_of(run)
    source = take(run, ready, "series")
    assert source is not None
    series, space = open_series(source), run.params["space"]
    confounds = _their_confounds(run, ready, series.shape[3])
    motion, about_motion = motion_of(run, ready, confounds, series.shape[3])
    if confounds is not None:  # figures and scrubbing look for FD here, theirs or what we made
        confounds = confounds.assign(framewise_displacement=motion["framewise_displacement"])
    template = load_template(run.template(), "brain", space["resolution_mm"])
    brain, warp = take(run, ready, "mask"), take(run, ready, "warp")
    way = None
    if warp is not None:
        from ..preproc.fnirt import read_fnirt_field

        way = read_fnirt_field(warp, series).to_run
    adopted = Adopted(
        series,
        Grid(template.affine, template.data > 0.5),
        None if brain is None else read_image(brain),
        order=run.params["derivatives"]["order"],
        way=way,
    )
    return Opened(
        adopted,
        confounds,
        motion,
        about_motion,
        about_of(ready),
        ready.cleaned,
        f"{space['resolution_mm']:g} mm isotropic",
        run.recording.tr,
    )


def _their_confounds(run: RecordingRun, ready: Ready, n_volumes: int) -> pd.DataFrame | None:
    """The table of confounds that came with the series, checked; None where there is none."""
    from ..bids.ready.names import read_json_or_empty
    from ..preproc.adopted_tables import by_tissue, read_confounds

    path = take(run, ready, "confounds")
    if path is None:
        return None
    return by_tissue(read_confounds(path, n_volumes), read_json_or_empty(path.with_suffix(".json")))
