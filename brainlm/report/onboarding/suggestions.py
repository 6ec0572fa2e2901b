"""Options that this dataset suggests, as lines for its config with the reason above each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import yaml

from ...bids.phenotypes.summary import LabelSummary
from ...config import Config
from ...wording import counted

#: From so many recordings on, 4-D files between the steps are not worth their room.
_MANY = 500
#: From so many recordings on, the network for trying things out is too small.
_ENOUGH_TO_LEARN = 200
#: Labels that are suggested as targets, at most, and levels of one.
_TARGETS, _LEVELS = 6, 8
_STRATIFY = re.compile(r"^(sex|gender|age)$", re.I)
_FAMILY = re.compile(r"famil", re.I)


@dataclass(frozen=True)
class Suggestion:
    """Options to consider."""

    why: str
    options: dict[str, Any]

    @property
    def yaml(self) -> str:
        """Lines for the config."""
        text = yaml.safe_dump(self.options, sort_keys=False, allow_unicode=True, width=90)
        return f"# {self.why}\n{text.rstrip()}"


def suggestions(
    table: pd.DataFrame, config: Config, labels: Sequence[LabelSummary]
) -> list[Suggestion]:
    """What to consider for this study, none of it done already."""
    runs = table[table["eligible"]]
    if runs.empty:
        return []
    found = [
        _repetition_times(runs, config),
        _distortion(runs, config),
        _straight(runs, config),
        _split(runs, config, labels),
        _targets(config, labels),
        _network(runs, config),
    ]
    return [one for one in found if one is not None]


def _repetition_times(runs: pd.DataFrame, config: Config) -> Suggestion | None:
    times = runs["tr"].dropna()
    low, high = float(times.min()), float(times.max())
    if config.timing.tr or times.empty or high <= low * (1 + config.timing.tolerance):
        return None
    common = float(times.round(3).mode().iloc[0])
    return Suggestion(
        f"TRs from {low:g} to {high:g} s: bring all to one, or a window of 200 volumes is another "
        "time for each",
        {"timing": {"tr": common}},
    )


def _distortion(runs: pd.DataFrame, config: Config) -> Suggestion | None:
    if config.engine != "native" or config.distortion.method != "auto":
        return None
    could = runs["fmap_kind"].isna() & runs["pe_direction"].notna() & runs["t1w"].notna()
    if not could.any():
        return None
    return Suggestion(
        f"{counted(int(could.sum()), 'recording')} without a field map, but with a T1w and a "
        "phase-encoding direction: distortion can be undone along it",
        {"distortion": {"method": "syn"}},
    )


def _straight(runs: pd.DataFrame, config: Config) -> Suggestion | None:
    parcels = runs["kind"].isin(["dense", "parcels"]).any()
    if len(runs) < _MANY or config.resample.output == "parcels" or parcels:
        return None
    return Suggestion(
        f"{len(runs)} recordings: no 4-D files between the steps, the same results",
        {"resample": {"output": "parcels"}},
    )


def _split(runs: pd.DataFrame, config: Config, labels: Sequence[LabelSummary]) -> Suggestion | None:
    if config.split.table or config.split.stratify or config.split.external:
        return None
    asked = ["site"] if runs["site"].nunique() > 1 else []
    asked += [label.name for label in labels if _STRATIFY.match(label.name)]
    options: dict[str, Any] = {"stratify": asked} if asked else {}
    why = [f"each split gets its share of {', '.join(asked)}"] if asked else []
    family = next((label.name for label in labels if _FAMILY.search(label.name)), None)
    if family and not config.split.family:
        options["family"] = family
        why.append("relatives stay in one split")
    return Suggestion("; ".join(why), {"split": options}) if options else None


def _targets(config: Config, labels: Sequence[LabelSummary]) -> Suggestion | None:
    found = [one for one in map(target_of, labels) if one is not None][:_TARGETS]
    if config.finetune.targets or not found:
        return None
    return Suggestion(
        "labels that a model can be fine-tuned to; keep those that you ask about",
        {"finetune": {"targets": found}},
    )


def target_of(label: LabelSummary) -> dict[str, Any] | None:
    """How a label could be predicted; None: not at all."""
    if not label.can_be_target:
        return None
    if _FAMILY.search(label.name):  # says who is related, nothing of the brain
        return None
    levels = [str(level["value"]) for level in label.levels]
    edges = label.histogram.get("edges", [])
    if len(edges) == 3:  # two different numbers: two bins
        low, high = edges[0], edges[-1]
        coded = (low, high) == (0, 1)
        return {"name": label.name, "kind": "binary"} | ({} if coded else {"positive": f"{high:g}"})
    if label.quantiles and label.quantiles["0"] < label.quantiles["1"]:
        return {"name": label.name, "kind": "regression"}
    if len(levels) == 2:
        numbers = {"0", "1"} == set(levels)
        return {"name": label.name, "kind": "binary"} | ({} if numbers else {"positive": levels[1]})
    if 2 < len(levels) <= _LEVELS:
        return {"name": label.name, "kind": "classes"}
    return None


def _network(runs: pd.DataFrame, config: Config) -> Suggestion | None:
    if config.model.preset != "tiny" or config.released.source or len(runs) < _ENOUGH_TO_LEARN:
        return None
    return Suggestion(
        "tiny is for trying the workflow; 13m and 111m are the sizes that the authors published",
        {"model": {"preset": "13m"}},
    )
