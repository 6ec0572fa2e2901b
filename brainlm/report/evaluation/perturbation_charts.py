"""Charts of perturbations: experiments by networks, and sizes by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ..style import AMBER, BLUE, GREEN, GREY, INK, PURPLE, RC, SKY, VERMILION, light_grid
from .wording import to_draw

Floats = NDArray[np.float64]

_COLORS = (BLUE, VERMILION, GREEN, AMBER, PURPLE, SKY, GREY, INK)
_LINES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1.5)))


@rc_context(RC)
def network_matrix(experiments: Sequence[Mapping[str, Any]]) -> Figure:
    """Experiments (rows) by networks (columns): size, and size less that of shams."""
    networks = list(experiments[0]["by_network"])
    size, sham = (
        np.array([[to_draw(e["by_network"][n][key]) for n in networks] for e in experiments])
        for key in ("size", "sham")
    )
    own = np.array([[e["by_network"][n]["perturbed"] for n in networks] for e in experiments])
    more = np.where(own, np.nan, size - sham)  # a sham changes other parcels: nothing to compare
    figure = Figure(figsize=(10.6, 1.7 + 0.27 * len(experiments)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    rest = np.where(own, np.nan, size)
    top = float(np.nanmax(rest)) if np.isfinite(rest).any() else 1.0
    _matrix(left, size, own, "viridis", Normalize(0, top or 1.0))
    reach = float(np.nanmax(np.abs(more))) if np.isfinite(more).any() else 1.0
    _matrix(right, more, own, "RdBu_r", Normalize(-(reach or 1.0), reach or 1.0))
    left.set_title("Size (scaled units)")
    right.set_title("Size less that of shams")
    for axes in (left, right):
        axes.set_xticks(range(len(networks)), networks, rotation=40, ha="right")
    left.set_yticks(range(len(experiments)), [e["name"] for e in experiments])
    return figure


def _matrix(
    axes: Axes, values: Floats, own: NDArray[np.bool_], colors: str, limits: Normalize
) -> None:
    """Cells with their numbers; what was perturbed itself is framed."""
    shades = colormaps[colors]
    axes.imshow(np.ma.masked_invalid(values), cmap=shades, norm=limits, aspect="auto")
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        if np.isfinite(value):
            red, green, blue, _ = shades(limits(value))
            light = 0.3 * red + 0.59 * green + 0.11 * blue > 0.55
            text = f"{value:.3f}".replace("-", "−")
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=6.5,
                color=INK if light else "white",
            )
        if own[row, column]:
            frame = Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, edgecolor=INK)
            axes.add_patch(frame)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


@rc_context(RC)
def steps_figure(experiments: Sequence[Mapping[str, Any]]) -> Figure:
    """Size by step: of the parcels left alone, and of those perturbed.

    A network keeps its colour; what else is done to it has another line.
    """
    figure = Figure(figsize=(10.6, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    order = list(dict.fromkeys(e["network"] or e["name"] for e in experiments))
    seen: dict[str, int] = {}
    for experiment in experiments:
        group = experiment["network"] or experiment["name"]
        line = _LINES[seen.get(group, 0) % len(_LINES)]
        seen[group] = seen.get(group, 0) + 1
        color = _COLORS[order.index(group) % len(_COLORS)]
        for axes, key in zip(panels, ("size_by_step", "size_perturbed_by_step"), strict=True):
            sizes = [to_draw(value) for value in experiment[key]]
            steps = range(1, len(sizes) + 1)
            axes.plot(
                steps, sizes, color=color, linestyle=line, linewidth=1.3, label=experiment["name"]
            )
    panels[0].set_title("Parcels left alone")
    panels[1].set_title("Perturbed parcels")
    for axes in panels:
        axes.set(xlabel="step into the future (volumes)", ylabel="size, scaled units")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        light_grid(axes)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=7)
    return figure
