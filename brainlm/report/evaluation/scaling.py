"""Scaling: how reconstruction goes with the model's size and the number of train subjects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ...wording import counted
from ..metrics import metric_name
from ..style import AMBER, BLUE, GREEN, GREY, INK, PURPLE, RC, SKY, VERMILION, light_grid
from .parts import Material, Picture, Row, Section, Table
from .wording import cohort_name, estimate_of, printed

_COLORS = (BLUE, VERMILION, GREEN, AMBER, PURPLE, SKY, INK)
_METRICS = ("r2", "pearson", "mse")
_WIDTH = 10.6
#: What a law is told over -> in words, and what is held.
_OVER = {"n_train_subjects": ("train subjects", "size"), "parameters": ("parameters", "share")}

Point = Mapping[str, Any]


def section(material: Material) -> Section | None:
    """Scaling's part of the page; None where no grid was trained."""
    content = material.json("scaling")
    if content is None:
        return None
    points, cohorts = content["points"], content["cohorts"]
    first = points[0]
    return Section(
        name="scaling",
        title="Scaling",
        text=(
            f"Each model was pretrained from random weights for {first['steps']:,} steps with "
            "equally full batches, whatever its size and whatever its share of the train subjects; "
            "smaller shares are parts of greater ones and are gone through more often. All are "
            "scored on the same windows of the test subjects "
            f"({first['mask_ratio']:.0%} hidden at random), by their last weights: where the "
            "lowest loss of a training's validations is well below its last one, it has learned "
            "by heart. The scale of each parcel (median, IQR) came from the whole train split. One "
            "training stands behind each point: intervals (95%) resample test subjects and say "
            "nothing of other seeds. A power law, error = a x^−b, describes at least three points "
            "of one curve; it has no floor and is no forecast." + _cut(points)
        ),
        rows=tuple(_rows(points, cohorts)),
        tables=(
            _scores(points, cohorts),
            *([_laws(points, cohorts)] if any(cohort["laws"] for cohort in cohorts) else []),
        ),
        pictures=tuple(
            Picture(
                name=f"scaling{'' if cohort is cohorts[0] else '-' + cohort['cohort']}",
                caption=f"{cohort_name(cohort)}: R² by train subjects and by the model's size, and "
                "the squared error on logarithmic axes with its power laws (thin). Whiskers: 95% "
                "intervals. Dashed, where it comes near: linear interpolation, which learns "
                "nothing.",
                figure=_figure(points, cohort),
            )
            for cohort in cohorts
        ),
        headline=_headline(points, cohorts[0]),
    )


def _cut(points: Sequence[Point]) -> str:
    """A warning where networks cut windows in several ways."""
    ways: dict[str, dict[str, None]] = {}
    for point in points:
        ways.setdefault(point["tokens"], {})[point["size"]] = None
    if len(ways) < 2:
        return ""
    told = "; ".join(f"{', '.join(sizes)}: {tokens}" for tokens, sizes in ways.items())
    return (
        f"\n\nThese networks cut windows into tokens in several ways ({told}), so that other "
        "entries are hidden from each, and some are easier to guess than others: their scores "
        "answer different questions. Power laws over parameters are told among those that cut "
        "alike, and the baselines are those of the first."
    )


def _held(law: Mapping[str, Any], points: Sequence[Point]) -> str:
    """What is the same in all points of a law."""
    held = _OVER[law["over"]][1]
    several = held == "share" and len({point["tokens"] for point in points}) > 1
    return f"{held} {law[held]}" + (f", {law['tokens']}" if several else "")


