"""`brainlm reproducibility`: what a reviewer can check, and the study as an RO-Crate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError
from ..report.reproducibility.options import Energy
from ._console import progress, say, warn
from ._stage import HERE, ParamsOption, StageRun, StudyOption

if TYPE_CHECKING:
    from ..report.reproducibility.base import About, Sharing


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("reproducibility")(reproducibility)


def reproducibility(
    study: StudyOption = HERE,
    params: ParamsOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="exit 3 when there is an alarm; the page is written")
    ] = False,
    shareable: Annotated[
        bool,
        typer.Option("--shareable", help="also write reports/shareable, which names nobody"),
    ] = False,
    fast: Annotated[
        bool, typer.Option("--fast", help="of large files compare the size and both ends alone")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="read the raw files too, and compare their hashes")
    ] = False,
    cpu_watts: Annotated[
        float, typer.Option(min=0, help="for the estimate of energy: a core at work")
    ] = Energy.cpu_w_per_core,
    memory_watts: Annotated[
        float, typer.Option(min=0, help="a GB of memory")
    ] = Energy.memory_w_per_gb,
    gpu_watts: Annotated[
        float, typer.Option(min=0, help="a GPU whose own limit was not recorded")
    ] = Energy.gpu_w,
    pue: Annotated[
        float, typer.Option(min=1, help="what the centre draws in all, by what its computers do")
    ] = Energy.pue,
) -> None:
    """Write reports/reproducibility.html and ro-crate-metadata.json.

    The page shows from which files every number comes, and compares each with the hash that was
    recorded of it; who is in the cohort and why others are not; that no split knows another; motion
    by split and by label; environment, cost and reruns; methods in words for a paper. What must not
    be (a file that has changed, leakage, a version known to be wrong) stands on top in red. It can
    be made at any time: what has not run yet is named with the command that runs it.

    The study's folder is then an RO-Crate. With --shareable, reports/shareable holds a page and a
    crate for others: aliases for recordings, no paths, no label values, no number of people below
    report.k_anonymity. Read it before you give it away.
    """
    from ..report.gather import gather
    from ..report.reproducibility.base import About
    from ..report.reproducibility.options import Options
    from ..report.reproducibility.sharing import Aliases, read_key

    run = StageRun("reproducibility", study, params)
    targets = tuple(target["name"] for target in run.params["finetune"]["targets"])
    findings = gather(run.study, run.fields, targets, run.config.name)
    options = Options(
        raw=raw,
        fast=fast,
        energy=Energy(cpu_watts, memory_watts, gpu_watts, pue),
        progress=progress,
    )
    about = About(run.study, run.config, run.fields, targets, findings, options)
    alarms = _write(about, None)
    say(f"The report is {run.path('reproducibility')}")
    if shareable:
        aliases = Aliases(read_key(run.path("sharing_key")), run.params["report"]["k_anonymity"])
        _write(about, aliases)
        say(f"The shareable report is {run.path('shareable')}")
    for alarm in alarms:
        warn(alarm)
    if strict and alarms:
        raise DataError(
            f"{len(alarms)} alarm{'s' * (len(alarms) != 1)} in the report, first: {alarms[0]}",
            file=run.path("reproducibility"),
            fix="it says of each what to do",
        )


def _write(about: About, sharing: Sharing | None) -> list[str]:
    """The page, the workflow beside it, the crate that describes both; returns the alarms.

    They have no sidecars: what they tell is provenance, and would otherwise tell of itself.
    """
    from ..files import write_json, write_text
    from ..report.reproducibility.crate import copy_workflow, describe, read_graph
    from ..report.reproducibility.page import make_sections, render_page

    page, crate, workflow = (
        ("reproducibility", "crate", "crate_workflow")
        if sharing is None
        else ("shareable", "shareable_crate", "shareable_workflow")
    )
    sections = make_sections(about, sharing)
    write_text(about.path(page), render_page(about, sections, sharing))
    copy_workflow(about.path(workflow))
    root = about.path(crate).parent
    write_json(
        about.path(crate),
        describe(
            about,
            read_graph(about),
            sharing,
            page=about.path(page),
            workflow=about.path(workflow),
            root=root,
        ),
    )
    return [alarm for section in sections for alarm in section.alarms]
