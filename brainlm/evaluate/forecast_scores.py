"""Methods of forecasting side by side: scores at each step, and tests between them.

All methods saw the same past of the same windows. Subjects (or families, where the study tells
them) are the unit: intervals resample them, and two methods are compared by each subject's mean
squared error.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError
from ..train.validation import Sums, scores
from .forecasts import SUM_COLUMNS, sums_by_subject
from .paired import holm, sign_flip_p
from .statistics import scores_with_ci
from .units import Names, added_up, told_units, units_of_subjects

#: Instead of the number of a step: all steps together.
ALL = "all"


@dataclass(frozen=True)
class Comparison:
    """What metrics.json holds, and the same as a tidy table."""

    metrics: dict[str, Any]
    table: pd.DataFrame  # cohort, method, step, metric, value, ci_low, ci_high, p_holm


def compare_forecasts(
    tables: Mapping[str, pd.DataFrame],
    *,
    reference: str,
    trained_on: Collection[str],
    bootstrap: int,
    seed: int,
) -> Comparison:
    """Score the tables of `forecast_table`, in their order; test `reference` against the others.

    One p for each other method (all steps together) and one for each of its steps, corrected by
    Holm over the methods, and over methods and steps. Cohorts (datasets) are told apart where
    there are several, and those that nobody of was `trained_on` are called external.
    """
    _check_same_entries(tables)
    cohorts = sorted(set(next(iter(tables.values()))["cohort"]))
    groups: list[str | None] = [None, *(cohorts if len(cohorts) > 1 else [])]
    metrics: dict[str, Any] = {"task": "forecast", "reference": reference, "cohorts": []}
    rows: list[pd.DataFrame] = []
    for group in groups:
        chosen = {
            name: sums_by_subject(table if group is None else table[table["cohort"] == group])
            for name, table in tables.items()
        }
        subjects = next(iter(chosen.values()))[0]
        units = units_of_subjects(next(iter(tables.values())), subjects)
        tests = _tests({name: sums for name, (_, sums) in chosen.items()}, units, reference, seed)
        methods = {}
        for name, (_, sums) in chosen.items():
            found = _scores_of(added_up(sums, units), bootstrap, seed)
            methods[name] = {**found, **tests.get(name, {})}
            rows.append(_tidy(group or ALL, name, methods[name]))
        metrics["cohorts"].append(
            {
                "cohort": group or ALL,
                "external": set(cohorts if group is None else [group]).isdisjoint(trained_on),
                "n_subjects": len(subjects),
                **told_units(len(subjects), units),
                "methods": methods,
            }
        )
    metrics |= {"bootstrap": bootstrap, "seed": seed}
    return Comparison(metrics, pd.concat(rows, ignore_index=True))


def _scores_of(sums: Sums, bootstrap: int, seed: int) -> dict[str, Any]:
    """Scores with intervals over all steps, and of each; `sums` are (units, steps, 6)."""
    return {
        "metrics": scores_with_ci(sums.sum(axis=1), bootstrap, seed),
        "by_step": [
            scores_with_ci(of_step, bootstrap, seed) for of_step in sums.transpose(1, 0, 2)
        ],
    }


def _tests(
    sums: Mapping[str, Sums], units: Names, reference: str, seed: int
) -> dict[str, dict[str, Any]]:
    """Method -> p values of its squared error being the reference's, and by how much it is more."""
    if reference not in sums:
        return {}
    errors = {name: _errors(one) for name, one in sums.items()}
    others = [name for name in sums if name != reference]
    differences = [errors[name] - errors[reference] for name in others]
    if not differences:
        return {}
    p = np.stack(
        [sign_flip_p(added_up(one, units), seed) for one in differences]
    )  # (methods, 1 + steps)
    overall, by_step = holm(p[:, 0]), holm(p[:, 1:])
    return {
        name: {
            "mse_more_than_reference": _or_none(differences[place][:, 0].mean()),
            "p": _or_none(p[place, 0]),
            "p_holm": _or_none(overall[place]),
            "p_holm_by_step": [_or_none(value) for value in by_step[place]],
        }
        for place, name in enumerate(others)
    }


def _errors(sums: Sums) -> NDArray[np.float64]:
    """(subjects, 1 + steps): each subject's mean squared error, over all steps and at each."""
    together = sums.sum(axis=1, keepdims=True)
    return scores(np.concatenate([together, sums], axis=1))["mse"]


def _tidy(cohort: str, method: str, found: Mapping[str, Any]) -> pd.DataFrame:
    by_step = found.get("p_holm_by_step", [None] * len(found["by_step"]))
    steps = [(ALL, found["metrics"], found.get("p_holm"))]
    steps += [
        (str(number), score, p)
        for number, (score, p) in enumerate(zip(found["by_step"], by_step, strict=True), start=1)
    ]
    return pd.DataFrame(
        [
            {
                "cohort": cohort,
                "method": method,
                "step": step,
                "metric": metric,
                **{key: value[key] for key in ("value", "ci_low", "ci_high")},
                "p_holm": p if metric == "mse" else None,
            }
            for step, score, p in steps
            for metric, value in score.items()
        ]
    )


def _check_same_entries(tables: Mapping[str, pd.DataFrame]) -> None:
    """Refuse methods that were scored on other entries: a comparison would mean nothing."""
    first, *others = tables.items()
    key = ["cohort", "subject", "step"]
    counted = list(SUM_COLUMNS[:3])  # n and the truth's sums
    wanted = first[1].sort_values(key)
    for name, table in others:
        own = table.sort_values(key)
        same = len(own) == len(wanted) and all(
            (own[column].to_numpy() == wanted[column].to_numpy()).all() for column in key
        )
        if not same or not np.allclose(own[counted], wanted[counted], rtol=1e-9, atol=1e-6):
            raise DataError(
                f"The forecasts of {name} and of {first[0]} are of different test data",
                fix="make both again from the present shards",
            )


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
