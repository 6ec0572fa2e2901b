"""`brainlm qc-figure`: the quality-control figures of recordings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._console import progress
from ._reference import reference_kinds
from ._stage import (
    HERE,
    OnDataError,
    OnDataErrorOption,
    ParamsOption,
    RecordingRun,
    StageRun,
    StudyOption,
    recording_stage,
)

if TYPE_CHECKING:
    import pandas as pd

    from ..report.qc_data import QCData

RecordingsArg = Annotated[
    list[str], typer.Argument(help="recording_ids, e.g. sub-01_task-rest_run-1")
]
BatchOption = Annotated[
    str | None,
    typer.Option(
        help="also write reports/figures/batch-NUMBER.tsv, which lists the figures; recordings "
        "without data are noted there and do not stop the others (the workflow uses this)"
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("qc-figure")(qc_figure)


def qc_figure(
    recording_ids: RecordingsArg,
    study: StudyOption = HERE,
    batch: BatchOption = None,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
) -> None:
    """Draw what a person looks at before trusting a recording: a figure and a page of each.

    One PNG per recording in reports/figures: framewise displacement and standardised DVARS
    with their thresholds, the six motion parameters, the carpet of voxel series before and
    after denoising (Power 2017), and axial slices of the reference volume (undistorted where
    the run has a field) with the brain mask, left and right as in the world; of a run that came
    as parcels, their carpet. Its sidecar
    holds mean and largest FD, the number of outlier volumes and the share of parcels with
    enough voxels.

    And one page in reports/qc/recordings, which shows the figure and besides the registration (to
    switch to and fro, with the template's edges), the temporal signal-to-noise ratio, the coverage
    of the parcels, the correlations between them, and the independent components with their class.
    Its sidecar holds all numbers that `brainlm qc-page` compares.
    """
    mode = on_data_error if batch is None else OnDataError.record
    for recording_id in progress(recording_ids, "drawing figures"):
        _draw(recording_id, study, params, mode)
    if batch is not None:
        _list_figures(StageRun("qc-figure", study, params), batch, recording_ids)


def _draw(recording_id: str, study: Path, params: str | None, mode: OnDataError) -> None:
    """Draw the figure of one recording, and write its page."""
    from ..report.qc import draw_qc
    from ..report.style import to_png
    from ._quality import page_of

    with recording_stage(
        "qc-figure",
        recording_id,
        study,
        params,
        mode,
        outputs=("qc_figure", "qc_page"),
        software=("jinja2", "matplotlib", "nibabel", "numpy", "pillow"),
    ) as run:
        data = _of_volumes(run) if run.recording.kind in (None, "volume") else _of_parcels(run)
        figure = to_png(draw_qc(data))
        page = page_of(run, data, figure)
        # The page first: what the figure's hash stands for in the list of a batch is all there.
        with run.output("qc_page", about=page.numbers) as path:
            path.write_text(page.render(), encoding="utf-8")
        with run.output("qc_figure", about=data.summary()) as path:
            path.write_bytes(figure)


def _of_volumes(run: RecordingRun) -> QCData:
    """What is shown of a run that was denoised as 4-D images."""
    from safetensors.numpy import load_file

    from ..images import read_image
    from ..provenance import read_sidecar
    from ..report.qc_data import QCData, Reference

    image, mask = "mni_boldref", "mni_mask"
    if run.params["engine"] == "native":
        image, mask = reference_kinds(run)[0], "bold_mask"
    boldref = read_image(run.input(image))
    carpet = load_file(run.input("carpet"))
    known = read_sidecar(run.input("motion")).get("MotionKnown", True)
    return QCData(
        confounds=_table(run.input("confounds")),
        carpets={
            "Carpet before denoising": carpet["before"],
            "Carpet after denoising": carpet["after"],
        },
        tissue=carpet["tissue"],
        scale="before denoising",
        reference=Reference(boldref.data, read_image(run.input(mask)).data > 0, boldref.affine),
        motion_known=known,
        **_common(run),
    )


def _of_parcels(run: RecordingRun) -> QCData:
    """What is shown of a run that came as a dense series or as parcels."""
    import numpy as np
    import pandas as pd

    from ..provenance import read_sidecar
    from ..report.qc_data import QCData

    series = pd.read_parquet(run.input("timeseries")).to_numpy()
    series = series[:, np.isfinite(series).all(axis=0)].T
    deviation = series.std(axis=1, keepdims=True)
    scaled = (series - series.mean(axis=1, keepdims=True)) / np.where(deviation > 0, deviation, 1)
    motion = run.input("motion")
    about = read_sidecar(motion)
    table = _table(motion)
    if (kept := about.get("KeptVolumes")) is not None:
        table = table.iloc[kept].reset_index(drop=True)
    return QCData(
        confounds=table,
        carpets={"Parcels, in the order of the atlas": scaled},
        tissue=np.zeros(len(scaled), dtype=np.int8),
        scale="of each parcel",
        reference=None,
        motion_known=about["MotionKnown"],
        **_common(run),
    )


def _common(run: RecordingRun) -> dict[str, Any]:
    from ..provenance import read_sidecar

    coverage = run.input("coverage")
    return {
        "recording_id": run.recording.id,
        "tr": run.recording.tr,
        "fd_threshold": run.params["confounds"]["fd_threshold_mm"],
        "dvars_threshold": run.params["confounds"]["dvars_threshold"],
        "coverage": _table(coverage)["coverage"].to_numpy(dtype=float),
        "min_coverage": read_sidecar(coverage)["Parameters"]["parcellate"]["min_coverage"],
        "atlas": run.params["atlas"]["name"],
    }


def _table(path: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(path, sep="\t", na_values="n/a")


def _list_figures(run: StageRun, batch: str, recording_ids: list[str]) -> None:
    """Write the list of a batch: each recording with the hash of its figure, or n/a."""
    from ..provenance import is_tombstone, sha256_file

    lines = ["recording_id\tsha256"]
    for recording_id in recording_ids:
        figure = run.path("qc_figure", recording=recording_id)
        lines.append(f"{recording_id}\t{'n/a' if is_tombstone(figure) else sha256_file(figure)}")
    with run.output("qc_batch", batch=batch) as path:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
