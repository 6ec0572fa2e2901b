"""The proof that no subject and no family is in two splits, without naming any of them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from .fingerprint import split_sha256
from .splits import SPLITS, in_two_splits


def leakage_proof(cohort: pd.DataFrame, *, decided_by: str, family: str | None) -> dict[str, Any]:
    """Counts and overlaps of the splits of `cohort` (the cohort's table).

    `decided_by` says how subjects were assigned, `family` is the label that names families. Who
    reads the cohort or its shards checks again (`check_leakage`); `split_sha256` tells whether it
    is this split that a model was trained with.
    """
    overlaps = {"subjects": len(in_two_splits(cohort, "subject"))}
    if family is not None:
        overlaps["families"] = len(in_two_splits(cohort, "family"))
    return {
        "checked": {"by": "brainlm cohort", "columns": list(_columns(family))},
        "decided_by": decided_by,
        "family": family,
        "in_two_splits": overlaps,
        "split_sha256": split_sha256(cohort),
        "splits": {
            split: _counts(cohort[cohort["split"] == split], _columns(family)) for split in SPLITS
        },
    }


def _columns(family: str | None) -> tuple[str, ...]:
    return ("subject",) if family is None else ("subject", "family")


def _counts(rows: pd.DataFrame, columns: tuple[str, ...]) -> dict[str, int]:
    names = {"subject": "subjects", "family": "families"}
    counts = {names[column]: int(rows[column].nunique()) for column in columns}
    return counts | {"recordings": len(rows), "volumes": int(rows["n_timepoints"].sum())}
