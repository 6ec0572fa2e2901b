"""What became of every recording: included, or left out, where and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from ..shards.exclude_list import BY_HAND
from ..stages import STAGES

#: Every status, in the order in which tables list them.
STATUSES = ("included", "excluded", "failed", "ineligible", "unfinished")
COLUMNS = ("recording_id", "status", "stage", "reason")


def outcomes(
    recordings: pd.DataFrame,
    failures: Mapping[str, Mapping[str, Any]],
    included: Collection[str],
    exclusions: pd.DataFrame,
) -> pd.DataFrame:
    """One row per recording of the table, in its order, with COLUMNS.

    `failures` are the live entries of the failures ledger, by recording_id or anat_id;
    `included` the recordings of the cohort; `exclusions` has recording_id, stage, reason.

    - ineligible: onboarding refused it.
    - failed: eligible, but a stage gave it up, or gave up the T1w that serves it.
    - excluded: the quality rules of the cohort left it out, or a person did by hand.
    - unfinished: eligible, and nobody has said anything of it yet.
    """
    left_out = {
        row["recording_id"]: (str(row["stage"]), str(row["reason"]))
        for row in exclusions.to_dict("records")
    }
    rows = []
    told: tuple[str, str, str]
    for row in recordings.to_dict("records"):
        name = str(row["recording_id"])
        own = [failures[key] for key in (name, str(row["anat_id"])) if key in failures]
        if pd.isna(row["eligible"]) or not row["eligible"]:
            told = ("ineligible", "onboard", row["reason"] if pd.notna(row["reason"]) else "")
        elif left_out.get(name, ("",))[0] == BY_HAND:
            told = ("excluded", *left_out[name])
        elif own:
            first = min(own, key=_place)
            told = ("failed", first["stage"], first["what"])
        elif name in included:
            told = ("included", "", "")
        elif name in left_out:
            stage, reason = left_out[name]
            told = ("excluded" if stage == "cohort" else "failed", stage, reason)
        else:
            told = ("unfinished", "", "not processed to the end yet")
        rows.append((name, *(_one_line(part) for part in told)))
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype="string")


def count_statuses(table: pd.DataFrame) -> dict[str, int]:
    """How many recordings have each status, zeros included."""
    counts = table["status"].value_counts()
    return {status: int(counts.get(status, 0)) for status in STATUSES}


def left_out(table: pd.DataFrame) -> pd.DataFrame:
    """The recordings that are not included, grouped by status, then by stage and reason."""
    rest = table[table["status"] != "included"]
    order = rest["status"].map(STATUSES.index)
    return (
        rest.assign(order=order)
        .sort_values(["order", "stage", "reason", "recording_id"], kind="stable")
        .drop(columns="order")
        .reset_index(drop=True)
    )


def _place(failure: Mapping[str, Any]) -> int:
    """Position of a failure's stage in the pipeline: the earliest one is the root."""
    stages = list(STAGES)
    return stages.index(failure["stage"]) if failure["stage"] in stages else len(stages)


def _one_line(text: object) -> str:
    """Reasons go into a TSV: no tabs or line breaks."""
    return " ".join(str(text).split())
