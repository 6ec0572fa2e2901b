"""Predictions for a site that nothing was fitted on.

A method that has learned where people were scanned cannot use it here. Only methods that are fitted
in seconds are asked; networks would be trained once for each site.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .label_baselines import Material, site_names
from .label_scores import check_finite, predictions_by, scorer_of, scores_of
from .statistics import or_none

Floats = NDArray[np.float64]


def leave_site_out(
    given: Material, methods: Mapping[str, Callable[[Material], Floats]], bootstrap: int
) -> dict[str, Any]:
    """Fit on the train subjects of the other sites, predict the test subjects of each site.

    Scores over the test subjects of all sites, for methods that could be fitted for each, and of
    each site (values alone). A site is a dataset's column `site`.
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
    truth = given.data.truth(given.test)[order]
    subjects = table.loc[given.test, "subject"].to_numpy(dtype=np.str_)[order]
    whole = {
        name: np.concatenate([own[site] for site in sites])
        for name, own in parts.items()
        if name not in reasons
    }
    scored = scores_of(whole, truth, subjects, given, bootstrap)
    without = {name: {"reason": why} for name, why in reasons.items()}
    return {"methods": {**scored, **without}, "sites": by_site}


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
