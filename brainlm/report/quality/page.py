"""The page of all recordings: a table to sort, filter and decide in, and what goes with motion."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy import stats

from ..reproducibility.base import render
from ..style import BLUE, GREY, INK, MUTED, RC, VERMILION, light_grid, to_svg_uri
from .motion_links import MotionLinks

_BINS = 20


@dataclass(frozen=True)
class GroupPage:
    """What the page shows."""

    name: str  # of the study
    data: dict[str, Any]  # of `group.page_data`
    ineligible: int
    links: MotionLinks | None
    kept_lines: dict[str, str]  # of the exclusion list, on recordings that the table does not have

    def render(self) -> str:
        """One self-contained page; the pages of the recordings lie beside it."""
        text = render(
            "quality_index.html.j2",
            page=self,
            total=len(self.data["ids"]),
            missing=sum(state != "" for state in self.data["state"]),
            content=_script_json({**self.data, "keptLines": self.kept_lines}),
            links=self.links and _told(self.links),
        )
        return "\n".join(line.rstrip() for line in text.splitlines() if line.strip()) + "\n"


def _script_json(content: dict[str, Any]) -> Markup:
    """JSON that nothing in it can end the script element of."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("\u2028", " ").replace("\u2029", " "))


def _told(links: MotionLinks) -> dict[str, Any]:
    return {
        "subjects": links.subjects,
        "median": f"{links.median:.3f}",
        "by_chance": f"{links.by_chance:.3f}",
        "significant": f"{links.significant:.1%}",
        "dependence": f"{links.distance_dependence:+.3f}".replace("-", "−"),
        "histogram": to_svg_uri(_histogram(links)),
        "distance": to_svg_uri(_by_distance(links)),
    }


@rc_context(RC)
def _histogram(links: MotionLinks) -> Figure:
    """Edges by their correlation with motion, and what chance would give."""
    figure = Figure(figsize=(5.4, 2.5))
    axes = figure.add_axes((0.11, 0.2, 0.86, 0.68))
    reach = max(0.3, float(np.quantile(np.abs(links.r), 0.999)) * 1.1)
    edges = np.linspace(-reach, reach, 61)
    axes.hist(links.r, edges.tolist(), density=True, color=BLUE, alpha=0.75)
    chance = stats.norm.pdf(edges, scale=1 / np.sqrt(links.subjects - 1))
    axes.plot(edges, chance, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.axvline(0, color=GREY, linewidth=0.6)
    axes.set(title="Edges by correlation with mean FD (dashed: chance)", yticks=[], xlabel="r")
    axes.spines["left"].set_visible(False)
    return figure


@rc_context(RC)
def _by_distance(links: MotionLinks) -> Figure:
    """Median and quartiles of the correlation in twenty bins of edges of about the same length."""
    figure = Figure(figsize=(5.4, 2.5))
    axes = figure.add_axes((0.13, 0.2, 0.84, 0.68))
    limits = np.quantile(links.distance, np.linspace(0, 1, _BINS + 1))
    bins = np.clip(np.searchsorted(limits, links.distance, side="right") - 1, 0, _BINS - 1)
    parts = [links.r[bins == number] for number in range(_BINS)]
    middle = (limits[1:] + limits[:-1]) / 2
    known = np.array([len(part) > 0 for part in parts])
    low, median, high = np.array([np.quantile(p, [0.25, 0.5, 0.75]) for p in parts if len(p)]).T
    axes.fill_between(middle[known], low, high, color=VERMILION, alpha=0.18, lw=0)
    axes.plot(middle[known], median, color=VERMILION, linewidth=1.4)
    axes.axhline(0, color=MUTED, linewidth=0.7)
    axes.set(title="By length of the edge (median, quartiles)", xlabel="mm", ylabel="r")
    light_grid(axes)
    return figure
