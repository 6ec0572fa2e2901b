"""Figure 5 of the paper: where recordings lie by their vectors, and what neighbours share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ...evaluate.latent_labels import LatentLabel, latent_labels
from ...train.settings import read_finetune
from ..metrics import Estimate, pretty
from .latent_maps import class_map, number_map, subject_map
from .parts import Material, Picture, Row, Section, Table, stem_of
from .wording import estimate_of, p_text, printed

#: Where neighbours are looked for, and how it is called.
SPACES = {"vectors": "vectors", "pca": "PCA", "umap": "UMAP"}
_SCORES = {
    "pearson": "Pearson r",
    "r2": "R²",
    "balanced_accuracy": "balanced accuracy",
    "same_class": "share of neighbours of the same class",
}
_MANY = 3000


def section(material: Material) -> Section | None:
    """The latent space's part of the page; None where it was not looked at."""
    content = material.json("latent")
    coordinates = material.table("latent_coordinates")
    index = material.table("shards_index")
    if content is None or coordinates is None or index is None:
        return None
    if reason := content.get("reason"):
        return Section(
            name="latent",
            title="Latent space",
            text=f"There is no map of the recordings' vectors ({_pool(content)}): {reason}.",
            headline="no map",
        )
    table = index.set_index("recording_id", drop=False).loc[coordinates["recording_id"]]
    params = content["Parameters"]
    labels = latent_labels(
        table, read_finetune(params["finetune"]).targets, params["latent"]["labels"]
    )
    return Section(
        name="latent",
        title="Latent space",
        text=_text(content),
        rows=tuple(_rows(content)),
        tables=(_neighbours(content),),
        pictures=tuple(_pictures(coordinates, table, labels, content)),
        headline=_headline(content),
    )


def _text(content: Mapping[str, Any]) -> str:
    n, trust = content["n_recordings"], content["trustworthiness"]
    shares = content["pca"]["explained"]
    known = [
        f"{SPACES[name]} {trust[name]:.2f}"
        for name in ("pca", "umap")
        if trust.get(name) is not None
    ]
    umap = content["umap"].get("reason")
    return (
        f"Each recording's vector ({_pool(content)}; its windows averaged) of the pretrained "
        "model, on the first principal components of the train recordings (they hold "
        f"{sum(shares[:2]):.0%} of the variance)"
        + (
            f"; no UMAP: {umap}."
            if umap
            else ", and by UMAP begun there. Distances of a UMAP between clusters mean little."
        )
        + f" Drawn: {sum(n.values())} recordings, {n.get('test', 0)} of them test."
        + (f" Trustworthiness of the maps (1 is best): {', '.join(known)}." if known else "")
        + " Scores are of test recordings: what the nearest recordings of other subjects say of a "
        "label, beside the same with labels dealt out anew among the subjects (chance, and p, "
        "one-sided, corrected by Holm over labels and spaces)."
    )


def _pool(content: Mapping[str, Any]) -> str:
    return "CLS" if content["pool"] == "cls" else "the mean over CLS and all tokens"


def _neighbours(content: Mapping[str, Any]) -> Table:
    """A row for each label."""
    spaces = [name for name in SPACES if name != "umap" or "reason" not in content["umap"]]
    rows, reasons = [], []
    for name, label in content["labels"].items():
        if "reason" in label:
            reasons.append(f"{pretty(name)}: {label['reason']}")
            continue
        first = label["spaces"]["vectors"]
        score = _SCORES[first["headline"]]
        rows.append(
            (
                pretty(name),
                score,
                str(label["n_subjects"]),
                *(_cell(label["spaces"][space]) for space in spaces),
                _printed(first["metrics"][first["headline"]]["chance"]),
            )
        )
    subject = content["subject"]
    if "reason" in subject:
        reasons.append(f"Same subject: {subject['reason']}")
    else:
        cell = f"{printed(estimate_of(subject))} (p {p_text(subject['p'])})"
        rest = ("" for _ in spaces[1:])
        chance = _printed(subject["chance"])
        count = str(subject["n_subjects"])
        rows.append(("Same subject", "nearest is the same person's", count, cell, *rest, chance))
    return Table(
        name="latent-neighbours",
        title="What the neighbours of test recordings share with them",
        columns=(
            "Label",
            "Score",
            "Subjects",
            *(f"Among the {SPACES[one]}" if one == "vectors" else SPACES[one] for one in spaces),
            "Chance",
        ),
        rows=tuple(rows),
        note="; ".join(
            [*reasons, "95% intervals over subjects; p of labels after Holm's correction"]
        )
        + ".",
    )


