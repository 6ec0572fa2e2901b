"""`brainlm methods`: the methods of the study in words, for a paper."""

from __future__ import annotations

import typer

from ._console import say
from ._stage import HERE, StudyOption


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(methods)


def methods(study: StudyOption = HERE) -> None:
    """Write reports/methods.md and references.bib: what ran, in sentences for a paper.

    From acquisition to statistics, with the numbers and versions that sidecars and results hold;
    what did not run is not told. Citations are Pandoc's: `pandoc --citeproc --bibliography
    references.bib methods.md -o methods.docx`. Can be made at any time.
    """
    from ..files import write_text
    from ..report.reproducibility.about import about_study
    from ..report.reproducibility.methods_text import methods_files

    about = about_study(study)
    text, references = methods_files(about)
    write_text(about.path("references"), references)
    write_text(about.path("methods"), text)
    say(text)
    say(f"Written to {about.path('methods')} and {about.path('references').name}")
