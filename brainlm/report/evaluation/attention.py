"""Figure 8 of the paper: what the model attends to, and how groups differ in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ...wording import counted
from ..brain_maps import BrainMap
from ..style import BLUE, GREY, RC, light_grid
from .parts import Material, Picture, Row, Section, Table
from .wording import cohort_name, estimate_of, p_text, printed, signed

_LEVEL = 0.05
_EFFECT = "effect, SDs of subjects"
#: Parcels that a table of a contrast lists.
_LISTED = 15


def section(material: Material) -> Section | None:
    """Attention's part of the page; None where it was not looked at."""
    content = material.json("attention")
    if content is None:
        return None
    maps = material.brain_map()
    compared = [contrast for contrast in content["contrasts"] if "parcels" in contrast]
    mean = _array(content["cohorts"][0]["mean"])
    views = {"attention": maps.interactive(mean, "attention, 1: an even look")} | {
        f"attention-{contrast['name']}": maps.interactive(
            _array(contrast["parcels"]["effect"]), contrast["contrast"], signed=True
        )
        for contrast in compared
    }
    words = ["Mean attention", *(f"{one['name']}: {one['contrast']}" for one in compared)]
    return Section(
        name="attention",
        title="Attention",
        text=_text(content),
        rows=tuple(_rows(content)),
        tables=(
            *([_networks(content)] if content["cohorts"][0]["networks"] else []),
            *([_overview(content)] if content["contrasts"] else []),
            *(_parcels(contrast, content["parcels"]) for contrast in compared),
        ),
        pictures=tuple(_pictures(content, maps, mean, compared)),
        links={word: f"views/{stem}.html" for word, stem in zip(words, views, strict=True)},
        views=views,
        headline=_headline(content, compared),
    )


def _text(content: Mapping[str, Any]) -> str:
    layer = {"mean": "all layers", -1: "the last layer"}.get(
        content["layer"], f"layer {content['layer']}"
    )
    return (
        f"The attention of CLS to each parcel in {layer}, heads and windows averaged, in "
        f"{counted(content['n_recordings'], 'recording')} of "
        f"{counted(content['n_subjects'], 'test subject')}, as "
        "multiples of an even look: 1 is what the mean parcel with data gets.\n\n"
        "Groups are compared over subjects, each by the mean of their recordings: with themselves "
        "where most are in both groups (sign flips), else by permutations, with the mean framewise "
        "displacement and the dataset held (Freedman and Lane 1983). Corrected over parcels by the "
        "rate of false discoveries (FDR), and by the largest statistic (FWE). Effects are "
        "differences in standard deviations of subjects. Attention shows what enters CLS, not "
        "what a prediction hangs on: see the perturbations."
    )


def _pictures(
    content: Mapping[str, Any],
    maps: BrainMap,
    mean: NDArray[np.float64],
    compared: Sequence[Mapping[str, Any]],
) -> Iterator[Picture]:
    label = "times an even look"
    for cohort in content["cohorts"]:
        ending = "" if cohort["cohort"] == "all" else f"-{cohort['cohort']}"
        values = _array(cohort["mean"])
        people = counted(cohort["n_subjects"], "subject")
        caption = f"Mean attention of CLS. {cohort_name(cohort)}: {people}."
        yield Picture(f"attention-glass{ending}", caption, maps.glass(values, label), raster=True)
        yield Picture(
            f"attention-surface{ending}",
            "The same on the cortex.",
            maps.surface(values, label),
            raster=True,
        )
    if content["cohorts"][0]["networks"]:
        yield Picture(
            "attention-networks",
            "Mean attention of each network's parcels with 95% intervals over subjects.",
            _network_dots(content["cohorts"][0]["networks"]),
        )
    for contrast in compared:
        found, name = contrast["parcels"], contrast["name"]
        effect, fdr = _array(found["effect"]), _array(found["p_fdr"])
        yield Picture(
            f"attention-{name}-effect",
            f"{contrast['contrast']}: effect of all parcels of the cortex, whatever its p.",
            maps.surface(effect, _EFFECT, signed=True),
            raster=True,
        )
        passed = np.where(fdr < _LEVEL, effect, np.nan)
        if np.isfinite(passed).any():
            yield Picture(
                f"attention-{name}-fdr",
                f"{contrast['contrast']}: effect of the "
                f"{counted(contrast['n_fdr'], 'parcel')} with FDR below "
                f"{_LEVEL}.",
                maps.glass(passed, _EFFECT, signed=True),
                raster=True,
            )


