"""`brainlm confounds`: nuisance time series of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

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


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("confounds")(confounds)


def confounds(
    recording_id: RecordingArg,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
    mem_gb: MemoryOption = None,
) -> None:
    """Compute the confounds of one run, under fMRIPrep's column names.

    Motion parameters and the mean signals of brain, CSF and white matter, each with
    derivatives and squares (36), framewise displacement, relative RMS displacement, DVARS
    plain and standardised, cosine drifts, components of CSF and white matter (aCompCor) and of
    the most variable voxels (tCompCor), and one column for each outlying volume and each
    before the steady state. `n/a` where a difference is undefined. nilearn's
    load_confounds reads the table where it lies, given the name of the preprocessed series.
    """
    pin_libraries()
    from ..series import open_series, read_mask

    with recording_stage(
        "confounds",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=("confounds",),
        software=("nilearn", "numpy", "pandas", "scipy"),
    ) as run:
        bold = open_series(run.input("preproc_bold"))
        mask = read_mask(run.input("mni_mask"), bold.affine, bold.shape).data
        write_confounds(run, bold.in_mask(mask, mem_gb), mask)


def write_confounds(
    run: RecordingRun, series: NDArray[np.float32], mask: NDArray[np.bool_]
) -> None:
    """Compute and write the confounds of a run from its voxels (T, n) in `mask` (x, y, z)."""
    import pandas as pd

    from ..geometry import MOTION_NAMES
    from ..preproc.confounds import confounds_table, expand, tissue_voxels
    from ..preproc.tables import write_confounds as write_table
    from ..provenance import read_sidecar
    from ..tissues import load_tissues

    options, space, tr = run.params["confounds"], run.params["space"], run.recording.tr
    source = run.input("motion")
    motion = pd.read_csv(source, sep="\t", na_values="n/a")
    kept, changes = read_sidecar(source).get("KeptVolumes"), pd.DataFrame()
    if kept is not None:  # a movement is that since the volume before, whether it is kept or not
        changes = expand(motion[list(MOTION_NAMES)]).iloc[kept].reset_index(drop=True)
        motion = motion.iloc[kept].reset_index(drop=True)
    tissues = load_tissues(run.template(), space["resolution_mm"])
    voxels = tissue_voxels(tissues, mask)
    table, components = confounds_table(series, motion, voxels, tr=tr, **options)
    table = table.assign(**changes)
    about = {
        **components,
        "RepetitionTime": tr,
        "VoxelsAveraged": {name: len(chosen) for name, chosen in voxels.items()},
        "OutlierVolumes": sum(name.startswith("motion_outlier") for name in table.columns),
        "MeanFramewiseDisplacement": mean_fd(table),
    }
    with run.output("confounds", about=about) as path:
        write_table(path, table)


def mean_fd(table: pd.DataFrame) -> float | None:
    """Mean FD, mm; none where nothing is known of the head's motion."""
    known = table["framewise_displacement"].dropna()
    return float(known.mean()) if len(known) else None