def _scores(points: Sequence[Point], cohorts: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each point."""
    several = len(cohorts) > 1
    values = {
        cohort["cohort"]: [
            estimate_of(cohort["points"][point["point"]]["r2"]).value for point in points
        ]
        for cohort in cohorts
    }
    before = 6  # columns that tell the point itself
    best = frozenset(
        (int(np.nanargmax([np.nan if v is None else v for v in column])), before + place)
        for place, column in enumerate(values.values())
        if sum(value is not None for value in column) > 1
    )
    return Table(
        name="scaling",
        title="Model size and train subjects",
        columns=(
            "Size",
            "Parameters",
            "Share",
            "Train subjects",
            "Validation MSE",
            "Lowest",
            *(
                f"{cohort_name(cohort)}, {metric_name('r2')}" if several else metric_name("r2")
                for cohort in cohorts
            ),
        ),
        rows=tuple(
            (
                point["size"],
                f"{point['parameters']:,}",
                f"{point['share']:.4g}",
                f"{point['n_train_subjects']:,}",
                f"{point['val_loss']:.4f}",
                f"{point['lowest_val_loss']:.4f}",
                *(
                    printed(estimate_of(cohort["points"][point["point"]]["r2"]))
                    for cohort in cohorts
                ),
            )
            for point in points
        ),
        note=", ".join(
            f"{cohort_name(one)}: {counted(one['n_subjects'], 'subject')}" for one in cohorts
        )
        + ". Bold: the best of a column.",
        best=best,
    )


def _laws(points: Sequence[Point], cohorts: Sequence[Mapping[str, Any]]) -> Table:
    """The exponents."""
    rows = []
    for cohort in cohorts:
        for law in cohort["laws"]:
            words = _OVER[law["over"]][0]
            fit = law["r2_of_logs"]
            rows.append(
                (
                    cohort_name(cohort),
                    words,
                    _held(law, points),
                    str(len(law["points"])),
                    printed(estimate_of(law["exponent"])),
                    "n/a" if fit is None else f"{fit:.3f}".replace("-", "−"),
                )
            )
    return Table(
        name="scaling-laws",
        title="Power laws of the squared error",
        columns=("Cohort", "Over", "Held", "Points", "Exponent b", "R² of the logarithms"),
        rows=tuple(rows),
        note="b above 0: the error falls. The interval resamples test subjects alone.",
    )


def _rows(points: Sequence[Point], cohorts: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    for cohort in cohorts:
        about = {"task": "scaling", "cohort": cohort["cohort"], "n_subjects": cohort["n_subjects"]}
        told = [(f"brainlm {point['point']}", cohort["points"][point["point"]]) for point in points]
        for method, scores in [*told, *cohort["baselines"].items()]:
            for metric in _METRICS:
                yield _row(about, method, metric, scores[metric])
        for law in cohort["laws"]:
            condition = f"over {_OVER[law['over']][0]}, {_held(law, points)}"
            yield _row(about, "power law", "exponent", law["exponent"], condition)


def _row(
    about: Mapping[str, Any],
    method: str,
    metric: str,
    score: Mapping[str, Any],
    condition: str = "",
) -> Row:
    return Row.of(
        score,
        **about,
        method=method,
        metric=metric,
        condition=condition,
    )


@rc_context(RC)
def _figure(points: Sequence[Point], cohort: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(_WIDTH, 3.4), layout="constrained")
    by_subjects, by_size, loss = figure.subplots(1, 3)
    sizes = _curves(points, "size", "n_train_subjects")
    for name, curve in sizes.items():
        label = f"{name} ({_short(curve[0]['parameters'])} parameters)"
        for axes, metric in ((by_subjects, "r2"), (loss, "mse")):
            _draw(axes, curve, cohort, "n_train_subjects", metric, label, _color(sizes, name))
    shares = _curves(points, "share", "parameters")
    for share, curve in shares.items():
        # Where there is one curve of sizes alone, greys tell the shares apart well enough.
        grey = str(0.75 - 0.6 * (list(shares).index(share) + 1) / len(shares))
        _draw(by_size, curve, cohort, "parameters", "r2", f"{share:.0%} of subjects", grey)
    for law in cohort["laws"]:
        if law["over"] == "n_train_subjects" and law["factor"] is not None:
            x = np.array(sorted(point["n_train_subjects"] for point in sizes[law["size"]]))
            y = law["factor"] * x ** -float(law["exponent"]["value"])
            loss.plot(x, y, color=_color(sizes, law["size"]), linewidth=0.8)
    loss.set_yscale("log")
    for axes, metric in ((by_subjects, "r2"), (by_size, "r2"), (loss, "mse")):
        axes.set_ylim(*axes.get_ylim())  # what is far off would squeeze the curves: it stays out
        line = cohort["baselines"]["interpolation"][metric]["value"]
        if line is not None:
            axes.axhline(line, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    loss.yaxis.set_minor_formatter(FuncFormatter(lambda y, _: f"{y:.3g}"))
    loss.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.3g}"))
    _axis(by_subjects, points, "n_train_subjects", "train subjects", metric_name("r2"))
    _axis(by_size, points, "parameters", "parameters", metric_name("r2"))
    _axis(loss, points, "n_train_subjects", "train subjects", metric_name("mse"))
    handles = [axes.get_legend_handles_labels() for axes in (by_subjects, by_size)]
    figure.legend(
        [one for some, _ in handles for one in some],
        [one for _, some in handles for one in some],
        loc="outside upper left",
        ncols=4,
    )
    return figure


def _draw(
    axes: Axes,
    curve: Sequence[Point],
    cohort: Mapping[str, Any],
    over: str,
    metric: str,
    label: str,
    color: str,
) -> None:
    """Points with whiskers; those of the loss are joined by their law, not by a line."""
    x = [point[over] for point in curve]
    found = [cohort["points"][point["point"]][metric] for point in curve]
    value, low, high = (
        np.array([np.nan if one[key] is None else one[key] for one in found])
        for key in ("value", "ci_low", "ci_high")
    )
    axes.margins(x=0.12, y=0.15)
    axes.vlines(x, low, high, color=color, linewidth=1.4)
    line = "none" if metric == "mse" else "-"
    axes.plot(x, value, "o", color=color, linestyle=line, markersize=4.5, label=label)


def _axis(axes: Axes, points: Sequence[Point], over: str, words: str, score: str) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted({point[over] for point in points})))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
    axes.set(xlabel=words, ylabel=score)
    light_grid(axes)


def _curves(points: Sequence[Point], held: str, over: str) -> dict[Any, list[Point]]:
    """The points of each size, or of each share, along the other."""
    found: dict[Any, list[Point]] = {}
    for point in points:
        found.setdefault(point[held], []).append(point)
    return {name: sorted(curve, key=lambda one: one[over]) for name, curve in found.items()}


def _color(sizes: Mapping[str, Any], name: str) -> str:
    return dict(zip(sizes, cycle(_COLORS), strict=False))[name]


def _short(number: float) -> str:
    """12,345 -> 12k."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{letter}"
    return f"{number:.3g}"


def _headline(points: Sequence[Point], cohort: Mapping[str, Any]) -> str:
    known = {
        point["point"]: value
        for point in points
        if (value := cohort["points"][point["point"]]["r2"]["value"]) is not None
    }
    if not known:
        return "R² is not defined on these test recordings"
    best, worst = max(known, key=lambda name: known[name]), min(known, key=lambda name: known[name])
    return (
        f"R² from {printed(estimate_of(cohort['points'][worst]['r2']))} ({worst}) to "
        f"{printed(estimate_of(cohort['points'][best]['r2']))} ({best})"
    )
