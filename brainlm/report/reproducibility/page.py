"""The page of the reproducibility report: its sections, joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from markupsafe import Markup

from ..page import status
from . import cards, cohort_flow, cost, environment, lineage, methods_text, reruns
from .base import About, Section, Sharing, render

#: In the order of the page. Each is made by itself, so that one damaged file takes no other away.
SECTIONS: dict[str, tuple[str, Callable[[About, Sharing | None], Section]]] = {
    "lineage": ("Lineage", lineage.section),
    "cohort": ("Who is in, and who is not", cohort_flow.section),
    "environment": ("Environment", environment.section),
    "reruns": ("Reruns", reruns.section),
    "cost": ("Cost", cost.section),
    "methods": ("Methods, for a paper", methods_text.section),
    "cards": ("Cards of the data and the model", cards.section),
}

#: What a study goes through -> the target that makes it, for the list of what is missing.
_TARGETS = (
    ("the cohort and its splits", "shards", lambda found: found.cohort is None),
    ("the shards", "shards", lambda found: found.shards is None),
    ("the pretrained model", "pretrain", lambda found: found.parameters is None),
    ("the evaluation of hidden signal", "evaluate", lambda found: found.reconstruction is None),
    (
        "the evaluation of labels",
        "evaluate",
        lambda found: any(one.metrics is None for one in found.clinical.values()),
    ),
)


def make_sections(about: About, sharing: Sharing | None) -> list[Section]:
    """All sections; one that cannot be made says so in its place, as an alarm."""
    return [_make(key, about, sharing) for key in SECTIONS]


def _make(key: str, about: About, sharing: Sharing | None) -> Section:
    title, make = SECTIONS[key]
    try:
        return replace(make(about, sharing), key=key)
    except Exception as error:  # whatever a damaged file breaks, the rest of the page is needed
        why = type(error).__name__
        if sharing is None:  # in the shareable page its words may be anybody's name
            why += f": {' '.join(str(error).split())}"
        told = f"The section “{title}” cannot be made: {why}"
        return Section(key, title, Markup('<p class="pending">{}</p>').format(told), (told,))


def render_page(about: About, sections: Sequence[Section], sharing: Sharing | None) -> str:
    """One self-contained HTML page."""
    findings = about.findings
    damaged = [
        note if sharing is None else sharing.path(note.partition(":")[0])
        for note in findings.damaged
    ]
    alarms = [alarm for section in sections for alarm in section.alarms]
    text = render(
        "reproducibility.html.j2",
        name=findings.name,
        shared=sharing is not None,
        status=status(findings) if sharing is None else status(findings, sharing.count),
        alarms=alarms,
        damaged=damaged,
        missing=[(what, target) for what, target, is_missing in _TARGETS if is_missing(findings)],
        sections=sections,
    )
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip()) + "\n"