def _cell(found: Mapping[str, Any]) -> str:
    score = found["metrics"][found["headline"]]
    p = score.get("p_holm")
    return printed(estimate_of(score)) + ("" if p is None else f"; p {p_text(p)}")


def _rows(content: Mapping[str, Any]) -> Iterator[Row]:
    n_subjects = content["n_subjects"]
    for name in ("pca", "umap"):
        value = content["trustworthiness"].get(name)
        if value is not None:
            yield Row("latent", name, "trustworthiness", value, cohort="all")
    for axis, share in enumerate(content["pca"]["explained"], start=1):
        yield Row("latent", "pca", "explained", share, cohort="train", condition=f"axis {axis}")
    for target, label in content["labels"].items():
        if "reason" in label:
            yield Row("latent", "vectors", "", None, target=target, note=label["reason"])
        for space, found in label.get("spaces", {}).items():
            for metric, score in found["metrics"].items():
                yield Row.of(
                    score,
                    task="latent",
                    method=space,
                    metric=metric,
                    target=target,
                    condition=f"{found['neighbours']} neighbours",
                    n_subjects=label["n_subjects"],
                    p=score["p"],
                    p_corrected=score.get("p_holm"),
                )
    subject = content["subject"]
    yield Row(
        "latent",
        "vectors",
        "same_subject",
        subject.get("value"),
        subject.get("ci_low"),
        subject.get("ci_high"),
        target="subject",
        condition="1 neighbour",
        n_subjects=subject.get("n_subjects", n_subjects),
        p=subject.get("p"),
        note=subject.get("reason") or "",
    )


def _pictures(
    coordinates: pd.DataFrame,
    table: pd.DataFrame,
    labels: list[LatentLabel],
    content: Mapping[str, Any],
) -> Iterator[Picture]:
    many = len(coordinates) > _MANY
    test = (coordinates["split"] == "test").to_numpy()
    for label in labels:
        if pd.Series(label.values).nunique() < 2:
            continue
        if label.kind == "regression":
            figure = number_map(coordinates, label.values, pretty(label.name), test)
        else:
            figure = class_map(coordinates, label.values, label.classes, test)
        yield Picture(
            name=f"latent-{stem_of(label.name).lower()}",
            caption=f"Recordings by {pretty(label.name)}. Dots with a dark edge: test recordings; "
            "grey: not known.",
            figure=figure,
            raster=many,
        )
    splits = ("train", "val", "test")
    of_split = coordinates["split"].map({name: place for place, name in enumerate(splits)})
    yield Picture(
        name="latent-by-split",
        caption="Recordings by split: they should lie among each other.",
        figure=class_map(coordinates, np.asarray(of_split, np.float64), splits, test),
        raster=many,
    )
    if "reason" not in content["subject"]:
        yield Picture(
            name="latent-by-subject",
            caption="Test recordings; lines join those of a subject (of 40 subjects at most).",
            figure=subject_map(coordinates[test], table["subject"].to_numpy()[test]),
            raster=many,
        )


def _headline(content: Mapping[str, Any]) -> str:
    """The label that neighbours tell best, by p and then by its score above chance.

    Its p is the corrected one: the least of many is told.
    """
    told = []
    for name, label in content["labels"].items():
        if "spaces" not in label:
            continue
        found = label["spaces"]["vectors"]
        score = found["metrics"][found["headline"]]
        if score.get("p_holm") is not None:
            above = score["value"] - (score["chance"] or 0)
            told.append((score["p"], -above, name, found["headline"], score))
    if not told:
        return "neighbours could not be asked for any label"
    _, _, name, metric, score = min(told, key=lambda one: one[:3])
    told_by = f"{_SCORES[metric]} {printed(estimate_of(score))}, p {p_text(score['p_holm'])} (Holm)"
    return f"{pretty(name)} by its neighbours: {told_by}"


def _printed(value: float | None) -> str:
    return Estimate(value).text
