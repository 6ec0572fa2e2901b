"""`brainlm ica`: the independent components of a run, and which of them are noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ._console import say, warn
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

    from ..denoise.aroma import Regions
    from ..denoise.judge import Judged

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
    features of ICA-AROMA with the classification that follows from them, or from your own
    ica.rule or ica.classifier. Nothing is taken out
    of the run here: `brainlm denoise` does that, where denoise.method is aroma. To
    overrule a classification, copy the table to review/ in the study folder and edit it there
    (accepted or rejected): denoising and what follows run anew.
    """
    pin_libraries()
    from ..series import open_series, read_mask

    with recording_stage(
        "ica",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=OUTPUTS,
        software=("nibabel", "nilearn", "numpy", "pandas", "python-picard", "scipy"),
    ) as run:
        bold = open_series(run.input("preproc_bold"))
        mask = read_mask(run.input("mni_mask"), bold.affine, bold.shape)
        confounds = run.input("confounds")
        series = bold.in_mask(mask.data, mem_gb)
        write_components(run, series, mask.data, mask.affine, confounds)


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
    from ..denoise.regressors import check_rows
    from ..denoise.verdict import check_classifier, with_verdict
    from ..images import write_image

    options, tr = run.params["ica"], run.recording.tr
    # First what says at once that something is not there.
    check_classifier(options, run.study.root)
    regions = _regions(run, mask)
    table = pd.read_csv(confounds, sep="\t", na_values="n/a")
    check_rows(len(table), len(series), confounds)
    found, origin = _reused(run, series, table, regions)
    if found is None:
        found = find_and_judge(series, mask, affine, table, regions, tr=tr, options=options)
    found = with_verdict(found, options, mask, affine, folder=run.study.root, tr=tr)
    about: dict[str, Any] = {"RepetitionTime": tr, **found.about(), **origin}
    with run.output("ica_mixing", about=about) as path:
        write_mixing(path, found.mixing)
    with run.output("ica_maps", about={**about, "Thresholded": "mixture model, p > 0.5"}) as path:
        write_image(path, found.volumes(mask), affine, in_mni=True, tr=1.0, atomic=False)
    with run.output("aroma_metrics", about={**about, "Masks": options["masks"]}) as path:
        write_metrics(path, found.metrics)
    if not about["Converged"]:
        warn(
            f"the components of {run.recording.id} did not settle; denoising will take "
            f"out {FALLBACK} instead, unless a table in review/ says which are noise"
        )
    say(f"{run.recording.id}: {about['Rejected']} of {about['Components']} components are noise")


def _reused(
    run: RecordingRun, series: NDArray[np.float32], table: pd.DataFrame, regions: Regions
) -> tuple[Judged | None, dict[str, Any]]:
    """The components that came with a preprocessed run, where they are wanted and there.

    And what the sidecars say of them, whoever judges: they are not of our search.
    """
    from ..denoise.reused import reuse_components
    from ._ready import ready_of, take

    wanted = run.params.get("derivatives", {}).get("components") == "reuse"
    if not wanted or "mixing" not in run.recording.ready:
        return None, {}
    ready = ready_of(run)
    mixing, verdict = take(run, ready, "mixing"), take(run, ready, "components")
    assert mixing is not None and verdict is not None
    seed, tr = run.params["ica"]["seed"], run.recording.tr
    origin = {
        "Reused": f"{mixing.name}, {verdict.name}",
        "ProcessedBy": {"components": ready.by["components"]},
    }
    found = reuse_components(series, table, regions, mixing, verdict, tr=tr, seed=seed)
    return found, origin


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
