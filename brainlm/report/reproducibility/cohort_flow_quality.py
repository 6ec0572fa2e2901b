"""Motion and coverage by split and by label: could a model read motion instead of the brain?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from ...config import Target
from ...errors import BrainLMError
from ...evaluate.paired import holm
from ...shards.labels import read_label
from ...shards.splits import SPLITS
from ..style import BLUE, INK, MUTED, RC, light_grid, to_svg_uri
from .groups import quantile

#: Column of the cohort -> what it is called.
QUANTITIES = {"mean_fd": "mean FD (mm)", "share_parcels": "share of parcels covered"}
#: Fewer people in a group than this are not tested.
FEWEST = 3
_POINTS = 2000


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of one quantity over the people of a split."""

    split: str
    people: int
    median: float
    quartiles: tuple[float, float] | None  # None: not for others


@dataclass(frozen=True)
class Test:
    """Does a quantity go with the split, or with a label?"""

    quantity: str
    beside: str
    people: int
    statistic: str  # its name
    value: float
    p: float
    p_holm: float = float("nan")


def of_people(cohort: pd.DataFrame) -> pd.DataFrame:
    """One row for each subject, with the mean over its recordings: runs of one are alike."""
    columns = [name for name in QUANTITIES if name in cohort.columns]
    numbers = cohort[columns].astype(float).groupby(cohort["subject"].astype(str)).mean()
    numbers["split"] = cohort.groupby(cohort["subject"].astype(str))["split"].first()
    return numbers


def spreads(people: pd.DataFrame, quantity: str, k: int) -> list[Spread]:
    """By split; splits of which nothing is known, or nothing may be told, are left out."""
    found = []
    for split in SPLITS:
        values = people.loc[people["split"] == split, quantity].dropna().to_numpy(float)
        if len(values) and (middle := quantile(values, 0.5, k)) is not None:
            low, high = quantile(values, 0.25, k), quantile(values, 0.75, k)
            ends = None if low is None or high is None else (low, high)
            found.append(Spread(split, len(values), middle, ends))
    return found


def tests(cohort: pd.DataFrame, targets: Sequence[Target]) -> list[Test]:
    """Every quantity beside the splits and beside each label; p after Holm over all of them."""
    people = of_people(cohort)
    found = []
    for quantity in QUANTITIES:
        if quantity not in people.columns or people[quantity].nunique() < 2:
            continue
        groups = [
            people.loc[people["split"] == split, quantity].dropna().to_numpy() for split in SPLITS
        ]
        if test := _between(groups, quantity, "split"):
            found.append(test)
        for target in targets:
            label = label_of_people(cohort, target)
            if label is not None and (test := _beside(people[quantity], label, target, quantity)):
                found.append(test)
    adjusted = holm(np.array([test.p for test in found]))
    return [
        Test(**{**vars(test), "p_holm": float(p)}) for test, p in zip(found, adjusted, strict=True)
    ]


def label_of_people(cohort: pd.DataFrame, target: Target) -> pd.Series | None:
    """A label as numbers, one for each subject; None where it cannot be read."""
    try:
        values = read_label(cohort, target.name, target.kind, target.positive, target.threshold)
    except (BrainLMError, KeyError, ValueError):
        return None
    whose = cohort.set_index("recording_id")["subject"].astype(str)
    return values.groupby(whose.reindex(values.index)).mean()


def _beside(values: pd.Series, label: pd.Series, target: Target, quantity: str) -> Test | None:
    both = pd.concat([values.rename("value"), label.rename("label")], axis=1).dropna()
    if target.kind == "regression":
        if len(both) < 2 * FEWEST or both["label"].nunique() < 2 or both["value"].nunique() < 2:
            return None
        result = stats.spearmanr(both["value"], both["label"])
        return Test(
            quantity,
            target.name,
            len(both),
            "Spearman's ρ",
            float(result.statistic),
            float(result.pvalue),
        )
    groups = [part["value"].to_numpy() for _, part in both.groupby(both["label"].round())]
    return _between(groups, quantity, target.name)


def _between(groups: Sequence[NDArray[Any]], quantity: str, beside: str) -> Test | None:
    """Kruskal-Wallis; its effect size is the share of the ranks' variance (epsilon squared)."""
    groups = [group for group in groups if len(group) >= FEWEST]
    if len(groups) < 2 or len(np.unique(np.concatenate(groups))) < 2:
        return None
    result = stats.kruskal(*groups)
    people = sum(len(group) for group in groups)
    share = float(result.statistic) / (people - 1)
    return Test(quantity, beside, people, "Kruskal-Wallis ε²", share, float(result.pvalue))


@rc_context(RC)
def draw_by_split(
    people: pd.DataFrame, quantity: str, found: Sequence[Spread], *, points: bool
) -> str:
    """Median and quartiles of each split, over the people as points where those may be shown."""
    figure = Figure(figsize=(5.2, 0.8 + 0.42 * len(found)), layout="constrained")
    axes = figure.subplots()
    for place, spread in enumerate(found):
        values = np.sort(people.loc[people["split"] == spread.split, quantity].dropna().to_numpy())
        if points:
            jitter = ((np.arange(len(values)) * 0.618034) % 1 - 0.5) * 0.5  # even, not random
            axes.plot(
                values, place + jitter, ".", color=MUTED, alpha=0.5, markersize=3,
                rasterized=len(values) > _POINTS,
            )  # fmt: skip
        if spread.quartiles is not None:
            axes.plot(spread.quartiles, [place, place], color=BLUE, linewidth=5, alpha=0.8)
        axes.plot(spread.median, place, "|", color=INK, markersize=13, markeredgewidth=2)
    axes.set_yticks(range(len(found)), [spread.split for spread in found])
    axes.set(ylim=(len(found) - 0.4, -0.6), xlabel=QUANTITIES[quantity])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    light_grid(axes, "x")
    return to_svg_uri(figure)


@rc_context(RC)
def draw_by_label(values: pd.Series, label: pd.Series, target: Target, quantity: str) -> str | None:
    """One point for each subject; it shows labels' values and is for the full report alone."""
    both = pd.concat([values.rename("value"), label.rename("label")], axis=1).dropna().sort_index()
    if len(both) < 2:
        return None
    figure = Figure(figsize=(5.2, 2.3), layout="constrained")
    axes = figure.subplots()
    where = both["label"].to_numpy(float)
    if target.kind != "regression":
        where = where.round() + ((np.arange(len(where)) * 0.618034) % 1 - 0.5) * 0.3
        axes.set_xticks(sorted(both["label"].round().unique()))
    axes.plot(
        where, both["value"], ".", color=BLUE, alpha=0.6, markersize=4,
        rasterized=len(both) > _POINTS,
    )  # fmt: skip
    axes.set(xlabel=target.name, ylabel=QUANTITIES[quantity])
    light_grid(axes)
    return to_svg_uri(figure)
