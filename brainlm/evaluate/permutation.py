"""Whether predictions know anything of a label: labels exchanged between people.

If they do not, each person might as well have any other's label. What is exchanged are subjects,
with all their recordings: a person's recordings are no independent proofs. Where everybody has one
label that is exact whatever the number of recordings; where labels change within a person (age at
each visit) only people with equally many recordings change places, which is exact again. Families
change places as wholes, with families of as many members: siblings' labels are alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

#: What is compared with its permutations, by the kind of label. Predictions stay, so of R2, MSE and
#: r each says the same where subjects have equally many recordings: r alone moves.
STATISTICS = {"regression": "pearson", "binary": "auroc", "classes": "auroc"}
N_DRAWS = 10_000
_AT_ONCE = 2_000_000  # numbers of permuted labels held at once


def permutation_p(
    truth: Floats,
    guesses: Mapping[str, Floats],
    subjects: NDArray[np.str_],
    *,
    kind: str,
    seed: int,
    units: NDArray[np.str_] | None = None,
    sites: NDArray[np.str_] | None = None,
    n_draws: int = N_DRAWS,
) -> dict[str, float]:
    """Method -> one-sided p of its predictions ranking, or following, labels by chance.

    Draws at least as good as what was seen are counted, and that itself: p is never 0. Labels are
    the same draw by draw for all methods. `units`: of each recording its subject, or the family
    that changes places as one. `sites`: exchange only among people of the same sites. NaN where
    labels or predictions do not vary, or nobody may change places.
    """
    labels, owner, visit = _by_subject(truth, subjects)
    constant = bool((labels == labels[:, :1]).all())
    blocks = _blocks(owner, None if constant else np.bincount(owner), sites)
    first = np.unique(subjects, return_index=True)[1]
    exchange = Exchange(blocks, subjects[first] if units is None else units[first])
    if not exchange.any_moves:
        return dict.fromkeys(guesses, np.nan)
    features = np.stack([_standing(guess, kind) for guess in guesses.values()])
    seen = _statistic(truth[None], features, kind)[0]
    reached = np.ones(len(guesses))
    for order in _orders(exchange, n_draws, max(1, _AT_ONCE // len(truth)), seed):
        drawn = labels[order[:, owner], visit]
        reached += (_statistic(drawn, features, kind) >= seen - 1e-9).sum(axis=0)
    p = np.where(np.isfinite(seen), reached / (n_draws + 1), np.nan)
    return dict(zip(guesses, p.tolist(), strict=True))


def _by_subject(truth: Floats, subjects: NDArray[np.str_]) -> tuple[Floats, Places, Places]:
    """Labels (subjects, visits), and subject and visit of each recording.

    A subject with fewer visits than others has the last one's label for the rest: it is read only
    where a subject with one label takes the place of one with more recordings.
    """
    owner = np.unique(subjects, return_inverse=True)[1]
    counts = np.bincount(owner)
    by_owner = np.argsort(owner, kind="stable")
    visit = np.empty(len(owner), np.int64)
    starts = np.cumsum(counts) - counts
    visit[by_owner] = np.arange(len(owner)) - np.repeat(starts, counts)
    last = np.minimum(np.arange(counts.max()), counts[:, None] - 1)
    return truth[by_owner][starts[:, None] + last], owner, visit


def _blocks(owner: Places, counts: Places | None, sites: NDArray[np.str_] | None) -> Places:
    """Number of the block of each subject: only within it labels are exchanged.

    `counts`: of recordings, where labels change within a subject; each of its recordings then gets
    the label of one of the same site. Of subjects with one label, sites are told once.
    """
    keys: list[tuple[object, ...]] = (
        [()] * (owner.max() + 1) if counts is None else [(int(n),) for n in counts]
    )
    if sites is not None:
        of_each: list[list[str]] = [[] for _ in keys]
        for subject, site in zip(owner, sites, strict=True):
            of_each[subject].append(str(site))
        keys = [
            (*key, *(sorted(set(own)) if counts is None else own))
            for key, own in zip(keys, of_each, strict=True)
        ]
    numbers = {key: number for number, key in enumerate(sorted(set(keys), key=repr))}
    return np.array([numbers[key] for key in keys])


class Exchange:
    """Who may take whose place: units of as many subjects, one by one of the same blocks."""

    def __init__(self, blocks: Places, units: NDArray[np.str_]):
        """`blocks` and `units` are of the subjects."""
        names, owner = np.unique(units, return_inverse=True)
        order = np.lexsort((blocks, owner))  # stable: by unit, block, number
        members = np.split(order, np.cumsum(np.bincount(owner))[:-1])
        shapes = [tuple(blocks[own].tolist()) for own in members]
        numbers = {shape: number for number, shape in enumerate(sorted(set(shapes)))}
        self._blocks = np.array([numbers[shape] for shape in shapes])
        self._sorted = np.argsort(self._blocks, kind="stable")
        self._subjects = len(order)
        most = max(map(len, members))
        self._members = np.full((len(names), most), -1)
        for unit, own in enumerate(members):
            self._members[unit, : len(own)] = own
        #: Whether anybody may change places.
        self.any_moves = len(numbers) < len(shapes)

    def drawn(self, count: int, rng: np.random.Generator) -> Places:
        """Whose label each subject gets, (count, subjects)."""
        keys = self._blocks + rng.random((count, len(self._blocks)))
        of_units = np.empty(keys.shape, np.int64)
        of_units[:, self._sorted] = np.argsort(keys, axis=1)
        order = np.empty((count, self._subjects), np.int64)
        for own in self._members.T:  # the first members of all units, the second ones, ...
            having = np.flatnonzero(own >= 0)
            order[:, own[having]] = own[of_units[:, having]]
        return order


def _orders(exchange: Exchange, n_draws: int, at_once: int, seed: int) -> Iterator[Places]:
    """Whose label each subject gets, (draws, subjects)."""
    rng = np.random.default_rng(seed)
    for first in range(0, n_draws, at_once):
        yield exchange.drawn(min(at_once, n_draws - first), rng)


def _standing(guess: Floats, kind: str) -> Floats:
    """What the statistic is linear in, (outputs, recordings); NaN where guesses do not vary.

    Z-scores of numbers, ranks of chances.
    """
    rows = np.atleast_2d(guess.T).astype(np.float64)
    spread = rows.std(axis=1, keepdims=True)
    flat = spread <= 1e-12 * np.maximum(1.0, np.abs(rows).max(axis=1, keepdims=True))
    if kind == "regression":
        found = (rows - rows.mean(axis=1, keepdims=True)) / np.where(flat, 1.0, spread)
    else:
        found = rankdata(rows, axis=1)
    return np.where(flat.all(), np.nan, found)


def _statistic(labels: Floats, standing: Floats, kind: str) -> Floats:
    """(draws, recordings) and (methods, outputs, recordings) -> (draws, methods)."""
    n = labels.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        if kind == "regression":
            around = labels - labels.mean(axis=1, keepdims=True)
            flat = np.ptp(labels, axis=1) == 0
            size = np.where(flat, np.nan, around.std(axis=1))[:, None]
            return np.asarray(around @ standing[:, 0].T / (n * size))
        classes = [1] if kind == "binary" else range(standing.shape[1])
        areas = []
        for place, number in enumerate(classes):
            own = (labels == number).astype(np.float64)
            count = own.sum(axis=1, keepdims=True)
            sums = own @ standing[:, place].T
            areas.append((sums - count * (count + 1) / 2) / (count * (n - count)))
    return np.asarray(np.mean(areas, axis=0))
