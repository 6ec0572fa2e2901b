"""Predictions for a site that nothing was fitted on.

A method that has learned where people were scanned cannot use it here. Only methods that are fitted
in seconds are asked; networks would be trained once for each site.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..train.label_scores import Scorer, regression_scores
from .label_baselines import Material, site_names
from .label_scores import check_finite, predictions_by, scorer_of
from .statistics import labels_with_ci, or_none
from .units import units_of

Floats = NDArray[np.float64]


def leave_site_out(
    given: Material, methods: Mapping[str, Callable[[Material], Floats]], bootstrap: int
) -> dict[str, Any]:
    """Fit on the train subjects of the other sites, predict the test subjects of each site.

    Scores over the test subjects of all sites, for methods that could be fitted for each, and of
    each site (values alone). A site is a dataset's column `site`. What tells people apart (r,
    areas, balanced accuracy) is asked among those of one site: see `within_sites`.
    """
    of_train, of_test = (site_names(given.reader.table, s) for s in (given.train, given.test))
    sites = sorted(set(of_test.tolist()))
    if len({*sites, *of_train.tolist()}) < 2:
        return {"reason": "all recordings are of one site"}
    parts: dict[str, dict[str, Floats]] = {name: {} for name in methods}
    reasons: dict[str, str] = {}
    by_site: list[dict[str, Any]] = []
    for site in sites:
        held = given.between(
            [name for name, own in zip(given.train, of_train, strict=True) if own != site],
            [name for name, own in zip(given.test, of_test, strict=True) if own == site],
        )
        found, lacking = _predictions(methods, held)
        reasons |= {name: f"without the site {site}: {why}" for name, why in lacking.items()}
        check_finite(found, held.test)
        for name, guess in found.items():
            parts[name][site] = guess
        by_site.append({"site": site, **_of_site(found, held)})
    table = given.reader.table
    order = np.argsort(of_test, kind="stable")  # sites one after the other, names in order
    numbers = np.searchsorted(sites, of_test)
    truth = np.stack([given.data.truth(given.test), numbers], axis=1)[order]
    units = units_of(table.loc[given.test])[order]
    whole = {
        name: np.concatenate([own[site] for site in sites])
        for name, own in parts.items()
        if name not in reasons
    }
    scorer = within_sites(scorer_of(given), given.kind)
    scored = {
        name: labels_with_ci(scorer, truth, guess, units, n_draws=bootstrap, seed=given.seed)
        for name, guess in whole.items()
    }
    without = {name: {"reason": why} for name, why in reasons.items()}
    return {"methods": {**scored, **without}, "sites": by_site}


def within_sites(scorer: Scorer, kind: str) -> Scorer:
    """`scorer` of labels (n, 2) that come with the number of their site.

    Left out, a site of old people makes the others' mean young: from site to site predictions lean
    away from the truth, so that with all sites together the train labels' mean would have an r, or
    an area, far below chance. So r is that of what lies about the sites' own means, and areas and
    balanced accuracy are means over the sites that have all classes, by their recordings. Errors,
    R2 and accuracy are of all.
    """

    def score(labels: Floats, guess: Floats) -> dict[str, float]:
        truth, site = labels[:, 0], np.unique(labels[:, 1], return_inverse=True)[1]
        found, counts = scorer(truth, guess), np.bincount(site)
        if kind == "regression":
            own, told = (_about_sites(one, site) for one in (truth, guess))
            return {**found, "pearson": regression_scores(own, told)["pearson"]}
        each = [scorer(truth[site == one], guess[site == one]) for one in range(len(counts))]
        for name in found.keys() - {"accuracy"}:
            values = np.array([one[name] for one in each])
            known = np.isfinite(values)
            found[name] = (
                float(np.average(values[known], weights=counts[known])) if known.any() else np.nan
            )
        return found

    return score


def _about_sites(values: Floats, site: NDArray[np.int64]) -> Floats:
    """What is left without the sites' own means, (n,); 0 where that is rounding."""
    left = values - (np.bincount(site, weights=values) / np.bincount(site))[site]
    return np.where(np.abs(left) > 1e-12 * np.abs(values).max(), left, 0.0)


def _predictions(
    methods: Mapping[str, Callable[[Material], Floats]], held: Material
) -> tuple[dict[str, Floats], dict[str, str]]:
    if not held.train:
        return {}, dict.fromkeys(methods, "no train recording is left")
    truth = held.data.truth(held.train)
    if held.kind != "regression" and len(set(truth)) < max(2, len(held.data.classes)):
        return {}, dict.fromkeys(methods, "a class is of this site alone")
    return predictions_by(methods, held)


def _of_site(guesses: Mapping[str, Floats], held: Material) -> dict[str, Any]:
    truth, rows = held.data.truth(held.test), held.reader.table.loc[held.test]
    return {
        "n_subjects": int(rows["subject"].nunique()),
        "n_train_recordings": len(held.train),
        "methods": {
            name: {
                metric: or_none(value) for metric, value in scorer_of(held)(truth, guess).items()
            }
            for name, guess in guesses.items()
        },
    }
