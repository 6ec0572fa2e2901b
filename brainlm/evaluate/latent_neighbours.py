"""What the neighbours of a recording have in common with it: labels, and whose brain it is.

A recording's neighbours are those of other subjects: the same person scanned again lies near for
reasons that have nothing to do with a label. Nothing is fitted, so the test recordings alone are
looked at. A recording is told what its neighbours are, and how that fits its own label is compared
with labels dealt out anew among the subjects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..train.label_scores import regression_scores
from .latent_maps import squared_distances
from .permutation import Exchange
from .statistics import labels_with_ci

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: The score of each kind of label that is tested.
HEADLINE = {"regression": "pearson", "classes": "balanced_accuracy"}
_BLOCK = 1024


@dataclass(frozen=True)
class Judged:
    """How intervals and p values are made."""

    neighbours: int
    bootstrap: int
    permutations: int
    seed: int


def nearest(vectors: NDArray[np.floating], owner: Ints, k: int, *, of_others: bool) -> Ints:
    """The `k` nearest of each recording, (n, k), nearest first, by Euclidean distance.

    `owner` (n,) numbers the subjects; with `of_others` those of the recording's own are passed
    over, without it only the recording itself. The first of equally near ones is taken.
    """
    n = len(vectors)
    found = np.empty((n, k), np.int64)
    for first in range(0, n, _BLOCK):
        rows = np.arange(first, min(first + _BLOCK, n))
        distances = squared_distances(vectors, rows)
        own = owner[rows, None] == owner if of_others else rows[:, None] == np.arange(n)
        distances[own] = np.inf
        found[rows] = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return found


def asked_of(owner: Ints, neighbours: int) -> int:
    """How many neighbours there are to ask: a quarter of all at most, and never one's own."""
    others = len(owner) - int(np.bincount(owner).max(initial=0))
    return min(neighbours, max(1, len(owner) // 4), others)


def score_label(
    vectors: NDArray[np.floating],
    label: Floats,
    kind: str,
    subjects: NDArray[np.str_],
    judged: Judged,
    units: NDArray[np.str_] | None = None,
) -> dict[str, Any]:
    """Scores of what the neighbours say of a label, each with interval, chance and p.

    `label` (n,) is a number, or the number of a class. p is the share of deals in which subjects
    swapped labels that scored as high (one-sided, the true one counted: never 0). `units`: of each
    recording its subject, or the family that is resampled, and swaps labels, as one.
    """
    units = subjects if units is None else units
    _, first, inverse = np.unique(subjects, return_index=True, return_inverse=True)
    owner = inverse.astype(np.int64)
    k = asked_of(owner, judged.neighbours)
    near = nearest(vectors, owner, k, of_others=True)
    score = _scorer(label, kind)
    told = _told(label, near, kind)
    found = labels_with_ci(score, label, told, units, n_draws=judged.bootstrap, seed=judged.seed)
    true = score(label, told)
    draws: dict[str, list[float]] = {name: [] for name in true}
    deal = _Deal(owner, label, units[first])
    rng = np.random.default_rng(judged.seed)
    for _ in range(judged.permutations if deal.moves else 0):
        dealt = label[deal.rows(rng)]
        for name, value in score(dealt, _told(dealt, near, kind)).items():
            draws[name].append(value)
    for name, metric in found.items():
        others = np.array(draws[name])
        others = others[np.isfinite(others)]  # none where nobody may change places
        defined = metric["value"] is not None and len(others)
        metric["chance"] = float(others.mean()) if defined else None
        high = int((others >= true[name] - 1e-12).sum())
        metric["p"] = (1 + high) / (1 + len(others)) if defined else None
    return {"neighbours": k, "headline": HEADLINE[kind], "metrics": found}


def identify_subjects(
    vectors: NDArray[np.floating],
    subjects: NDArray[np.str_],
    judged: Judged,
    units: NDArray[np.str_] | None = None,
) -> dict[str, Any]:
    """How often the nearest recording is of the same subject, among those with several.

    Chance is the share of a recording's possible neighbours that are its subject's; p by dealing
    the recordings out to the subjects anew. `units` as in `score_label`.
    """
    owner = np.unique(subjects, return_inverse=True)[1].astype(np.int64)
    counts = np.bincount(owner)[owner]
    several = counts > 1
    if len(set(owner[several])) < 2:
        return {"reason": "fewer than two test subjects have several recordings"}
    near = nearest(vectors, owner, 1, of_others=False)[:, 0]

    hit = (owner[near] == owner).astype(np.float64)[several]
    found = labels_with_ci(
        lambda truth, _: {"same_subject": float(truth.mean())},
        hit,
        hit,
        (subjects if units is None else units)[several],
        n_draws=judged.bootstrap,
        seed=judged.seed,
    )["same_subject"]
    rng = np.random.default_rng(judged.seed)
    dealt = np.array([_rate_of(rng.permutation(owner), near) for _ in range(judged.permutations)])
    high = int((dealt >= _rate_of(owner, near) - 1e-12).sum())
    return {
        **found,
        "chance": float(((counts[several] - 1) / (len(owner) - 1)).mean()),
        "p": (1 + high) / (1 + len(dealt)),
        "n_subjects": len(set(owner[several])),
        "n_recordings": int(several.sum()),
    }


def _rate_of(owner: Ints, near: Ints) -> float:
    """Share of the recordings of subjects with several whose nearest one is the same subject's."""
    several = np.bincount(owner)[owner] > 1
    return float((owner[near] == owner)[several].mean())


def _told(label: Floats, near: Ints, kind: str) -> Floats:
    """What neighbours say: their mean, (n,), or the share of each class, (n, classes)."""
    if kind == "regression":
        return np.asarray(label[near].mean(axis=1))
    classes = int(label.max()) + 1
    return np.asarray(np.eye(classes)[label.astype(int)][near].mean(axis=1))


def _scorer(label: Floats, kind: str) -> Callable[[Floats, Floats], dict[str, float]]:
    """Pearson's r and R2; of classes balanced accuracy and the share of neighbours that are alike.

    A class is called when its share is largest beside its share among all: a rare one may win.
    """
    if kind == "regression":
        return lambda truth, told: {
            name: value
            for name, value in regression_scores(truth, told).items()
            if name in ("pearson", "r2")
        }
    frequency = np.bincount(label.astype(int)) / len(label)

    def score(truth: Floats, shares: Floats) -> dict[str, float]:
        true = truth.astype(int)
        called = np.divide(shares, frequency, where=frequency > 0, out=np.zeros_like(shares))
        right = called.argmax(axis=1) == true
        there = np.bincount(true, minlength=len(frequency))
        recall = np.bincount(true, weights=right, minlength=len(frequency))[there > 0]
        several = (there > 0).sum() > 1
        return {
            "balanced_accuracy": float((recall / there[there > 0]).mean()) if several else np.nan,
            "same_class": float(shares[np.arange(len(true)), true].mean()) if several else np.nan,
        }

    return score


class _Deal:
    """Labels dealt out anew: each subject gets another one's, all of them together.

    Where labels change within a subject, only subjects with equally many recordings change places:
    labels gone through again would lie closer together than any that were seen. Families swap as
    wholes.
    """

    def __init__(self, owner: Ints, label: Floats, units: NDArray[np.str_]):
        """`owner` (n,) numbers the subjects from 0; `label` (n,); `units` are of the subjects."""
        self._sorted = np.argsort(owner, kind="stable")
        self._owner = owner
        self._counts = np.bincount(owner)
        self._starts = np.cumsum(self._counts) - self._counts
        self._place = np.empty_like(owner)  # of a recording among its subject's
        self._place[self._sorted] = np.arange(len(owner)) - self._starts[owner[self._sorted]]
        alike = bool((label == label[self._sorted[self._starts]][owner]).all())
        blocks = np.zeros_like(self._counts) if alike else self._counts
        self._exchange = Exchange(blocks, units)
        #: Whether anybody may change places.
        self.moves = self._exchange.any_moves

    def rows(self, rng: np.random.Generator) -> Ints:
        """(n,) whose label each recording gets."""
        of_each = self._exchange.drawn(1, rng)[0][self._owner]
        return self._sorted[self._starts[of_each] + self._place % self._counts[of_each]]
