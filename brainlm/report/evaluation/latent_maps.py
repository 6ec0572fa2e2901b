"""Pictures of recordings on a plane, PCA beside UMAP, coloured by one label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ..style import AMBER, BLUE, GREEN, GREY, INK, PURPLE, RC, RULE, SKY, VERMILION

Floats = NDArray[np.float64]

_COLORS = (BLUE, VERMILION, GREEN, AMBER, PURPLE, SKY, INK)
_PLANES = {"pca": "principal component", "umap": "UMAP"}
_MOST_SUBJECTS = 40


@rc_context(RC)
def number_map(
    coordinates: pd.DataFrame, values: Floats, label: str, test: NDArray[np.bool_]
) -> Figure:
    """Recordings by a number; those in which it is not known are grey.

    The scale ends at the 2nd and the 98th percentile: one outlier would take all the colours.
    """
    figure, panels = _panels(coordinates)
    low, high = np.nanpercentile(values, [2, 98])
    limits = Normalize(low, high if high > low else low + 1)
    shades = colormaps["viridis"](limits(np.nan_to_num(values)))
    shades[np.isnan(values)] = (*_rgb(RULE), 1.0)
    for name, axes in panels.items():
        _dots(axes, coordinates, name, shades, test)
    bar = figure.colorbar(
        ScalarMappable(limits, colormaps["viridis"]), ax=list(panels.values()), aspect=30, pad=0.02
    )
    bar.set_label(label)
    return figure


@rc_context(RC)
def class_map(
    coordinates: pd.DataFrame, values: Floats, names: Sequence[str], test: NDArray[np.bool_]
) -> Figure:
    """Recordings by class; beyond the seven most frequent ones they share a grey."""
    figure, panels = _panels(coordinates)
    known = values[~np.isnan(values)].astype(int)
    counts = np.bincount(known, minlength=len(names))
    order = [number for number in np.argsort(-counts, kind="stable") if counts[number]]
    shown = sorted(order[: len(_COLORS)])
    shades = np.tile((*_rgb(RULE), 1.0), (len(values), 1))
    shades[~np.isnan(values)] = (*_rgb(GREY), 1.0)
    handles = []
    for color, number in zip(_COLORS, shown, strict=False):
        shades[values == number] = (*_rgb(color), 1.0)
        handles.append(_handle(color, f"{names[number]} ({counts[number]})"))
    if len(order) > len(shown):
        rest = counts[order[len(_COLORS) :]]
        handles.append(_handle(GREY, f"{len(rest)} others ({rest.sum()})"))
    if np.isnan(values).any():
        handles.append(_handle(RULE, f"not known ({int(np.isnan(values).sum())})"))
    for name, axes in panels.items():
        _dots(axes, coordinates, name, shades, test)
    figure.legend(handles=handles, loc="outside right center", handletextpad=0.1)
    return figure


@rc_context(RC)
def subject_map(coordinates: pd.DataFrame, subjects: NDArray[np.object_]) -> Figure:
    """Recordings of a subject joined by a line; no subject is named."""
    figure, panels = _panels(coordinates)
    names, counts = np.unique(subjects.astype(str), return_counts=True)
    several = names[counts > 1][:_MOST_SUBJECTS]
    for plane, axes in panels.items():
        x, y = (coordinates[f"{plane}_{axis}"].to_numpy() for axis in (1, 2))
        axes.plot(x, y, "o", color=RULE, markersize=4, zorder=1)
        for place, name in enumerate(several):
            rows = np.flatnonzero(subjects.astype(str) == name)
            color = _COLORS[place % len(_COLORS)]
            axes.plot(x[rows], y[rows], "-o", color=color, markersize=4.5, linewidth=1.1, zorder=2)
    return figure


def _panels(coordinates: pd.DataFrame) -> tuple[Figure, dict[str, Axes]]:
    """A panel for each plane that there is."""
    names = [name for name in _PLANES if f"{name}_2" in coordinates]
    figure = Figure(figsize=(5.4 * len(names) + 0.2, 4.0), layout="constrained")
    panels = dict(zip(names, figure.subplots(1, len(names), squeeze=False)[0], strict=True))
    for name, axes in panels.items():
        axes.set(xlabel=f"{_PLANES[name]} 1", ylabel=f"{_PLANES[name]} 2")
        axes.tick_params(labelbottom=name == "pca", labelleft=name == "pca")
    return figure, panels


def _dots(
    axes: Axes,
    coordinates: pd.DataFrame,
    plane: str,
    shades: Floats,
    test: NDArray[np.bool_],
) -> None:
    """Test recordings above the others, with a dark edge."""
    x, y = (coordinates[f"{plane}_{axis}"].to_numpy() for axis in (1, 2))
    size = float(np.clip(6000 / max(1, len(x)), 4, 36))
    known = 0.75 if len(x) > 200 else 1.0
    for rows, edge, width in ((~test, "none", 0.0), (test, INK, 0.7 if len(x) < 1000 else 0.3)):
        axes.scatter(
            x[rows], y[rows], s=size, c=shades[rows], edgecolors=edge, linewidths=width, alpha=known
        )


def _handle(color: str, label: str) -> Line2D:
    return Line2D([], [], color=color, marker="o", linestyle="none", markersize=6, label=label)


def _rgb(color: str) -> tuple[float, float, float]:
    return to_rgb(color)
