"""`brainlm evaluation-page`: the paper's tables and figures of a study, on one page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ._console import say
from ._stage import HERE, ParamsOption, StageRun, StudyOption

if TYPE_CHECKING:
    from ..report.evaluation.page import Heading
    from ..report.evaluation.parts import Material


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("evaluation-page")(evaluation_page)


def evaluation_page(study: StudyOption = HERE, params: ParamsOption = None) -> None:
    """Write evaluation/RUN/index.html: all tables and figures of the evaluation, and results.tsv.

    It joins what the tasks of evaluate.tasks have left in evaluation/RUN: tables (also as Markdown,
    LaTeX and HTML in tables/), figures (SVG and PNG in figures/), interactive views (views/) and
    every score with its interval and its p in results.tsv. What the paper published is printed
    beside, marked as such. What has not run yet is named with the command that runs it. No subject
    or recording is named in any of these files.
    """
    from ..report.evaluation.page import render_page
    from ..report.evaluation.parts import Material, Section
    from ..report.evaluation.published import published
    from ..report.evaluation.results_table import results_table, to_tsv
    from ..report.evaluation.sections import gather_sections
    from ..report.evaluation.write import draw, write_parts

    run = StageRun("evaluation-page", study, params, software=("jinja2", "matplotlib", "pandas"))
    targets = tuple(target["name"] for target in run.params["finetune"]["targets"])
    material = Material(run.study, run.fields, targets)
    parts = gather_sections(
        material,
        tuple(run.params["evaluate"]["tasks"]),
        forecasts=run.params["finetune"]["forecast"],
    )
    sections = [part for part in parts if isinstance(part, Section)]
    heading = _heading(run, material)
    beside = {
        section.name: table
        for section in sections
        if (table := published(section.name, heading.datasets)) is not None
    }
    drawn = draw(picture for section in sections for picture in section.pictures)
    write_parts(run.path("evaluation_page").parent, sections, drawn, list(beside.values()))
    for path in sorted(material.seen):
        run.source(path)
    rows = results_table(row for section in sections for row in section.rows)
    with run.output("results") as path:
        path.write_text(to_tsv(rows), encoding="utf-8")
    headlines = [[part.title, part.headline] for part in sections if part.headline]
    with run.output("evaluation_page", about={"Headlines": headlines}) as path:
        path.write_text(render_page(heading, parts, drawn, beside), encoding="utf-8")
    say(f"{len(sections)} of {len(parts)} tasks: {run.path('evaluation_page')}")


def _heading(run: StageRun, material: Material) -> Heading:
    """What the page says of the study itself."""
    from ..report.evaluation.page import Heading
    from ..report.prose import is_standin

    index = material.table("shards_index")
    return Heading(
        name=run.config.name,
        run=run.fields["run"],
        datasets=() if index is None else tuple(sorted(index["dataset"].astype(str).unique())),
        standin=is_standin(run.fields["atlas"]),
        phantom=(run.bids_dir / "derivatives" / "phantom-truth").is_dir(),
    )
