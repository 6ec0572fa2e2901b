"""Table 3 of the paper: which functional network a parcel belongs to."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ...wording import counted
from ..metrics import metric_name
from ..style import INK, RC
from .parts import Material, Picture, Row, Section, Table
from .wording import cohort_name, estimate_of, p_text, printed, signed

#: Method -> name in print; the paper's order, then what the paper lacks.
METHODS = {
    "attention": "BrainLM, attention weights",
    "raw": "Raw series",
    "vae": "VAE",
    "gcn": "GCN",
    "connectivity": "Functional connectivity",
    "position": "Position in the brain",
    "majority": "Chance: largest network",
    "permuted": "Chance: networks permuted",
}
_SCHEMES = {"random": "any parcel votes", "apart": "distant parcels vote"}
_METRICS = ("accuracy", "balanced_accuracy")
_DRAWN = ("attention", "raw", "vae", "gcn", "connectivity")


def section(material: Material) -> Section | None:
    """The networks' part of the page; None where they were not told."""
    content = material.json("networks")
    predictions = material.table("networks_predictions")
    if content is None or predictions is None:
        return None
    if "reason" in content:
        text = f"Not told: {content['reason']}."
        return Section(name="networks", title="Functional networks", text=text)
    cohorts = content["cohorts"]
    maps = material.brain_map()
    accuracy, told = _of_parcels(predictions, content["reference"], len(maps.parcels))
    names = content["networks"]
    known = _codes(maps.parcels, predictions)
    return Section(
        name="networks",
        title="Functional networks",
        text=_text(content),
        rows=tuple(_rows(cohorts)),
        tables=tuple(
            _table(cohort, scheme)
            for cohort in cohorts
            for scheme in _SCHEMES
            if scheme in cohort["schemes"]
        ),
        pictures=(
            Picture(
                "networks-confusion",
                "How often parcels of each network (rows) were told to be of each (columns), in % "
                "of the row; any parcel votes.",
                _confusions(content),
            ),
            Picture(
                "networks-accuracy",
                "In how many test recordings that asked for a parcel attention told its network.",
                maps.surface(accuracy, "share right"),
                raster=True,
            ),
            Picture(
                "networks-told",
                "The network that attention tells of each parcel in most test recordings.",
                maps.surface(told, "told", names),
                raster=True,
            ),
            Picture(
                "networks-known",
                "The known network of each parcel that was asked for.",
                maps.surface(known, "known", names),
                raster=True,
            ),
        ),
        links={"Share of recordings in which attention is right": "views/networks-accuracy.html"},
        views={"networks-accuracy": maps.interactive(accuracy, "share right")},
        headline=_headline(cohorts[0], content["reference"]),
    )


def _text(content: Mapping[str, Any]) -> str:
    chosen, apart = content["attention"], content["spatial_mm"]
    stricter = (
        f"\n\nParcels side by side are alike for reasons of their own. In the stricter test "
        f"(distant parcels vote) only parcels {apart:g} mm away or more, and as far from the "
        "mirror image, have a vote; what is left there is not mere neighbourhood. Position "
        "stands for what coordinates alone tell."
        if apart
        else ""
    )
    return (
        f"In each test recording the networks of a fifth of the {content['n_parcels']} parcels "
        "with a known one are told by their nearest neighbours among the others: the same "
        "parcels for all methods, drawn by the seed, a share of each network. How many "
        "neighbours vote, and whether by distance or by correlation, is chosen among the known "
        "parcels, each left out once. Whole rows stand for a parcel: its attention to (and "
        "correlation with) parcels that are asked for, too, which have no label there.\n\n"
        f"Attention: {chosen['chosen']}, the best of {len(chosen['tried'])} in "
        f"{chosen['n_val_recordings']} validation recordings."
        + _autoencoders(content["autoencoders"])
        + _shared(chosen["parcels_of_a_token"])
        + stricter
    )


def _shared(parcels: int) -> str:
    """A warning where a token holds several parcels."""
    if parcels == 1:
        return ""
    return (
        f"\n\nA token of this model holds {parcels} parcels, neighbours from back to front, which "
        "therefore have one attention: the model's weights tell bands of the brain apart, not the "
        "parcels within one, and its accuracy here does not compare with that of a model whose "
        "tokens are parcels."
    )


def _autoencoders(trained: Collection[str]) -> str:
    """How they came about; empty where none was asked for."""
    if not trained:
        return ""
    graph = (
        "; the GCN's graph is the mean connectivity of those, so that it brings the group's "
        "networks with it"
        if "gcn" in trained
        else ""
    )
    names = " and ".join(METHODS[name] for name in METHODS if name in trained)
    which = f"{names} {'were' if len(trained) > 1 else 'was'}"
    return f" {which} trained on train recordings to tell whole windows from parts of them{graph}."


