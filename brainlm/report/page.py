"""The report's page: from what was found to HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import flow, recordings, results
from .forecasts import forecasts
from .gather import Findings
from .methods import methods
from .outcome import count_statuses
from .prose import citations, is_standin, limits
from .templating import environment


def render_page(findings: Findings, figures: Mapping[str, bytes]) -> str:
    """One self-contained HTML page; `figures` are the PNGs to embed, by recording_id."""
    text = environment().get_template("report.html.j2").render(page_content(findings, figures))
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip()) + "\n"


def page_content(findings: Findings, figures: Mapping[str, bytes]) -> dict[str, Any]:
    """All that the template needs, ready to print."""
    found = flow.boxes(findings)
    return {
        "name": findings.name,
        "run": findings.run,
        "atlas": findings.atlas,
        "standin": is_standin(findings.atlas),
        "status": status(findings),
        "damaged": findings.damaged,
        "tiles": recordings.tiles(findings),
        "flow": {"boxes": found, "arrows": flow.arrows(found)},
        "flow_size": (flow.WIDTH, flow.HEIGHT),
        "cohort": recordings.cohort(findings),
        "table": recordings.recordings_table(findings, figures),
        "figures": recordings.qc_figures(findings, figures),
        "training": results.training(findings),
        "reconstruction": results.reconstruction(findings),
        "clinical": results.clinical(findings),
        "forecasts": forecasts(findings.forecast),
        "evaluation": results.evaluation(findings),
        "phantom": results.phantom(findings),
        "provenance": findings.provenance,
        "methods": methods(findings),
        "limits": limits(findings),
        "citations": citations(findings),
    }


def status(findings: Findings, tell: Callable[[int], str] = str) -> dict[str, str]:
    """The one-line answer to "is it done?"; `tell` is how a number of recordings is told."""
    lost = count_statuses(findings.outcomes)["failed"]
    todo = [
        name
        for name, missing in (
            ("cohort", findings.cohort is None),
            ("shards", findings.shards is None),
            ("pretraining", findings.parameters is None),
            ("reconstruction", findings.reconstruction is None),
            *((name, part.metrics is None) for name, part in findings.clinical.items()),
        )
        if missing
    ]
    if todo:
        return {"kind": "waiting", "text": f"In progress: {', '.join(todo)} not run yet"}
    if lost:
        noun = "recording was" if lost == 1 else "recordings were"
        return {"kind": "partly", "text": f"Complete, but {tell(lost)} {noun} given up"}
    return {"kind": "done", "text": "Complete"}
