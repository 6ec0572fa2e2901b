"""Section: the methods, in words that can go into a paper, with what to cite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...files import read_json
from ...provenance import sidecar_path
from ...wording import exactly
from . import methods_data, methods_models
from .base import About, Section, Sharing, render
from .bibliography import bibtex, in_brackets, keys_in, reference

TITLE = "Methods, for a paper"


@dataclass(frozen=True)
class Paragraph:
    """Some sentences under a heading."""

    title: str
    text: str  # citations as Pandoc writes them: [@power2012]


def section(about: About, sharing: Sharing | None) -> Section:
    """The text as it reads, the list of references, and both as they are pasted."""
    found = paragraphs(about, sharing)
    keys = keys_in(one.text for one in found)
    html = render(
        "methods_text.html.j2",
        paragraphs=[(one.title, in_brackets(one.text)) for one in found],
        references=[reference(key) for key in keys],
        markdown=markdown(found),
        bibtex=bibtex(keys),
    )
    return Section("methods_text", TITLE, html)


def paragraphs(about: About, sharing: Sharing | None = None) -> list[Paragraph]:
    """Of all that ran, in the order in which it ran; nothing of what did not."""
    findings = about.findings
    tell, k = (exactly, 1) if sharing is None else (sharing.count, sharing.k)
    whole = sharing is None
    scaler, model = _noted(about.path("scaler")), _noted(about.path("model"))
    made: list[tuple[str, Callable[[], str]]] = [
        ("Participants and acquisition", lambda: methods_data.data(findings, tell, k)),
        ("Earlier processing", lambda: methods_data.done_before(findings, whole=whole)),
        ("Head motion", lambda: methods_data.motion(findings)),
        ("Registration and resampling", lambda: methods_data.registration(findings, tell)),
        ("Denoising", lambda: methods_data.denoising(findings, whole=whole)),
        ("Parcellation", lambda: methods_data.parcellation(findings)),
        ("Quality control and splits", lambda: methods_data.cohort(findings, tell, k)),
        ("Scaling", lambda: methods_data.scaling(findings, scaler, tell)),
        ("Pretraining", lambda: methods_models.pretraining(findings, model)),
        ("Fine-tuning", lambda: methods_models.finetuning(findings)),
        ("Evaluation", lambda: methods_models.evaluation(findings, tell, k)),
        ("Statistics", lambda: methods_models.statistics(findings)),
        ("Software", lambda: methods_models.software(findings)),
    ]
    told = [Paragraph(title, _written(make)) for title, make in made]
    return [one for one in told if one.text]


def _written(make: Callable[[], str]) -> str:
    """A paragraph; or what an earlier version had not recorded yet."""
    try:
        return make()
    except KeyError as error:
        return (
            f"[This paragraph cannot be written: {error} was not recorded by the version that "
            "ran. Run the stage again.]"
        )


def _noted(path: Path) -> Mapping[str, Any]:
    """What the sidecar of a file says; nothing where there is none, or a damaged one."""
    try:
        return dict(read_json(sidecar_path(path)))
    except (OSError, ValueError, TypeError):
        return {}


def markdown(found: list[Paragraph]) -> str:
    """The text with Pandoc's citations, which references.bib resolves."""
    if not found:
        return "# Methods\n\nNothing has run yet.\n"
    return "# Methods\n" + "".join(f"\n## {one.title}\n\n{one.text}\n" for one in found)


def methods_files(about: About) -> tuple[str, str]:
    """The contents of reports/methods.md and reports/references.bib."""
    found = paragraphs(about)
    return markdown(found), bibtex(keys_in(one.text for one in found))
