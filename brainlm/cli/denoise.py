"""`brainlm denoise`: drifts, head motion and spoilt volumes taken out of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ._console import warn
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
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ..denoise.design import Design, Noise


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("denoise")(denoise)


def denoise(
    recording_id: RecordingArg,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
    mem_gb: MemoryOption = None,
) -> None:
    """Take drifts, noise and, if asked for, fast changes and spoilt volumes out of a run.

    Inside the brain mask, cosines slower than denoise.high_pass_s (or a Gaussian-weighted
    running line), cosines faster than denoise.low_pass_s, and the columns of denoise.method
    are removed so that nothing that was filtered comes back. Volumes before the steady state,
    and with denoise.scrub those with motion, have no say in the fit. The result keeps each
    voxel's mean. With denoise.method fix, the series is clean already: it is checked and passed
    on. Writes the 4-D series and a small sample of voxels before and after (the
    carpet) with the temporal signal-to-noise ratio of all, for the pages of quality control.
    """
    pin_libraries()
    from ..provenance import read_sidecar
    from ..series import in_volumes, open_series, read_mask, write_series
    from ._scrubbing import scrubbing_of

    with recording_stage(
        "denoise",
        recording_id,
        study,
        params,
        on_data_error,
        outputs=("denoised_bold", "carpet"),
        software=("nibabel", "nilearn", "numpy", "safetensors", "scipy"),
    ) as run:
        source = run.input("preproc_bold")
        bold = open_series(source)
        mask = read_mask(run.input("mni_mask"), bold.affine, bold.shape).data
        design = design_of(run, run.input("confounds"))
        series = bold.in_mask(mask, mem_gb)
        about = {
            "RepetitionTime": run.recording.tr,
            "Resolution": f"{run.params['space']['resolution_mm']:g} mm isotropic",
            "SkullStripped": True,
            **clean_and_sample(run, series, mask, design, scrubbing_of(read_sidecar(source))),
        }
        shape = (*mask.shape, len(design.volumes))
        with run.output("denoised_bold", about=about) as path:
            volumes = in_volumes(series, mask, design.volumes)
            write_series(path, volumes, shape, bold.affine, tr=run.recording.tr)


def design_of(run: RecordingRun, confounds: Path) -> Design:
    """What is to be done to this run, from its table of confounds as it stands in the file."""
    import pandas as pd

    from ..denoise.design import make_design

    return make_design(
        pd.read_csv(confounds, sep="\t", na_values="n/a"),
        tr=run.recording.tr,
        options=run.params["denoise"],
        file=run.recording.bold_path,
        components=_components_of(run) if run.params["denoise"]["method"] == "aroma" else None,
    )


def _components_of(run: RecordingRun) -> Noise:
    """The run's components as `brainlm ica` left them, or as a person has classified them since."""
    from ..denoise.components import (
        check_same_components,
        read_mixing,
        read_noise,
        search_settled,
    )
    from ..denoise.design import Noise

    mixing = read_mixing(run.input("ica_mixing"))
    table, review = run.input("aroma_metrics"), run.path("aroma_review")
    if not review.exists():
        return Noise(mixing, read_noise(table, list(mixing.columns)), search_settled(table))
    rejected = read_noise(run.source(review), list(mixing.columns))
    check_same_components(review, table)
    return Noise(mixing, rejected)


def clean_and_sample(
    run: RecordingRun,
    series: NDArray[np.float32],
    mask: NDArray[np.bool_],
    design: Design,
    earlier: Mapping[str, Any],
) -> dict[str, Any]:
    """Denoise `series` (T, n) in place, write the carpet, and say what was done.

    `earlier` tells of volumes that the series had lost before. The carpet's sidecar says it all
    too, for the carpet lasts when the series does not.
    """
    from safetensors.numpy import save_file

    from ..denoise.carpet import carpet_voxels, make_carpet
    from ..denoise.regression import clean
    from ..denoise.regressors import check_rows
    from ..denoise.scrub import in_the_raw_run
    from ..denoise.snr import temporal_snr
    from ..tissues import load_tissues

    space, tr = run.params["space"], run.recording.tr
    check_rows(len(design.kept), len(series), run.path("confounds"))
    labels = load_tissues(run.template(), space["resolution_mm"]).labels[mask]
    shown = carpet_voxels(series, labels, design.kept)
    before, snr_before = series[:, shown], temporal_snr(series, design.kept)
    given = run.params["denoise"]["method"] == "fix"
    look = _look(run, series, design) if given else {}
    removed = clean(series, design)
    done: dict[str, Any] = {
        **look,
        **in_the_raw_run(design.about(run.params["denoise"]["scrub"]), earlier),
        "VarianceRemoved": round(removed, 4),
    }
    about = {"RepetitionTime": tr, "Units": "standard deviations before denoising", **done}
    with run.output("carpet", about=about) as path:
        rows = make_carpet(before, series[:, shown], labels[shown], design.kept)
        snr = {"tsnr_before": snr_before, "tsnr_after": temporal_snr(series, design.kept)}
        save_file({**rows, **snr}, path)
    return done


def _look(run: RecordingRun, series: NDArray[np.float32], design: Design) -> dict[str, Any]:
    """How clean the voxels (T, n) look of a run that others have cleaned; a warning if not."""
    import pandas as pd

    from ..denoise.given import look_at_given

    table = pd.read_csv(run.path("confounds"), sep="\t", na_values="n/a")
    look = look_at_given(series, table, design.kept, run.recording.bold_path)
    if not look.get("LooksCleaned", True):
        warn(
            f"{run.recording.id} does not look clean: motion explains "
            f"{look['MotionVarianceShare']:.0%} of its variance. Is denoise.method: fix right?"
        )
    return look
