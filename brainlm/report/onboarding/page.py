"""`onboarding/report.html`: from the recordings table to one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ...bids.phenotypes.summary import LabelSummary
from ...config import Config
from ...estimates import text
from ...estimates.takes import Estimate
from ...wording import counted
from ..templating import environment
from .bars import small_histogram
from .cohort import groups, histograms, missing, shapes, tiles
from .kinds import kinds_of
from .suggestions import suggestions

#: Kinds of message, and labels, that the page lists; the table holds all of them.
_MOST_KINDS, _MOST_LABELS, _MOST_LEVELS = 40, 200, 6


@dataclass(frozen=True)
class Onboarded:
    """What an onboarding found: of the data and the config, nothing of the machine."""

    table: pd.DataFrame
    config: Config
    notes: Sequence[str]  # on the dataset as a whole
    labels: Sequence[LabelSummary]
    estimate: Estimate | None  # None: no recording is eligible


def render_page(found: Onboarded) -> str:
    """One self-contained HTML page; equal findings give equal bytes."""
    html = environment().get_template("onboarding.html.j2").render(_content(found))
    return "\n".join(line.rstrip() for line in html.splitlines() if line.strip()) + "\n"


def _content(found: Onboarded) -> dict[str, Any]:
    table, config = found.table, found.config
    left_out = kinds_of(table[~table["eligible"]], "reason")
    notes = kinds_of(table, "notes")
    return {
        "name": config.name,
        "config": config,
        "status": _status(table),
        "dataset_notes": found.notes,
        "tiles": tiles(table),
        "tasks": groups(table, "task"),
        "sites": groups(table, "site") if table["site"].notna().any() else [],
        "histograms": histograms(table, config),
        "shapes": shapes(table),
        "missing": missing(table),
        "left_out": left_out[:_MOST_KINDS],
        "left_out_more": max(0, len(left_out) - _MOST_KINDS),
        "n_left_out": int((~table["eligible"]).sum()),
        "notes": notes[:_MOST_KINDS],
        "notes_more": max(0, len(notes) - _MOST_KINDS),
        "n_noted": int(table["notes"].notna().sum()),
        "labels": [_label_row(label) for label in found.labels[:_MOST_LABELS]],
        "labels_more": max(0, len(found.labels) - _MOST_LABELS),
        "subjects": int(table["subject"].nunique()),
        "estimate": _estimate(found.estimate),
        "suggestions": [one.yaml for one in suggestions(table, config, found.labels)],
    }


def _status(table: pd.DataFrame) -> dict[str, str]:
    eligible = int(table["eligible"].sum())
    if not eligible:
        return {"kind": "waiting", "text": "No recording is eligible: there is nothing to run"}
    if eligible == len(table):
        return {"kind": "done", "text": "All recordings are eligible"}
    share = eligible / len(table)
    return {"kind": "partly", "text": f"Eligible: {counted(eligible, 'recording')} ({share:.0%})"}


def _label_row(label: LabelSummary) -> dict[str, Any]:
    levels = [
        f"{level.get('name', level['value'])}: {level['subjects']:,}"
        for level in label.levels[:_MOST_LEVELS]
    ]
    more = len(label.levels) - len(levels)
    if more > 0 or label.other_levels:
        levels.append("…")
    spread = ""
    if label.quantiles:
        low, middle, high = (label.quantiles[key] for key in ("0", "0.5", "1"))
        unit = f" {label.unit}" if label.unit else ""
        spread = f"{low:.4g} to {high:.4g}{unit}, median {middle:.4g}"
    histogram = label.histogram
    return {
        "name": label.name,
        "description": label.description,
        "subjects": label.subjects,
        "missing": ", ".join(f"{why}: {n:,}" for why, n in label.missing.items()),
        "spread": spread or " · ".join(levels),
        "chart": small_histogram(histogram["edges"], histogram["counts"]) if histogram else "",
        "notes": label.notes,
        "suspicions": label.suspicions,
    }


def _estimate(found: Estimate | None) -> dict[str, Any] | None:
    """Numbers that follow from the data and the config alone: not what this machine has free."""
    if found is None:
        return None
    rows = [
        {
            "stage": stage.stage,
            "times": f"{stage.times:,}",
            "cpu": "–" if stage.cpu_h is None else text.number_text(stage.cpu_h),
            "kept": text.size_text(stage.kept) if stage.kept else "–",
            "passing": text.size_text(stage.passing) if stage.passing else "–",
            "memory": f"{stage.mem_mb / 1000:.1f} GB" if stage.mem_mb else "–",
            "source": text.source_of(stage),
        }
        for stage in found.stages
    ]
    counts = [count for count in (1, *text.JOBS) if count <= len(found.batches)]
    return {
        "rows": rows,
        "cpu_h": text.number_text(found.cpu_h),
        "kept": text.size_text(found.kept),
        "passing": text.size_text(found.passing_of_a_run) if found.passing_of_a_run else None,
        "factor": f"{found.factor:g}",
        "jobs": text.jobs_text(len(found.batches)),
        "cores": found.cores_per_job,
        "mem": f"{max((mb for _, mb in found.batches), default=0) / 1000:.1f} GB",
        "times": [(count, text.hours_text(found.cluster_h(count))) for count in counts],
    }
