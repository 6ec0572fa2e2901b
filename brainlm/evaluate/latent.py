"""The space of recordings' vectors: maps of it, and what near recordings have in common.

Maps are made of a draw of all splits, with axes of the train split (PCA) or of what is drawn
(UMAP); scores are of test recordings alone, whom the network never saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..shards.reader import ShardReader
from ..shards.splits import uniform_of
from .latent_labels import LatentLabel
from .latent_maps import NoMapError, principal_components, trustworthiness, umap_plane
from .latent_neighbours import Judged, identify_subjects, score_label
from .paired import holm
from .units import Names, told_units, units_of

#: With fewer test subjects neighbours of others say nothing.
_FEWEST_SUBJECTS = 5
_FEWEST_OF_A_CLASS = 2


@dataclass(frozen=True)
class Latent:
    """What metrics.json holds, and where each drawn recording lies on the maps."""

    metrics: dict[str, Any]
    coordinates: pd.DataFrame  # recording_id, split, pca_1, ..., umap_1, umap_2


def draw(table: pd.DataFrame, most: int, seed: int) -> list[str]:
    """Names of `most` test recordings, and of as many others, by whole subjects, drawn by seed."""
    chosen: list[str] = []
    for test in (True, False):
        rows = table[(table["split"] == "test") == test]
        by_subject = rows.groupby(rows["subject"].astype(str), sort=True)["recording_id"]
        drawn = sorted(by_subject, key=lambda one: uniform_of("latent", seed, one[0]))
        count = 0
        for _, names in drawn:
            count += len(names)
            if count > most:
                break
            chosen += names.astype(str).tolist()
    return sorted(chosen)


def evaluate_latent(
    names: Sequence[str],
    vectors: NDArray[np.float32],
    reader: ShardReader,
    labels: Sequence[LatentLabel],
    judged: Judged,
    *,
    most: int,
) -> Latent:
    """Map and score `vectors` (recordings, hidden); labels are of the recordings `names`."""
    table = reader.table.loc[list(names)]
    splits = table["split"].to_numpy(dtype=np.str_)
    chosen = set(draw(table, most, judged.seed))
    rows = np.array([place for place, name in enumerate(names) if name in chosen])
    drawn = [names[row] for row in rows]
    try:
        plane, explained = principal_components(vectors[splits == "train"], vectors[rows])
    except NoMapError as error:
        return Latent(
            {"task": "latent", "reason": str(error), "seed": judged.seed},
            pd.DataFrame({"recording_id": drawn, "split": splits[rows]}),
        )
    spaces: dict[str, NDArray[np.floating]] = {"vectors": vectors[rows], "pca": _flat(plane)}
    umap: dict[str, Any] = {"neighbours": judged.neighbours}
    try:
        start = _flat(plane)
        spaces["umap"] = umap_plane(vectors[rows], start, judged.neighbours, judged.seed)
    except NoMapError as error:
        umap = {"reason": str(error)}
    test = splits[rows] == "test"
    subjects, units = table["subject"].to_numpy(dtype=np.str_)[rows], units_of(table)[rows]
    metrics = {
        "task": "latent",
        "n_recordings": {
            split: int((splits[rows] == split).sum()) for split in sorted(set(splits))
        },
        "n_subjects": len(set(subjects[test])),
        **told_units(len(set(subjects[test])), units[test]),
        "pca": {"explained": explained.tolist(), "n_train": int((splits == "train").sum())},
        "umap": umap,
        "trustworthiness": _trust(spaces, judged.neighbours),
        "labels": _labels(
            labels,
            rows[test],
            {name: one[test] for name, one in spaces.items()},
            subjects[test],
            units[test],
            judged,
        ),
        "subject": identify_subjects(spaces["vectors"][test], subjects[test], judged, units[test])
        if test.any()
        else {"reason": "no test recordings"},
        "most_recordings": most,
        "bootstrap": judged.bootstrap,
        "permutations": judged.permutations,
        "seed": judged.seed,
    }
    return Latent(metrics, _coordinates(drawn, splits[rows], plane, spaces))


def _flat(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first two axes; where there is but one, the second is 0."""
    return np.pad(plane[:, :2], ((0, 0), (0, max(0, 2 - plane.shape[1]))))


def _trust(spaces: Mapping[str, NDArray[np.floating]], neighbours: int) -> dict[str, Any]:
    k = min(neighbours, max(1, len(spaces["vectors"]) // 4))
    values = {
        name: trustworthiness(spaces["vectors"], spaces[name], k)
        for name in ("pca", "umap")
        if name in spaces
    }
    known = {name: value if np.isfinite(value) else None for name, value in values.items()}
    return {"neighbours": k, **known}


def _labels(
    labels: Sequence[LatentLabel],
    test: NDArray[np.int64],
    spaces: Mapping[str, NDArray[np.floating]],
    subjects: NDArray[np.str_],
    units: Names,
    judged: Judged,
) -> dict[str, Any]:
    """Label -> its scores in each space; p of the headline scores corrected together (Holm)."""
    found: dict[str, Any] = {}
    for label in labels:
        values = label.values[test]
        known = np.isfinite(values)
        about = {
            "kind": label.kind,
            "classes": list(label.classes) or None,
            "n_recordings": int(known.sum()),
            "n_subjects": len(set(subjects[known])),
            **told_units(len(set(subjects[known])), units[known]),
        }
        if reason := _why_not(values[known], label.kind, subjects[known]):
            found[label.name] = {**about, "reason": reason}
            continue
        scores = {
            name: score_label(
                points[known], values[known], label.kind, subjects[known], judged, units[known]
            )
            for name, points in spaces.items()
        }
        found[label.name] = {**about, "spaces": scores}
    tested = [one for label in found.values() for one in label.get("spaces", {}).values()]
    headlines = [one["metrics"][one["headline"]] for one in tested]
    p = np.array([np.nan if one["p"] is None else one["p"] for one in headlines])
    for one, corrected in zip(headlines, holm(p), strict=True):
        one["p_holm"] = float(corrected) if np.isfinite(corrected) else None
    return found


def _why_not(values: NDArray[np.float64], kind: str, subjects: NDArray[np.str_]) -> str | None:
    """Why neighbours cannot be asked for a label; None: they can."""
    count = len(set(subjects))
    if count < _FEWEST_SUBJECTS:
        return f"{count} test subjects have it, neighbours need {_FEWEST_SUBJECTS}"
    several = [
        value
        for value in np.unique(values)
        if len(set(subjects[values == value])) >= _FEWEST_OF_A_CLASS
    ]
    if kind == "classes" and len(several) < 2:
        return "fewer than two of its classes have two test subjects"
    return None if len(np.unique(values)) > 1 else "all test recordings have the same"


def _coordinates(
    names: Sequence[str],
    splits: NDArray[np.str_],
    plane: NDArray[np.float64],
    spaces: Mapping[str, NDArray[np.floating]],
) -> pd.DataFrame:
    columns: dict[str, Any] = {"recording_id": list(names), "split": splits}
    for axis, values in enumerate(plane.T, start=1):
        columns[f"pca_{axis}"] = values
    if "umap" in spaces:
        columns["umap_1"], columns["umap_2"] = spaces["umap"].T
    return pd.DataFrame(columns)
