"""Figures 3 and 4 of the paper: what was hidden of held-out subjects, and how it is guessed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ...wording import counted
from ..metrics import Estimate, metric_name, smaller_is_better
from ..style import BLUE, GREY, INK, MUTED, RC, VERMILION, light_grid
from .parts import Material, Picture, Row, Section, Table
from .wording import cohort_name, estimate_of, printed, to_draw

#: Method -> (name in print, colour, line).
METHODS: dict[str, tuple[str, str, Any]] = {
    "brainlm": ("BrainLM", BLUE, "-"),
    "interpolation": ("Linear interpolation", VERMILION, (0, (4, 2))),
    "persistence": ("Last value", VERMILION, (0, (1, 1.5))),
    "zero": ("Recording's own mean", GREY, (0, (4, 3))),
}
_KINDS = {
    "random": "random",
    "future": "future",
    "parcels": "whole parcels",
    "networks": "whole networks",
}
_METRICS = ("r2", "pearson", "mse")
_WIDTH = 10.6
_WHOLE = "whole recordings"


def section(material: Material) -> Section | None:
    """Reconstruction's part of the page; None where it was not scored."""
    content = material.json("reconstruction")
    if content is None:
        return None
    conditions = sorted(
        content["conditions"], key=lambda one: (list(_KINDS).index(one["kind"]), one["share"])
    )
    whole = content["whole"]
    cohorts = conditions[0]["cohorts"]
    maps = material.brain_map()
    of_parcels = whole["cohorts"][0]["per_parcel_r2"] if whole else content["per_parcel_r2"]
    parcel_r2 = np.array([np.nan if value is None else value for value in of_parcels])
    label = "R² of each parcel"
    pictures = [
        *_by_share(conditions),
        *_traces(material.table("reconstruction_whole") if whole else None, maps.parcels),
        Picture(
            "reconstruction-parcels",
            f"R² of each parcel over all test subjects, {'all entries' if whole else 'masked'}: "
            "the cortex.",
            maps.surface(parcel_r2, "R²"),
            raster=True,
        ),
        Picture(
            "reconstruction-parcels-glass",
            "The same through a glass brain, with what lies below the cortex.",
            maps.glass(parcel_r2, "R²"),
            raster=True,
        ),
    ]
    blocks = [(_condition(one), one["cohorts"]) for one in conditions]
    turns = f" in {whole['masks']} turns" if whole else ""
    tables = [_scores("figure-4-reconstruction", "Masked entries guessed", blocks)]
    if whole:
        tables.append(
            _scores(
                "reconstruction-whole",
                f"Whole recordings, every entry hidden once{turns}",
                [(_WHOLE, whole["cohorts"])],
            )
        )
    return Section(
        name="reconstruction",
        title="Masked reconstruction",
        text=_text(content, cohorts, whole),
        rows=tuple(_rows([*blocks, *([(_WHOLE, whole["cohorts"])] if whole else [])])),
        tables=tuple(tables),
        pictures=tuple(pictures),
        views={"reconstruction-parcels": maps.interactive(parcel_r2, label)},
        links={label: "views/reconstruction-parcels.html"},
        headline=_headline(content),
    )


def _text(
    content: Mapping[str, Any],
    cohorts: Sequence[Mapping[str, Any]],
    whole: Mapping[str, Any] | None,
) -> str:
    main = _condition({"kind": "random", "share": content["mask_ratio"]})
    others = [_condition(one) for one in content["conditions"] if _condition(one) != main]
    words = (
        f"Entries of {counted(content['n_windows'], 'window')} of "
        f"{counted(content['n_subjects'], 'test subject')} "
        f"({counted(content['n_recordings'], 'recording')}) are hidden and guessed from the "
        f"others: {main} of the tokens in the main condition"
        f"{'; besides: ' if others else ''}{', '.join(others)}. "
        "Each window's mask is fixed by the seed; of random ones greater shares hide what smaller "
        "ones do, and more. "
        "R² is one minus the squared error over the spread of all hidden entries together, never "
        "clipped. Beside the model stand the recording's own mean and a line in time between the "
        "visible values of the same parcel, of a hidden end its last visible value. Intervals "
        "(95%) resample subjects with all their recordings."
    )
    if any(cohort["external"] for cohort in cohorts):
        words += " External cohorts are datasets of which nobody was trained on."
    if whole:
        number = whole["cohorts"][0]["n_recordings"]
        words += (
            f"\n\nWhole recordings ({number:,}) are guessed besides: their tokens are dealt into "
            f"{whole['masks']} disjoint sets, each is hidden in turn, and each entry is guessed "
            "exactly once, from what the other sets show."
        )
    return words


def _condition(block: Mapping[str, Any]) -> str:
    return f"{_KINDS[block['kind']]} {100 * block['share']:g}%"


