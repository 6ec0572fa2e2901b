"""The report's sections on recordings: counts, who was left out, the table, QC figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from . import charts
from .flow import short
from .gather import Findings
from .metrics import metric_table
from .outcome import count_statuses, left_out
from .style import png_uri

#: Largest number of recordings of which all QC figures are embedded.
EMBED = 60
_TABLE_ROWS, _NAMES = 1000, 12


def tiles(findings: Findings) -> list[tuple[str, str, str]]:
    """The numbers on top: (number, what, more)."""
    counts = count_statuses(findings.outcomes)
    found = [
        (
            f"{len(findings.recordings):,}",
            "recordings found",
            f"{len(findings.recordings) - counts['ineligible']:,} eligible",
        )
    ]
    cohort = findings.cohort
    if cohort is not None:
        splits = cohort.groupby("split")["subject"].nunique()
        found += [
            (f"{len(cohort):,}", "recordings in the cohort", f"{counts['failed']:,} given up"),
            (
                f"{cohort['subject'].nunique():,}",
                "subjects",
                " / ".join(f"{splits.get(split, 0)} {split}" for split in ("train", "val", "test")),
            ),
        ]
    if findings.parameters is not None:
        found.append((short(findings.parameters), "model parameters", f"run {findings.run}"))
    if findings.reconstruction is not None:
        table = metric_table(findings.reconstruction, "model")
        if "r2" in table.metrics:
            estimate = table.methods[0].estimates["r2"]
            about = f"in {findings.reconstruction.get('n_subjects')} test subjects"
            if estimate.interval:
                about = f"95% CI {estimate.interval}"
            found.append((estimate.text, "R² of masked signal", about))
    return found


def cohort(findings: Findings) -> dict[str, Any]:
    """How many recordings reached which point, who was left out, and distributions."""
    counts = count_statuses(findings.outcomes)
    total = len(findings.outcomes)
    eligible = total - counts["ineligible"]
    finished = eligible - counts["failed"] - counts["unfinished"]
    return {
        "steps": [
            (total, "found", ""),
            (eligible, "eligible", _minus(counts["ineligible"], "ineligible")),
            (
                finished,
                "processed",
                _minus(counts["failed"], "given up") + _minus(counts["unfinished"], "unfinished"),
            ),
            (counts["included"], "in the cohort", _minus(counts["excluded"], "excluded")),
        ],
        "groups": _groups(findings),
        "splits": _splits(findings),
        "charts": _distributions(findings),
    }


def _minus(count: int, what: str) -> str:
    return f" −{count:,} {what}" if count else ""


def _groups(findings: Findings) -> list[dict[str, Any]]:
    """The recordings left out, grouped by their reason."""
    found = []
    rest = left_out(findings.outcomes)
    for (state, stage, reason), part in rest.groupby(["status", "stage", "reason"], sort=False):
        names = part["recording_id"].tolist()
        fixes = [findings.failures.get(name, {}).get("fix") for name in names]
        found.append(
            {
                "status": state,
                "stage": stage,
                "reason": reason,
                "count": len(names),
                "names": names[:_NAMES],
                "more": max(0, len(names) - _NAMES),
                "fix": next((fix for fix in fixes if fix), ""),
            }
        )
    return found


def _splits(findings: Findings) -> list[dict[str, Any]]:
    """Subjects, recordings and minutes of each split."""
    if findings.cohort is None:
        return []
    rows = []
    for split in ("train", "val", "test"):
        part = findings.cohort[findings.cohort["split"] == split]
        minutes = float((part["n_volumes"] * part["tr"]).sum()) / 60
        rows.append(
            {
                "split": split,
                "subjects": part["subject"].nunique(),
                "recordings": len(part),
                "minutes": f"{minutes:,.0f}",
            }
        )
    return rows


def _facts(findings: Findings) -> pd.DataFrame:
    """One row per recording: status, split, length, mean FD and coverage where known."""
    table = findings.recordings.merge(findings.outcomes, on="recording_id", suffixes=("", "_told"))
    facts = table[["recording_id", "subject", "n_volumes", "tr", "status", "stage"]].copy()
    facts["reason"] = table["reason_told"]
    seen = pd.DataFrame(
        [
            (name, numbers.get("MeanFramewiseDisplacement"), numbers.get("ParcelsCovered"))
            for name, numbers in findings.qc.items()
        ],
        columns=["recording_id", "mean_fd", "share_parcels"],
    )
    if findings.cohort is not None:
        known = findings.cohort[["recording_id", "split", "mean_fd", "share_parcels"]]
        seen = pd.concat([known, seen]).drop_duplicates("recording_id")
    else:
        seen["split"] = None
    facts = facts.merge(seen, on="recording_id", how="left")
    for column in ("n_volumes", "tr", "mean_fd", "share_parcels"):
        facts[column] = pd.to_numeric(facts[column]).astype(float)
    return facts


def _distributions(findings: Findings) -> list[dict[str, str]]:
    facts = _facts(findings)
    facts["minutes"] = facts["n_volumes"] * facts["tr"] / 60
    quality = findings.provenance.parameters.get("cohort", {}).get("quality", {})
    found = []
    for column, label, key in (
        ("mean_fd", "mean framewise displacement (mm)", "max_mean_fd_mm"),
        ("share_parcels", "share of parcels covered", "min_parcels"),
        ("minutes", "length of the recording (min)", ""),
        ("tr", "repetition time (s)", ""),
    ):
        part = facts[facts[column].notna()]
        if part[column].nunique() > 1:
            limit = quality.get(key)
            chart = charts.histogram(
                part[column].to_numpy(),
                (part["status"] == "included").to_numpy(bool),
                label,
                limit,
            )
            found.append({"uri": chart, "alt": f"Histogram of recordings by {label}"})
    return found


def recordings_table(findings: Findings, figures: Mapping[str, bytes]) -> dict[str, Any]:
    """The sortable table; of very large studies, the recordings most worth a look."""
    facts = _facts(findings)
    if len(facts) > _TABLE_ROWS:
        odd = facts["status"] != "included"
        order = facts.assign(odd=odd).sort_values(
            ["odd", "mean_fd"], ascending=False, kind="stable", na_position="last"
        )
        facts = order.head(_TABLE_ROWS)
    rows = []
    for row in facts.to_dict("records"):
        name = str(row["recording_id"])
        link = f"#qc-{name}" if name in figures else f"figures/{name}_qc.png"
        rows.append(
            {
                "name": name,
                "link": link if name in findings.qc else "",
                "split": row["split"] if isinstance(row["split"], str) else "",
                "volumes": _fixed(row["n_volumes"], 0),
                "tr": _fixed(row["tr"], 3).rstrip("0").rstrip("."),
                "fd": _fixed(row["mean_fd"], 3),
                "covered": _fixed(100 * row["share_parcels"], 1),
                "status": row["status"],
                "reason": row["reason"],
            }
        )
    return {"rows": rows, "total": len(findings.recordings)}


def _fixed(value: Any, digits: int) -> str:
    return "" if pd.isna(value) else f"{value:.{digits}f}"


def figures_to_embed(findings: Findings) -> list[str]:
    """All QC figures of a small study; of a large one the EMBED worst by mean FD."""
    names = list(findings.qc)
    if len(names) <= EMBED:
        return names
    worst = sorted(
        names, key=lambda name: -float(findings.qc[name].get("MeanFramewiseDisplacement", 0))
    )
    return worst[:EMBED]


def qc_figures(findings: Findings, figures: Mapping[str, bytes]) -> dict[str, Any]:
    """The embedded figures with the numbers in their headings."""
    shown = []
    for name, content in figures.items():
        numbers = findings.qc.get(name, {})
        shown.append(
            {
                "name": name,
                "uri": png_uri(content),
                "fd": _fixed(numbers.get("MeanFramewiseDisplacement"), 2),
                "outliers": numbers.get("OutlierVolumes", 0),
                "covered": _fixed(100 * numbers.get("ParcelsCovered", float("nan")), 0),
            }
        )
    return {"shown": shown, "total": len(findings.qc)}
