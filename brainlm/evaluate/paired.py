"""Tests between methods on the same subjects, with their number taken into account."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .statistics import or_none
from .units import added_up

Floats = NDArray[np.float64]

_FEWEST_SUBJECTS = 6  # with five, no two-sided p of sign flips is below 0.05
_AT_ONCE = 1000


def sign_flip_p(differences: Floats, seed: int, n_draws: int = 10_000) -> Floats:
    """Two-sided p of the mean of `differences`, (subjects, tests), being 0: (tests,).

    Each subject's differences get a random sign together, so the tests stay dependent as they are;
    of siblings the sums of their families are given (`units.added_up`), which have the same mean.
    Draws at least as extreme as what was seen are counted, and that itself: p is never 0. NaN with
    fewer than six subjects, or where a difference is not finite.
    """
    subjects, tests = differences.shape
    if subjects < _FEWEST_SUBJECTS:
        return np.full(tests, np.nan)
    known = np.isfinite(differences).all(axis=0)
    differences = np.where(known, differences, 0.0)
    seen = np.abs(differences.sum(axis=0))
    near = 1e-12 * np.abs(differences).sum(axis=0)  # sums of other orders differ by so much
    rng = np.random.default_rng(seed)
    extreme = np.ones(tests)
    for first in range(0, n_draws, _AT_ONCE):
        signs = rng.choice([-1.0, 1.0], size=(min(_AT_ONCE, n_draws - first), subjects))
        extreme += (np.abs(signs @ differences) >= seen - near).sum(axis=0)
    return np.where(known, extreme / (n_draws + 1), np.nan)


def holm(p: Floats) -> Floats:
    """P values, adjusted so that the chance of any false finding among them holds (Holm 1979).

    Any shape; NaN stays NaN and does not count as a test.
    """
    flat = np.asarray(p, dtype=np.float64).ravel()
    adjusted = np.full(flat.shape, np.nan)
    known = np.flatnonzero(~np.isnan(flat))
    order = known[np.argsort(flat[known], kind="stable")]
    left = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(flat[order] * left), 1.0)
    return adjusted.reshape(np.shape(p))


def compare_errors(
    guesses: Mapping[str, Floats],
    truth: Floats,
    subjects: NDArray[np.str_],
    kind: str,
    seed: int,
    units: NDArray[np.str_] | None = None,
) -> dict[str, dict[str, float | None]]:
    """Method -> by how much it is worse than the first one, and p of being as good.

    The error of a recording is the squared one, of classes that of their chances (Brier's score);
    a subject's is the mean over its recordings. Sign flips over `units` of recordings (subjects, or
    their families), Holm over the methods.
    """
    names, first_row, owner = np.unique(subjects, return_index=True, return_inverse=True)
    counts = np.bincount(owner)

    def errors_of(guess: Floats) -> Floats:
        if kind == "classes":
            true = np.eye(guess.shape[1])[truth.astype(int)]
            wrong = ((guess - true) ** 2).sum(axis=1)
        else:
            wrong = (guess - truth) ** 2
        return np.bincount(owner, weights=wrong, minlength=len(names)) / counts

    first, *others = guesses
    if not others:
        return {}
    reference = errors_of(guesses[first])
    more = np.stack([errors_of(guesses[name]) - reference for name in others], axis=1)
    p = sign_flip_p(added_up(more, names if units is None else units[first_row]), seed)
    corrected = holm(p)
    return {
        name: {
            "error_more": or_none(more[:, place].mean()),
            "p": or_none(p[place]),
            "p_holm": or_none(corrected[place]),
        }
        for place, name in enumerate(others)
    }