def _scores(
    name: str, title: str, blocks: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]
) -> Table:
    """A row for each condition and method; R2, r and MSE of each cohort."""
    cohorts = blocks[0][1]
    columns = [(place, metric) for place in range(len(cohorts)) for metric in _METRICS]
    rows: list[tuple[str, ...]] = []
    best: set[tuple[int, int]] = set()
    reasons: dict[str, None] = {}
    for condition, parts in blocks:
        methods = [method for method in METHODS if method in parts[0]["methods"]]
        found = [
            [estimate_of(parts[place]["methods"][method][metric]) for place, metric in columns]
            for method in methods
        ]
        for column, (_, metric) in enumerate(columns):
            winner = _best([line[column].value for line in found], metric)
            if winner is not None:
                best.add((len(rows) + winner, column + 2))
        reasons |= {one.reason: None for line in found for one in line if one.value is not None}
        for number, (method, line) in enumerate(zip(methods, found, strict=True)):
            shown = condition if number == 0 else ""
            rows.append((shown, METHODS[method][0], *(printed(one) for one in line)))
    several = len(cohorts) > 1
    subjects = ", ".join(
        f"{cohort_name(one)}: {counted(one['n_subjects'], 'subject')}" for one in cohorts
    )
    return Table(
        name=name,
        title=title,
        columns=(
            "Hidden",
            "Guessed by",
            *(
                f"{cohort_name(cohorts[place])}, {metric_name(metric)}"
                if several
                else metric_name(metric)
                for place, metric in columns
            ),
        ),
        rows=tuple(rows),
        note="; ".join([subjects, *filter(None, reasons)])
        + ". Bold: the best of a condition. The mean is a constant, which has no r.",
        best=frozenset(best),
    )


def _rows(blocks: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> Iterator[Row]:
    for condition, cohorts in blocks:
        for cohort in cohorts:
            for method, scores in cohort["methods"].items():
                for metric in _METRICS:
                    score = scores[metric]
                    yield Row.of(
                        score,
                        task="reconstruction",
                        method=method,
                        metric=metric,
                        cohort=cohort["cohort"],
                        condition=condition,
                        n_subjects=cohort["n_subjects"],
                    )


def _by_share(conditions: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """R2 by the share that is hidden at random, where there are several."""
    drawn = [one for one in conditions if one["kind"] == "random"]
    if len(drawn) < 2:
        return []
    return [
        Picture(
            "reconstruction-by-share",
            "R² of masked entries by the share of the tokens that is hidden at random; bands: 95% "
            "intervals.",
            _share_figure(drawn),
        )
    ]


@rc_context(RC)
def _share_figure(conditions: Sequence[Mapping[str, Any]]) -> Figure:
    cohorts = conditions[0]["cohorts"]
    figure = Figure(figsize=(_WIDTH if len(cohorts) > 1 else 5.2, 3.2), layout="constrained")
    panels = figure.subplots(1, len(cohorts), sharey=True, squeeze=False)[0]
    share = [one["share"] for one in conditions]
    for place, axes in enumerate(panels):
        for method, (label, color, line) in METHODS.items():
            if method not in conditions[0]["cohorts"][place]["methods"]:
                continue
            value, low, high = (
                np.array(
                    [
                        to_draw(one["cohorts"][place]["methods"][method]["r2"][key])
                        for one in conditions
                    ]
                )
                for key in ("value", "ci_low", "ci_high")
            )
            axes.fill_between(share, low, high, color=color, alpha=0.15, linewidth=0)
            axes.plot(share, value, "o", color=color, linestyle=line, markersize=4, label=label)
        axes.set(xlabel="share hidden", title=cohort_name(cohorts[place]), xlim=(0, 1))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0%}"))
        axes.axhline(0, color=GREY, linewidth=0.8)
        light_grid(axes)
    panels[0].set_ylabel(metric_name("r2"))
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=4, handlelength=2.4
    )
    return figure


def _traces(table: pd.DataFrame | None, parcels: pd.DataFrame) -> list[Picture]:
    """Whole recordings, true and guessed; nobody is named."""
    if table is None or table.empty:
        return []
    return [
        Picture(
            "reconstruction-traces",
            "A parcel of a test recording that was reconstructed well (better than nine in ten "
            "recordings, and in the recording than nine in ten parcels), of a middling and of a "
            "bad one; with few recordings they may be the same. Every time point was hidden when "
            "it was guessed.",
            _trace_figure(table, parcels),
        )
    ]


@rc_context(RC)
def _trace_figure(table: pd.DataFrame, parcels: pd.DataFrame) -> Figure:
    parts = list(table.groupby("how", sort=False))
    figure = Figure(figsize=(_WIDTH, 0.6 + 1.6 * len(parts)), layout="constrained")
    panels = figure.subplots(len(parts), 1, squeeze=False)[:, 0]
    for axes, (how, part) in zip(panels, parts, strict=True):
        axes.plot(part["t"], part["true"], color=INK, linewidth=1, label="true")
        axes.plot(part["t"], part["predicted"], color=BLUE, linewidth=1.3, label="guessed")
        name = parcels["name"].iloc[int(part["parcel"].iloc[0])]
        fit = Estimate(_finite(float(part["r2"].iloc[0]))).text
        axes.set_title(f"{str(how).capitalize()}: parcel {name}, R² {fit}", fontweight="normal")
        axes.set_ylabel("scaled", color=MUTED)
        axes.margins(x=0)
    panels[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1)
    panels[-1].set_xlabel("volume")
    return figure


def _headline(content: Mapping[str, Any]) -> str:
    own = printed(estimate_of(content["metrics"]["r2"]))
    line = estimate_of(content["baselines"]["interpolation"]["r2"]).text
    return f"R² {own} of {content['mask_ratio']:.0%} hidden; linear interpolation {line}"


def _best(values: Sequence[float | None], metric: str) -> int | None:
    """Where the best value stands, the first of equal ones; None where there is no other."""
    known = {row: value for row, value in enumerate(values) if value is not None}
    if len(known) < 2:
        return None
    return (min if smaller_is_better(metric) else max)(known, key=lambda row: known[row])


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
