"""The report's section on forecasts: each method at each step into the future."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .evaluation.wording import p_text, signed
from .metrics import metric_name, metric_table
from .results import metric_rows
from .style import AMBER, BLUE, GREEN, GREY, INK, PURPLE, RC, SKY, VERMILION, light_grid, to_svg_uri

#: Method -> (name in print, colour, line).
METHODS = {
    "brainlm": ("BrainLM, fine-tuned", BLUE, "-"),
    "untrained": ("BrainLM, not pretrained", BLUE, (0, (4, 2))),
    "zero-shot": ("BrainLM, pretrained alone", SKY, "-"),
    "lstm": ("LSTM", VERMILION, "-"),
    "neural-ode": ("Neural ODE", AMBER, "-"),
    "latent-ode": ("Latent ODE", PURPLE, "-"),
    "var": ("VAR, all parcels", GREEN, "-"),
    "ar": ("AR, each parcel", GREEN, (0, (4, 2))),
    "persistence": ("Last value", INK, (0, (1, 1.5))),
    "mean": ("Recording's own mean", GREY, (0, (4, 3))),
}
_METRICS = ("r2", "pearson", "mse")
_SIGNIFICANT = 0.05
_WIDTH = 10.6


def forecasts(content: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Each cohort's table and chart; `content` is the comparison's metrics.json."""
    if content is None:
        return None
    return {
        "reference": _name(content["reference"]),
        "cohorts": [_cohort(part, content["reference"]) for part in content["cohorts"]],
        "steps": len(next(iter(content["cohorts"][0]["methods"].values()))["by_step"]),
    }


def _cohort(part: Mapping[str, Any], reference: str) -> dict[str, Any]:
    methods = part["methods"]
    others = {_name(name): found["metrics"] for name, found in methods.items() if name != reference}
    table = metric_table(
        {"metrics": methods[reference]["metrics"], "baselines": others}, _name(reference)
    )
    return {
        "name": part["cohort"],
        "subjects": part["n_subjects"],
        "table": metric_rows(table),
        "tests": [
            {
                "name": _name(name),
                "p": p_text(found["p_holm"]),
                "more": signed(found["mse_more_than_reference"], 4),
            }
            for name, found in methods.items()
            if found.get("p_holm") is not None
        ],
        "chart": {
            "uri": to_svg_uri(steps_figure(methods, reference)),
            "alt": "R², Pearson's r and MSE of each method by step into the future",
        },
    }


@rc_context(RC)
def steps_figure(methods: Mapping[str, Any], reference: str) -> Figure:
    """Scores by step; the band is the reference's 95% interval.

    Squares below the errors mark the steps at which a method's is another than the reference's.
    """
    figure = Figure(figsize=(_WIDTH, 3.4), layout="constrained")
    panels = figure.subplots(1, len(_METRICS))
    order = [name for name in METHODS if name in methods]
    for axes, metric in zip(panels, _METRICS, strict=True):
        for name in order:
            _draw(axes, methods[name]["by_step"], metric, name, band=name == reference)
        axes.set(xlabel="step into the future (volumes)", ylabel=metric_name(metric))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        light_grid(axes)
    _mark(panels[-1], methods, order)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=5, handlelength=2.4
    )
    return figure


def _draw(axes: Axes, by_step: list[dict[str, Any]], metric: str, name: str, *, band: bool) -> None:
    label, color, line = METHODS[name]
    steps = np.arange(1, len(by_step) + 1)
    value, low, high = (
        np.array([np.nan if step[metric][key] is None else step[metric][key] for step in by_step])
        for key in ("value", "ci_low", "ci_high")
    )
    if band:
        axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
    axes.plot(
        steps, value, color=color, linestyle=line, linewidth=2.2 if band else 1.3, label=label
    )


def _mark(axes: Axes, methods: Mapping[str, Any], order: list[str]) -> None:
    """A row of squares for each tested method, below the curves."""
    found = {name: methods[name].get("p_holm_by_step") or [] for name in order}
    tested = [name for name in order if any(p is not None for p in found[name])]
    if not tested:
        return
    low, high = axes.get_ylim()
    row = 0.035 * (high - low)
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= high])
    for place, name in enumerate(tested, start=1):
        p = enumerate(found[name], start=1)
        steps = [step for step, one in p if one is not None and one < _SIGNIFICANT]
        level = low - place * row
        axes.plot(steps, [level] * len(steps), "s", color=METHODS[name][1], markersize=3)
    axes.set_ylim(low - (len(tested) + 1) * row, high)


def _name(method: str) -> str:
    return METHODS[method][0]