@rc_context(RC)
def _network_dots(networks: Mapping[str, Any]) -> Figure:
    """A dot and its interval for each network."""
    estimates = {name: estimate_of(score) for name, score in networks.items()}
    figure = Figure(figsize=(5.6, 0.7 + 0.26 * len(estimates)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(1, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    for place, estimate in enumerate(estimates.values()):
        if estimate.value is None:
            continue
        if estimate.low is not None and estimate.high is not None:
            axes.plot([estimate.low, estimate.high], [place, place], color=BLUE, linewidth=1.6)
        axes.plot(estimate.value, place, marker="o", color=BLUE, markersize=5.5)
    axes.set_yticks(range(len(estimates)), list(estimates))
    axes.set(ylim=(len(estimates) - 0.4, -0.6), xlabel="times an even look")
    light_grid(axes, "x")
    return figure


def _networks(content: Mapping[str, Any]) -> Table:
    """Mean attention by network, of each cohort."""
    cohorts = content["cohorts"]
    names = list(cohorts[0]["networks"])
    estimates = [[estimate_of(cohort["networks"][name]) for cohort in cohorts] for name in names]
    reasons = dict.fromkeys(each.reason for line in estimates for each in line if each.reason)
    return Table(
        name="attention-networks",
        title="Attention of CLS by network",
        columns=("Network", *(cohort_name(cohort) for cohort in cohorts)),
        rows=tuple(
            (name, *(printed(each) for each in line))
            for name, line in zip(names, estimates, strict=True)
        ),
        note="; ".join(["Times an even look", *reasons]) + ".",
    )


def _overview(content: Mapping[str, Any]) -> Table:
    """One row for each contrast: who is in it, and what was found."""
    rows = []
    for contrast in content["contrasts"]:
        known = "parcels" in contrast
        rows.append(
            (
                contrast["contrast"],
                str(contrast["n_high"]),
                str(contrast["n_low"]),
                "within people" if contrast["design"] == "paired" else "between people",
                ", ".join(_adjusted(name) for name in contrast["adjusted_for"]) or "nothing",
                str(contrast["n_fdr"]) if known else "n/a",
                str(contrast["n_fwe"]) if known else "n/a",
            )
        )
    reasons = [
        f"{contrast['name']}: {contrast['reason']}"
        for contrast in content["contrasts"]
        if "reason" in contrast
    ]
    return Table(
        name="attention-contrasts",
        title="Groups compared",
        columns=(
            "Contrast",
            "subjects, first",
            "second",
            "Compared",
            "Held",
            "parcels, FDR",
            "parcels, FWE",
        ),
        rows=tuple(rows),
        note="; ".join([f"Parcels that differ at {_LEVEL}", *reasons]) + ".",
    )


def _adjusted(name: str) -> str:
    return "mean FD" if name == "mean_fd" else name


def _parcels(contrast: Mapping[str, Any], parcels: Sequence[str]) -> Table:
    """The parcels of the smallest p, and all networks."""
    found = contrast["parcels"]
    t = np.abs(np.nan_to_num(_array(found["t"])))
    order = np.argsort(-t, kind="stable")[:_LISTED]
    lines = [_line(parcels[row], found, row) for row in order if found["p"][row] is not None]
    networks = contrast.get("networks")
    if networks:
        lines += [
            _line(f"network: {name}", networks, row)
            for row, name in enumerate(networks["name"])
            if networks["p"][row] is not None
        ]
    return Table(
        name=f"attention-{contrast['name']}",
        title=f"Where attention differs; {contrast['contrast']}",
        columns=("Where", "difference", "effect", "p", "p (FDR)", "p (FWE)"),
        rows=tuple(lines),
        note=f"The {_LISTED} parcels of the largest t, then all networks; p of parcels is "
        "corrected over parcels, that of networks over networks. "
        f"{contrast['permutations']:,} permutations.",
    )


def _line(name: str, found: Mapping[str, Any], row: int) -> tuple[str, ...]:
    return (
        name,
        signed(found["difference"][row]),
        signed(found["effect"][row], 2),
        *(p_text(found[key][row]) for key in ("p", "p_fdr", "p_fwe")),
    )


def _rows(content: Mapping[str, Any]) -> Iterator[Row]:
    for cohort in content["cohorts"]:
        for name, score in cohort["networks"].items():
            yield Row.of(
                score,
                task="attention",
                method="brainlm",
                metric="attention",
                target=name,
                cohort=cohort["cohort"],
                n_subjects=cohort["n_subjects"],
            )
    for contrast in content["contrasts"]:
        if "parcels" not in contrast:
            yield Row(
                task="attention",
                method="brainlm",
                metric="effect",
                value=None,
                target=contrast["name"],
                n_subjects=contrast["n_subjects"],
                note=contrast["reason"],
            )
            continue
        yield from _tested(contrast, content["parcels"], contrast["parcels"], "p_fdr")
        if networks := contrast.get("networks"):
            yield from _tested(contrast, networks["name"], networks, "p_holm")


def _tested(
    contrast: Mapping[str, Any], names: Sequence[str], found: Mapping[str, Any], corrected: str
) -> Iterator[Row]:
    """A row for each parcel, or network; `condition` names it."""
    for row, name in enumerate(names):
        if found["p"][row] is not None:
            yield Row(
                task="attention",
                method="brainlm",
                metric="effect",
                value=found["effect"][row],
                target=contrast["name"],
                condition=name,
                n_subjects=contrast["n_subjects"],
                p=found["p"][row],
                p_corrected=found[corrected][row],
            )


def _headline(content: Mapping[str, Any], compared: Sequence[Mapping[str, Any]]) -> str:
    networks = content["cohorts"][0]["networks"]
    known = {name: score["value"] for name, score in networks.items() if score["value"] is not None}
    parts = []
    if known:
        most = max(known, key=lambda name: known[name])
        parts.append(f"most attention to {most} ({known[most]:.2f} times an even look)")
    parts += [
        f"{one['name']}: {counted(one['n_fdr'], 'parcel')} at FDR {_LEVEL}" for one in compared
    ]
    return "; ".join(parts)


def _array(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values])
