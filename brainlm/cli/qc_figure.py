"""`brainlm qc-figure`: the quality-control figures of recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._console import progress
from ._reference import reference_kinds
from ._stage import (
    HERE,
    OnDataError,
    OnDataErrorOption,
    ParamsOption,
    StageRun,
    StudyOption,
    recording_stage,
)

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
    """Draw what a person looks at before trusting a recording.

    One PNG per recording in reports/figures: framewise displacement and standardised DVARS
    with their thresholds, the six motion parameters, the carpet of voxel series before and
    after denoising (Power 2017), and axial slices of the reference volume (undistorted where
    the run has a field) with the brain mask, left and right as in the world. Its sidecar
    holds mean and largest FD, the number of outlier volumes and the share of parcels with
    enough voxels.
    """
    mode = on_data_error if batch is None else OnDataError.record
    for recording_id in progress(recording_ids, "drawing figures"):
        _draw(recording_id, study, params, mode)
    if batch is not None:
        _list_figures(StageRun("qc-figure", study, params), batch, recording_ids)


def _draw(recording_id: str, study: Path, params: str | None, mode: OnDataError) -> None:
    """Draw the figure of one recording."""
    import pandas as pd
    from safetensors.numpy import load_file

    from ..images import read_image
    from ..provenance import read_sidecar
    from ..report.qc import QCData, draw_qc
    from ..report.style import to_png

    with recording_stage(
        "qc-figure",
        recording_id,
        study,
        params,
        mode,
        outputs=("qc_figure",),
        software=("matplotlib", "nibabel", "numpy", "pillow"),
    ) as run:
        boldref = read_image(run.input(reference_kinds(run)[0]))
        carpet = load_file(run.input("carpet"))
        coverage = run.input("coverage")
        data = QCData(
            recording_id=recording_id,
            tr=run.recording.tr,
            confounds=pd.read_csv(run.input("confounds"), sep="\t", na_values="n/a"),
            fd_threshold=run.params["confounds"]["fd_threshold_mm"],
            dvars_threshold=run.params["confounds"]["dvars_threshold"],
            carpet_before=carpet["before"],
            carpet_after=carpet["after"],
            tissue=carpet["tissue"],
            boldref=boldref.data,
            mask=read_image(run.input("bold_mask")).data > 0,
            affine=boldref.affine,
            coverage=pd.read_csv(coverage, sep="\t")["coverage"].to_numpy(dtype=float),
            min_coverage=read_sidecar(coverage)["Parameters"]["parcellate"]["min_coverage"],
            atlas=run.params["atlas"]["name"],
        )
        with run.output("qc_figure", about=data.summary()) as path:
            path.write_bytes(to_png(draw_qc(data)))


def _list_figures(run: StageRun, batch: str, recording_ids: list[str]) -> None:
    """Write the list of a batch: each recording with the hash of its figure, or n/a."""
    from ..provenance import is_tombstone, sha256_file

    lines = ["recording_id\tsha256"]
    for recording_id in recording_ids:
        figure = run.path("qc_figure", recording=recording_id)
        lines.append(f"{recording_id}\t{'n/a' if is_tombstone(figure) else sha256_file(figure)}")
    with run.output("qc_batch", batch=batch) as path:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
