"""`brainlm report`: one page on the whole study."""

from __future__ import annotations

import typer

from ._console import say
from ._stage import HERE, ParamsOption, StageRun, StudyOption


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("report")(report)


def report(study: StudyOption = HERE, params: ParamsOption = None) -> None:
    """Write reports/report.html: one self-contained page on the whole study.

    It needs no network and no other file: stages and counts, who was left out and why, a QC
    figure of each recording (of the 60 that moved most in larger studies), the training
    curve, masked reconstruction and label prediction against their baselines with confidence
    intervals, hashes, versions, code digests, and what is still thin. It can be made at any
    time; what has not run yet is named with the command that runs it.

    The page names subjects: it is not meant to leave the place where the data are.
    """
    from ..layout import entities_of
    from ..provenance import check_input, is_tombstone
    from ..report.gather import gather
    from ..report.page import render_page
    from ..report.recordings import figures_to_embed

    run = StageRun(
        "report", study, params, software=("jinja2", "matplotlib", "pandas", "safetensors")
    )
    targets = [target["name"] for target in run.params["finetune"]["targets"]]
    findings = gather(run.study, run.fields, targets, run.config.name)
    for kind in ("recordings", "cohort", "model_log", "reconstruction"):
        if run.path(kind).exists():
            run.source(run.path(kind))
    figures = {}
    for name in figures_to_embed(findings):
        path = run.path("qc_figure", recording=name)
        if path.exists() and not is_tombstone(path):
            check_input(path, entities_of(name))
            figures[name] = run.source(path).read_bytes()
    with run.output("report") as path:
        path.write_text(render_page(findings, figures), encoding="utf-8")
    say(f"The report is {run.path('report')}")
