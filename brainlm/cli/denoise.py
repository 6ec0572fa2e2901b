"""`brainlm denoise`: drifts and head motion regressed out of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from ._single_thread import pin_libraries
from ._stage import (
    HERE,
    OnDataError,
    OnDataErrorOption,
    ParamsOption,
    RecordingArg,
    StudyOption,
    recording_stage,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("denoise")(denoise)


def denoise(
    recording_id: RecordingArg,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
) -> None:
    """Regress drifts and head motion out of one normalised run, in a single fit.

    Cosines slower than denoise.high_pass_s and the motion regressors of denoise.method
    (none, motion6, motion24) are fitted together by least squares inside the brain mask; volumes
    before the steady state are fitted out whatever the method. The residuals keep each
    voxel's mean. Writes the 4-D series and a small sample of voxels before and after (the
    carpet), from which the QC figure is drawn.
    """
    pin_libraries()
    import numpy as np
    import pandas as pd
    from safetensors.numpy import save_file

    from ..denoise.carpet import sample_carpet
    from ..denoise.filters import (
        check_freedom,
        motion_regressors,
        nuisance_basis,
        settling_regressors,
    )
    from ..denoise.regression import regress_out, variance_removed
    from ..images import read_image
    from ..series import open_series, write_series
    from ..tissues import load_tissues

    with recording_stage(
        "denoise",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=("denoised_bold", "carpet"),
        software=("nibabel", "nilearn", "numpy", "safetensors", "scipy"),
    ) as run:
        options, space, tr = run.params["denoise"], run.params["space"], run.recording.tr
        mask = read_image(run.input("mni_mask")).data > 0
        bold = open_series(run.input("preproc_bold"))
        confounds = pd.read_csv(run.input("confounds"), sep="\t", na_values="n/a")
        motion = motion_regressors(confounds, options["method"])
        settling = settling_regressors(confounds)
        unsteady = settling.shape[1]
        regressors = np.hstack([motion, settling])
        basis = nuisance_basis(regressors, tr=tr, high_pass_s=options["high_pass_s"])
        check_freedom(len(basis), basis.shape[1], str(run.recording.bold_path))

        before = bold.in_mask(mask)
        after = regress_out(before, basis)
        about = {
            "RepetitionTime": tr,
            "Resolution": f"{space['resolution_mm']:g} mm isotropic",
            "SkullStripped": True,
            "Regressors": int(basis.shape[1]),
            "NonSteadyStateVolumes": unsteady,
            "DegreesOfFreedom": int(basis.shape[0] - basis.shape[1]),
            "VarianceRemoved": round(variance_removed(before[unsteady:], after[unsteady:]), 4),
        }
        with run.output("denoised_bold", about=about) as path:
            write_series(path, _in_volumes(after, mask), bold.shape, bold.affine, tr=tr)
        labels = load_tissues(run.template(), space["resolution_mm"]).labels[mask]
        about = {"RepetitionTime": tr, "Units": "standard deviations before denoising"}
        with run.output("carpet", about=about) as path:
            save_file(sample_carpet(before, after, labels, unsteady), path)


def _in_volumes(
    series: NDArray[np.float32], mask: NDArray[np.bool_]
) -> Iterator[NDArray[np.float32]]:
    """The rows of `series` (T, n) as volumes, 0 outside the mask."""
    import numpy as np

    for values in series:
        volume = np.zeros(mask.shape, dtype=np.float32)
        volume[mask] = values
        yield volume
