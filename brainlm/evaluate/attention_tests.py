"""Tests of one thing in many parcels: permutations that leave nuisances where they are.

Freedman and Lane (1983), as Winkler et al. (2014) have it: what nuisances (motion, dataset) do not
explain is permuted, or gets random signs. All parcels are permuted alike, so the largest statistic
of each permutation tells how often any parcel at all would reach what was seen (family-wise error).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_AT_ONCE = 250  # permutations: what is held is so many times parcels and nuisances


@dataclass(frozen=True, eq=False)
class Tested:
    """Of each parcel, (parcels,)."""

    difference: Floats  # in the unit of the values, with nuisances held
    effect: Floats  # the same in standard deviations of what is left over
    t: Floats
    p: Floats  # two-sided, by itself
    p_fwe: Floats  # with all parcels tested
    p_fdr: Floats  # Benjamini and Hochberg (1995)


def permutation_test(
    values: Floats,
    of: Floats,
    nuisances: Floats,
    *,
    flip: bool,
    draws: int,
    seed: int,
    units: NDArray[np.str_] | None = None,
) -> Tested:
    """Whether `values` (subjects, parcels) go with `of` (subjects,), `nuisances` (.., n) held.

    `flip`: random signs in place of permutations: `of` is then constant, and what is tested is that
    the values (differences within subjects) are not around 0; `units` (subjects,) change signs as
    one (families). Draws at least as extreme as what was
    seen are counted, and that itself: p is never 0.
    """
    basis = _orthonormal(nuisances)
    left = values - basis @ (basis.T @ values)
    asked = of - basis @ (basis.T @ of)
    free = len(values) - basis.shape[1] - 1
    if free < 1 or asked @ asked < 1e-10 * max(float(of @ of), 1e-300):
        raise ValueError("nuisances tell all that is asked for")
    total = np.square(left).sum(axis=0)
    scale = float(asked @ asked)
    slope, t = _statistics(asked[None], basis[None], left, total, scale, free)
    spread = np.sqrt(np.maximum(total - slope[0] ** 2 * scale, 0.0) / free)
    seen = np.abs(t[0]) * (1 - 1e-9)  # sums of other orders differ by so much
    rng = np.random.default_rng(seed)
    owner = None if units is None else np.unique(units, return_inverse=True)[1]
    single, family = np.ones(values.shape[1]), np.ones(values.shape[1])
    for first in range(0, draws, _AT_ONCE):
        count = min(_AT_ONCE, draws - first)
        moved, moved_basis = _moved(asked, basis, count, flip, rng, owner)
        drawn = np.abs(_statistics(moved, moved_basis, left, total, scale, free)[1])
        single += (drawn >= seen).sum(axis=0)
        family += (np.nanmax(drawn, axis=1)[:, None] >= seen).sum(axis=0)
    p = np.where(np.isfinite(t[0]), single / (draws + 1), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = slope[0] / spread
    return Tested(
        difference=slope[0],
        effect=effect,
        t=t[0],
        p=p,
        p_fwe=np.where(np.isfinite(p), family / (draws + 1), np.nan),
        p_fdr=benjamini_hochberg(p),
    )


def benjamini_hochberg(p: Floats) -> Floats:
    """P values (tests,), adjusted so that the share of false ones among findings holds.

    NaN stays NaN and does not count as a test.
    """
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    raised = p[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted[order] = np.minimum(np.minimum.accumulate(raised[::-1])[::-1], 1.0)
    return adjusted


def _orthonormal(nuisances: Floats) -> Floats:
    """A basis of what nuisances can explain, (subjects, rank)."""
    if not nuisances.shape[1]:
        return nuisances
    vectors, sizes, _ = np.linalg.svd(nuisances, full_matrices=False)
    return np.asarray(vectors[:, sizes > 1e-10 * max(float(sizes[0]), 1e-300)])


def _moved(
    asked: Floats,
    basis: Floats,
    count: int,
    flip: bool,
    rng: np.random.Generator,
    owner: NDArray[np.int64] | None = None,
) -> tuple[Floats, Floats]:
    """What is asked for and the basis, moved in place of the values: (count, subjects[, rank]).

    To permute residuals and then look at them is to look, permuted back, at the residuals.
    """
    n = len(asked)
    if flip:
        of = np.arange(n) if owner is None else owner
        signs = rng.choice([-1.0, 1.0], size=(count, of.max() + 1))[:, of]
        return signs * asked, signs[:, :, None] * basis
    orders = rng.permuted(np.tile(np.arange(n), (count, 1)), axis=1)
    return asked[orders], basis[orders]


def _statistics(
    asked: Floats, basis: Floats, left: Floats, total: Floats, scale: float, free: int
) -> tuple[Floats, Floats]:
    """Slopes and t (draws, parcels) of what is asked for, (draws, subjects).

    `left`: residuals (subjects, parcels) of squares `total`; `basis` (draws, subjects, rank).
    """
    slope = asked @ left / scale
    explained = np.square(np.swapaxes(basis, 1, 2) @ left).sum(axis=1)  # by nuisances, once moved
    rest = np.maximum(total - explained - slope**2 * scale, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = slope / np.sqrt(rest / free / scale)
    return slope, np.where(total > 1e-20, t, np.nan)
