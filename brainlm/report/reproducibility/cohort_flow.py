"""Who is in, who is out and why; that no split knows another; motion by split and by label."""

from __future__ import annotations

from typing import Any

from .base import About, Section, Sharing, render
from .cohort_flow_diagram import WIDTH, draw
from .cohort_flow_leakage import Check, alarms, check_leakage
from .cohort_flow_quality import (
    QUANTITIES,
    draw_by_label,
    draw_by_split,
    label_of_people,
    of_people,
    spreads,
    tests,
)
from .cohort_flow_steps import read_flow, tell

#: Below this p (Holm) a test is worth a sentence.
_NOTABLE = 0.05


def section(about: About, sharing: Sharing | None) -> Section:
    """The cohort's part of the page."""
    flow = read_flow(about.findings, public=sharing is not None)
    told = tell(flow, sharing, about.config.report.k_anonymity)
    diagram = draw(told)
    checks = check_leakage(about)
    shown = [name["name"] for name in told.splits if name["recordings"] != "not told"]
    return Section(
        "cohort",
        "Who is in, and who is not",
        render(
            "cohort_flow.html.j2",
            width=WIDTH,
            diagram=diagram,
            steps=told.steps,
            splits=told.splits,
            shared=sharing is not None,
            k=about.config.report.k_anonymity,
            checks=[_row(check, sharing) for check in checks],
            quality=_quality(about, sharing, shown),
        ),
        tuple(alarms([_in_public(check, sharing) for check in checks])),
    )


def _in_public(check: Check, sharing: Sharing | None) -> Check:
    """A check without numbers of people, and without files that are none of the layout."""
    if sharing is None:
        return check
    file = check.file if check.file.startswith("models, ") else sharing.path(check.file)
    return Check(check.question, file, check.state, check.state, check.count)


def _row(check: Check, sharing: Sharing | None) -> dict[str, str]:
    check = _in_public(check, sharing)
    return {
        "question": check.question,
        "file": check.file,
        "state": check.state,
        "told": check.told,
    }


def _quality(about: About, sharing: Sharing | None, splits: list[str]) -> dict[str, Any] | None:
    """Tables and plots; in the shareable variant no points, and only of splits that are told."""
    cohort = about.findings.cohort
    if cohort is None or not splits:
        return None
    people = of_people(cohort)
    k = about.config.report.k_anonymity if sharing else 1
    digits = {"mean_fd": 2 if sharing else 3, "share_parcels": 2 if sharing else 3}
    rows, charts = [], []
    for quantity, name in QUANTITIES.items():
        if quantity not in people.columns or people[quantity].notna().sum() < max(k, 2):
            continue
        there = [one for one in spreads(people, quantity, k) if one.split in splits]
        for one in there:
            ends = [f"{value:.{digits[quantity]}f}" for value in one.quartiles or ()]
            number = f"{one.people:,}" if sharing is None else ""
            middle = f"{one.median:.{digits[quantity]}f}"
            rows.append((name, one.split, number, middle, " to ".join(ends) or "not told"))
        if there:
            uri = draw_by_split(people, quantity, there, points=sharing is None)
            charts.append({"uri": uri, "alt": f"{name} by split"})
    found = [
        test
        for test in tests(cohort, about.config.finetune.targets)
        if sharing is None or test.people >= 2 * k
    ]
    return {
        "spreads": rows,
        "charts": charts,
        "labels": _by_label(about) if sharing is None else [],
        "tests": [
            {
                "quantity": QUANTITIES[test.quantity],
                "beside": test.beside,
                "people": f"{test.people:,}"
                if sharing is None
                else f"about {test.people // k * k:,}",
                "statistic": test.statistic,
                "value": f"{test.value:.2f}",
                "p": _p(test.p),
                "p_holm": _p(test.p_holm),
                "notable": test.p_holm < _NOTABLE,
            }
            for test in found
        ],
        "notable": [
            f"{QUANTITIES[test.quantity]} goes with {test.beside}"
            for test in found
            if test.p_holm < _NOTABLE
        ],
    }


def _by_label(about: About) -> list[dict[str, str]]:
    """Motion beside each label."""
    cohort = about.findings.cohort
    assert cohort is not None
    people = of_people(cohort)
    found = []
    for target in about.config.finetune.targets:
        label = label_of_people(cohort, target)
        if label is None or "mean_fd" not in people.columns:
            continue
        if uri := draw_by_label(people["mean_fd"], label, target, "mean_fd"):
            found.append({"uri": uri, "alt": f"Mean FD by {target.name}"})
    return found


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
