"""`brainlm ica`: the independent components of a run, and which of them are noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ._console import say
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
    from numpy.typing import NDArray

    from ..denoise.aroma import Regions

OUTPUTS = ("ica_mixing", "ica_maps", "aroma_metrics")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("ica")(ica)


def ica(
    recording_id: RecordingArg,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
    mem_gb: MemoryOption = None,
) -> None:
    """Find the independent components of one normalised run, and judge each by ICA-AROMA.

    Writes the courses (mixing), the maps where each component is active, and a table of the four
    features of ICA-AROMA with the classification that follows from them. Nothing is taken out
    of the run here: `brainlm denoise` does that, where denoise.method is aroma. To
    overrule a classification, copy the table to review/ in the study folder and edit it there
    (accepted or rejected): denoising and what follows run anew.
    """
    pin_libraries()
    from ..images import read_image
    from ..series import open_series

    with recording_stage(
        "ica",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=OUTPUTS,
        software=("nibabel", "nilearn", "numpy", "pandas", "python-picard", "scipy"),
    ) as run:
        image = read_image(run.input("mni_mask"))
        mask = image.data > 0
        confounds = run.input("confounds")
        series = open_series(run.input("preproc_bold")).in_mask(mask, mem_gb)
        write_components(run, series, mask, image.affine, confounds)


def write_components(
    run: RecordingRun,
    series: NDArray[np.float32],
    mask: NDArray[np.bool_],
    affine: NDArray[np.float64],
    confounds: Path,
) -> None:
    """Decompose the voxels `series` (T, n) of `mask` (x, y, z), and write what came out."""
    import pandas as pd

    from ..denoise.design import FALLBACK
    from ..denoise.judge import find_and_judge, write_metrics, write_mixing
    from ..images import write_image

    options, tr = run.params["ica"], run.recording.tr
    regions = _regions(run, mask)  # first: it says at once what is not there
    table = pd.read_csv(confounds, sep="\t", na_values="n/a")
    found = find_and_judge(series, mask, affine, table, regions, tr=tr, options=options)
    about: dict[str, Any] = {"RepetitionTime": tr, **found.about()}
    with run.output("ica_mixing", about=about) as path:
        write_mixing(path, found.mixing)
    with run.output("ica_maps", about={**about, "Thresholded": "mixture model, p > 0.5"}) as path:
        write_image(path, found.volumes(mask), affine, in_mni=True, tr=1.0, atomic=False)
    with run.output("aroma_metrics", about={**about, "Masks": options["masks"]}) as path:
        write_metrics(path, found.metrics)
    if not about["Converged"]:
        say(
            f"Warning: the components of {run.recording.id} did not settle; denoising will take "
            f"out {FALLBACK} instead, unless a table in review/ says which are noise"
        )
    say(f"{run.recording.id}: {about['Rejected']} of {about['Components']} components are noise")


def _regions(run: RecordingRun, mask: NDArray[np.bool_]) -> Regions:
    """Where noise shows, with what it was read from among the sources."""
    from ..denoise.regions import chosen_regions
    from ..masks import mask_sources
    from ..tissues import load_tissues

    options, space = run.params["ica"], run.params["space"]
    tissues = load_tissues(run.template(), space["resolution_mm"])
    found = chosen_regions(options, space["template"], tissues, mask)
    if options["masks"] == "aroma":
        run.sources |= mask_sources()
    return found
