"""Telling the network of a parcel from the parcels that are most like it.

A fifth of the parcels is asked for, the others are known. How many neighbours vote, and whether
likeness is distance or correlation, is chosen among the known ones, each left out once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from ..shards.splits import uniform_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Neighbours that vote.
VOTERS = (1, 3, 5, 7, 11, 15)
METRICS = ("euclidean", "correlation")
_ASKED = 0.2


@dataclass(frozen=True, eq=False)
class Told:
    """What was told of the parcels asked for."""

    networks: Ints  # (asked,) the network told; -1: no neighbour was near enough in kind
    voters: int
    metric: str


def asked_parcels(networks: Ints, *key: object) -> NDArray[np.bool_]:
    """Which parcels (parcels,) are asked for: a fifth of each network, decided by `key`.

    `networks`: their numbers, below 0 for parcels that count for nothing. At least one parcel of
    each network is known, and of five or more at least one is asked for.
    """
    asked = np.zeros(len(networks), dtype=bool)
    for network in np.unique(networks[networks >= 0]):
        members = np.flatnonzero(networks == network)
        order = sorted(members.tolist(), key=lambda parcel: uniform_of("asked", *key, parcel))
        asked[order[: round(_ASKED * len(members))]] = True
    return asked


def distances(features: Floats) -> dict[str, Floats]:
    """Of all pairs of parcels, (parcels, parcels), by each metric; `features` (parcels, n)."""
    centred = features - features.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.where(norm > 0, norm, 1.0)
    return {"euclidean": cdist(features, features), "correlation": 1 - unit @ unit.T}


def too_near(places: Floats, millimetres: float) -> NDArray[np.bool_]:
    """Pairs of parcels (parcels, parcels) nearer than this to each other, or to a mirror image.

    `places`: (parcels, 3) in mm. What lies side by side is alike for reasons of its own (blur of
    the scanner and of preprocessing), and so are opposite places of the two hemispheres.
    """
    return (cdist(places, places) < millimetres) | (
        cdist(places, places * [-1, 1, 1]) < millimetres
    )


def tell(
    apart: Mapping[str, Floats],
    networks: Ints,
    asked: NDArray[np.bool_],
    barred: NDArray[np.bool_] | None = None,
) -> Told:
    """The networks of the parcels `asked`, by votes of those of the others.

    `apart`: distances of all pairs by each metric; `barred` pairs do not vote for each other.
    """
    known = np.flatnonzero(~asked & (networks >= 0))
    wanted = np.flatnonzero(asked)
    own = np.eye(len(networks), dtype=bool)
    barred = own if barred is None else barred | own
    best: tuple[float, str, int] | None = None
    for metric, distance in apart.items():
        left_out = _votes(distance, known, known, networks, barred)
        for place, voters in enumerate(VOTERS):
            right = float((left_out[place] == networks[known]).mean())
            if best is None or right > best[0]:
                best = (right, metric, voters)
    assert best is not None, "there is a metric"
    _, metric, voters = best
    told = _votes(apart[metric], wanted, known, networks, barred)[VOTERS.index(voters)]
    return Told(told, voters, metric)


def _votes(
    distance: Floats, asking: Ints, known: Ints, networks: Ints, barred: NDArray[np.bool_]
) -> Ints:
    """What 1, 3, ... neighbours say, (voters, asking); of networks with equal votes the nearer."""
    pairs = np.where(barred[np.ix_(asking, known)], np.inf, distance[np.ix_(asking, known)])
    order = np.argsort(pairs, axis=1, kind="stable")[:, : max(VOTERS)]
    may = np.isfinite(np.take_along_axis(pairs, order, axis=1))
    voted = networks[known][order]
    weight = may * (1 - 1e-4 * np.arange(order.shape[1]))  # breaks ties, outvotes nobody
    votes = (voted[:, :, None] == np.arange(networks.max() + 1)) * weight[:, :, None]
    sums = votes.cumsum(axis=1)
    ends = [min(voters, order.shape[1]) - 1 for voters in VOTERS]
    told = sums[:, ends].argmax(axis=2).T
    return np.where(sums[:, -1].any(axis=1), told, -1).astype(np.int64)


def scores(truth: Ints, told: Ints) -> dict[str, float]:
    """Accuracy, and its mean over the networks asked for."""
    right = truth == told
    recalls = [right[truth == network].mean() for network in np.unique(truth)]
    return {"accuracy": float(right.mean()), "balanced_accuracy": float(np.mean(recalls))}