def _table(cohort: Mapping[str, Any], scheme: str) -> Table:
    """A row for each method; accuracies, and tests beside attention."""
    found = cohort["schemes"][scheme]
    methods = [name for name in METHODS if name in found]
    estimates = {
        name: [estimate_of(found[name]["metrics"][metric]) for metric in _METRICS]
        for name in methods
    }
    reasons = dict.fromkeys(one.reason for line in estimates.values() for one in line if one.reason)
    people = (
        f"{counted(cohort['n_recordings'], 'recording')} of "
        f"{counted(cohort['n_subjects'], 'subject')}"
    )
    parts = ["table-3-networks", *(["apart"] if scheme == "apart" else [])]
    parts += [] if cohort["cohort"] == "all" else [cohort["cohort"]]
    return Table(
        name="-".join(parts),
        title=f"Functional networks, {_SCHEMES[scheme]}; {cohort_name(cohort)}",
        columns=(
            "Representation",
            *(metric_name(metric) for metric in _METRICS),
            "SD over recordings",
            "beside attention",
            "p (Holm)",
        ),
        rows=tuple(
            (
                METHODS[name],
                *(printed(estimate) for estimate in line),
                _spread(found[name], cohort["n_recordings"]),
                signed(_more(found[name])),
                p_text(found[name].get("p_holm")),
            )
            for name, line in estimates.items()
        ),
        note="; ".join([f"Means over {people}", *reasons])
        + ". SD and differences are of the accuracy, differences means over subjects, tested by "
        "sign flips. Bold: the best of a column.",
        best=frozenset(
            (row, place + 1)
            for place in range(len(_METRICS))
            if (row := _best([line[place].value for line in estimates.values()])) is not None
        ),
    )


def _spread(part: Mapping[str, Any], n_recordings: int) -> str:
    """The recordings' standard deviation; one recording has none."""
    return f"{part['metrics']['accuracy']['sd']:.3f}" if n_recordings > 1 else "n/a"


def _more(part: Mapping[str, Any]) -> float | None:
    less = part.get("less_than_reference")
    return None if less is None else -float(less)


def _best(values: Sequence[float | None]) -> int | None:
    known = [(value, -row) for row, value in enumerate(values) if value is not None]
    return -max(known)[1] if len(known) > 1 else None


def _rows(cohorts: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    for cohort in cohorts:
        for scheme in [name for name in _SCHEMES if name in cohort["schemes"]]:
            found = cohort["schemes"][scheme]
            for name in [name for name in METHODS if name in found]:
                part = found[name]
                for metric in _METRICS:
                    score, tested = part["metrics"][metric], metric == "accuracy"
                    yield Row.of(
                        score,
                        task="networks",
                        method=name,
                        metric=metric,
                        cohort=cohort["cohort"],
                        condition=_SCHEMES[scheme],
                        n_subjects=cohort["n_subjects"],
                        p=part.get("p") if tested else None,
                        p_corrected=part.get("p_holm") if tested else None,
                    )


def _of_parcels(
    predictions: pd.DataFrame, reference: str, parcels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each parcel the share of right answers, and the usual answer; NaN where never asked."""
    ours = predictions[(predictions["method"] == reference) & (predictions["scheme"] == "random")]
    right, usual = np.full(parcels, np.nan), np.full(parcels, np.nan)
    for parcel in ours["parcel"].unique().tolist():
        part = ours[ours["parcel"] == parcel]
        right[parcel] = float((part["true"] == part["told"]).mean())
        usual[parcel] = float(part["told"].mode().iloc[0])
    return right, usual


def _codes(parcels: pd.DataFrame, predictions: pd.DataFrame) -> NDArray[np.float64]:
    """The known network of each parcel that was asked for."""
    known = np.full(len(parcels), np.nan)
    once = predictions.drop_duplicates("parcel")
    known[once["parcel"].to_numpy()] = once["true"].to_numpy()
    return known


@rc_context(RC)
def _confusions(content: Mapping[str, Any]) -> Figure:
    """A matrix for each method, shades of one colour."""
    found = content["confusion"]["random"]
    methods = [name for name in _DRAWN if name in found]
    figure = Figure(figsize=(10.6, 1.6 + 9.6 / max(len(methods), 3)), layout="constrained")
    panels = figure.subplots(1, len(methods), squeeze=False)[0]
    for axes, name in zip(panels, methods, strict=True):
        counts = np.array(found[name], dtype=np.float64)
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        _matrix(axes, share, content["networks"], first=axes is panels[0])
        axes.set_title(METHODS[name].replace(", ", "\n"), fontsize=8, loc="center")
    return figure


def _matrix(axes: Axes, share: NDArray[np.float64], names: Sequence[str], *, first: bool) -> None:
    axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
    for row, column in np.ndindex(*share.shape):
        value = share[row, column]
        color = "white" if value > 0.55 else INK
        text = f"{100 * value:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=6, color=color)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=90, fontsize=7)
    axes.set_yticks(places, names if first else [""] * len(names), fontsize=7)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _headline(cohort: Mapping[str, Any], reference: str) -> str:
    found = cohort["schemes"]["random"]
    rivals = {
        name: part["metrics"]["accuracy"]["value"]
        for name, part in found.items()
        if name not in (reference, "majority", "permuted")
        and part["metrics"]["accuracy"]["value"] is not None
    }
    ours = printed(estimate_of(found[reference]["metrics"]["accuracy"]))
    best = max(rivals, key=lambda name: rivals[name])
    return f"{METHODS[reference]}: accuracy {ours}; {METHODS[best]} {rivals[best]:.3f}"
