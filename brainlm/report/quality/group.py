"""All recordings side by side: the numbers of their pages, and what has become of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

#: Key of a page's sidecar, column of metrics.tsv, heading, unit, digits, which side is bad.
COLUMNS: tuple[tuple[str, str, str, str, int, str], ...] = (
    ("MeanFramewiseDisplacement", "mean_fd", "mean FD", "mm", 3, "high"),
    ("OutlierShare", "outlier_share", "outlier volumes", "%", 3, "high"),
    ("MeanStdDvars", "std_dvars", "DVARS", "", 2, "high"),
    ("TsnrBefore", "tsnr", "tSNR", "", 1, "low"),
    ("TsnrAfter", "tsnr_denoised", "tSNR denoised", "", 1, "low"),
    ("Registration", "registration", "registration", "", 3, "low"),
    ("ParcelsCovered", "coverage", "coverage", "%", 3, "low"),
    ("MaskShare", "mask_share", "mask", "%", 3, "low"),
    ("VolumesLeft", "volumes_left", "volumes left", "", 0, "low"),
    ("FreedomLost", "freedom_lost", "freedom lost", "%", 3, "high"),
    ("Components", "components", "components", "", 0, ""),
    ("ComponentsRemoved", "components_removed", "removed", "", 0, "high"),
    ("VarianceRemoved", "variance_removed", "variance removed", "%", 3, "high"),
)


@dataclass(frozen=True)
class Rule:
    """A limit that the config sets already: `brainlm cohort` leaves out what is beyond it."""

    column: str
    side: str  # high: out above the limit; low: out below it
    limit: float
    option: str

    def breaks(self, values: pd.Series) -> pd.Series:
        """Which of the numbers are beyond; what is not known is not."""
        return values > self.limit if self.side == "high" else values < self.limit


def rules_of(quality: Mapping[str, Any], min_volumes: int) -> list[Rule]:
    """The rules of the config's `quality` section that a page's numbers can tell."""
    return [
        Rule("mean_fd", "high", quality["max_mean_fd_mm"], "quality.max_mean_fd_mm"),
        Rule("coverage", "low", quality["min_parcels"], "quality.min_parcels"),
        Rule("volumes_left", "low", min_volumes, "eligibility.min_volumes"),
    ]


def metrics_table(
    eligible: pd.DataFrame,
    numbers: Mapping[str, Mapping[str, Any]],
    states: Mapping[str, str],
    splits: Mapping[str, str],
    by_hand: Mapping[str, str],
) -> pd.DataFrame:
    """One row for each eligible recording, sorted by name.

    `numbers` are the sidecars of the pages there are; `states` says of the others why there is
    none; `by_hand` is the list of those left out by a person.
    """
    ids = eligible["recording_id"].astype(str)
    place = eligible["site"].fillna(eligible["dataset"])
    table = pd.DataFrame(
        {
            "recording_id": ids,
            "subject": eligible["subject"].astype(str),
            "site": place.fillna("").astype(str),
            "task": eligible["task"].fillna("").astype(str),
            "split": [splits.get(str(subject), "") for subject in eligible["subject"]],
            "state": [states.get(name, "") for name in ids],
            "excluded_by_hand": [by_hand.get(name, "") for name in ids],
        }
    )
    for key, column, _, _, digits, _ in COLUMNS:
        values = [numbers.get(name, {}).get(key) for name in ids]
        table[column] = pd.to_numeric(pd.Series(values, dtype=object)).to_numpy(float).round(digits)
    table["notes"] = eligible["notes"].fillna("").astype(str).to_numpy()
    return table.sort_values("recording_id", ignore_index=True)


def page_data(table: pd.DataFrame, rules: list[Rule]) -> dict[str, Any]:
    """What the script of the page works on: columns of numbers, None where there is none."""

    def plain(column: str) -> list[Any]:
        known = table[column].astype(object)
        return list(known.where(table[column].notna(), None))

    shown = [entry for entry in COLUMNS if table[entry[1]].notna().any()]
    return {
        "columns": [
            {"key": column, "label": label, "unit": unit, "digits": digits, "bad": bad}
            for _, column, label, unit, digits, bad in shown
        ],
        "rules": [
            {"key": rule.column, "side": rule.side, "limit": rule.limit, "option": rule.option}
            for rule in rules
            if table[rule.column].notna().any()
        ],
        "ids": plain("recording_id"),
        **{name: plain(name) for name in ("site", "task", "split", "state", "notes")},
        "byHand": plain("excluded_by_hand"),
        "values": {column: plain(column) for _, column, *_ in shown},
    }


def for_motion(table: pd.DataFrame, rules: list[Rule], most: int) -> pd.DataFrame:
    """One recording of each subject that would be in the cohort, at most `most`, evenly taken."""
    out = (table["excluded_by_hand"] != "") | (table["state"] != "") | table["mean_fd"].isna()
    for rule in rules:
        out |= rule.breaks(table[rule.column])
    chosen = table[~out].drop_duplicates("subject")
    if len(chosen) > most:
        places = [round(number * (len(chosen) - 1) / (most - 1)) for number in range(most)]
        chosen = chosen.iloc[places]
    return chosen
