"""How the error on test subjects goes with the model's size and the number of train subjects.

Each point is a model trained from nothing by an equal number of equally large steps, and scored on
the same windows. A power law, error = a x^-b, is fitted where at least three points differ in one
thing alone. It describes these points; its interval comes from resampling test subjects, not from
training again, and there is no floor in it: so few points cannot tell one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError
from ..model.config import ModelConfig
from ..train.validation import N_SUMS, Sums, scores
from .cohorts import ALL
from .hiding import MODEL
from .statistics import bootstrap_counts, metric, scores_with_ci, too_few_subjects
from .tally import SUM_COLUMNS
from .units import Names, added_up, told_units, units_of

Floats = NDArray[np.float64]

_FEWEST_FOR_A_LAW = 3
#: Of the columns of sums: how many entries were hidden, and the sum of their squares.
_WHAT_WAS_ASKED = ("n", "truth2")


@dataclass(frozen=True)
class Point:
    """One trained model of the grid."""

    point: str
    size: str
    share: float
    parameters: int
    timepoints: int
    tokens: str  # how windows are cut; what is hidden is the same for equal ones alone
    mask_ratio: float  # of the test
    n_train_subjects: int
    n_train_recordings: int
    steps: int
    windows: int  # that all steps together saw
    val_loss: float  # of the last weights, which are those that are scored
    lowest_val_loss: float  # of all validations: below val_loss where a model learned by heart


def tokens_of(config: ModelConfig) -> str:
    """How a network cuts windows, in words."""
    if config.tokenizer == "parcels":
        return f"{config.patch} time points of a parcel"
    whole = ", padded to a square" if config.padding == "square" else ""
    return f"squares of {config.patch} by {config.patch} entries{whole}"


def compare_scaling(
    points: Sequence[tuple[Point, pd.DataFrame]], *, bootstrap: int, seed: int
) -> dict[str, Any]:
    """Scores of each point with intervals, and power laws; tables as `Tally.table` makes them."""
    _check_same_test(points)
    first = points[0][1]
    cohorts = []
    for name in first["cohort"].unique():
        everybody = first[(first["cohort"] == name) & (first["method"] == MODEL)]
        units = units_of(everybody.sort_values("subject"))
        sums = {about.point: _sums_of(table, name, MODEL, units) for about, table in points}
        external = bool(first.loc[first["cohort"] == name, "external"].iloc[0])
        plain = [method for method in first["method"].unique() if method != MODEL]
        cohorts.append(
            {
                "cohort": str(name),
                "external": external,
                "n_subjects": len(everybody),
                **told_units(len(everybody), units),
                "points": {
                    point: scores_with_ci(each, bootstrap, seed) for point, each in sums.items()
                },
                "baselines": {
                    method: scores_with_ci(_sums_of(first, name, method, units), bootstrap, seed)
                    for method in plain
                },
                "laws": _laws([about for about, _ in points], sums, bootstrap, seed),
            }
        )
    cohorts.sort(key=lambda cohort: cohort["cohort"] != ALL)  # everybody first
    return {
        "task": "scaling",
        "points": [asdict(about) for about, _ in points],
        "cohorts": cohorts,
        "bootstrap": bootstrap,
        "seed": seed,
    }


def fit_power_law(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Exponents b and factors a of y = a x^-b, least squares of the logarithms; R2 of these.

    `x` is (points,), `y` (points, fits), both positive; the results are (fits,).
    """
    log_x, log_y = np.log(x)[:, None], np.log(y)
    across = log_x - log_x.mean(axis=0)
    slope = (across * log_y).sum(axis=0) / np.square(across).sum(axis=0)
    level = log_y.mean(axis=0) - slope * log_x.mean(axis=0)
    left = np.square(log_y - level - slope * log_x).sum(axis=0)
    spread = np.square(log_y - log_y.mean(axis=0)).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return -slope, np.exp(level), np.where(spread > 0, 1 - left / spread, np.nan)


def _laws(
    points: Sequence[Point], sums: Mapping[str, Sums], bootstrap: int, seed: int
) -> list[dict[str, Any]]:
    """Error over train subjects for each size, and over parameters for each share.

    Over parameters among networks alone that cut windows alike: others are asked for other entries.
    """
    ways = (("n_train_subjects", "size"), ("parameters", "share"))
    laws = []
    for over, fixed in ways:
        for value, tokens in dict.fromkeys((getattr(each, fixed), each.tokens) for each in points):
            chosen = [
                each for each in points if (getattr(each, fixed), each.tokens) == (value, tokens)
            ]
            x = np.array([float(getattr(point, over)) for point in chosen])
            if len(set(x)) < _FEWEST_FOR_A_LAW:
                continue
            found = _law(x, np.stack([sums[point.point] for point in chosen]), bootstrap, seed)
            names = [point.point for point in chosen]
            laws.append({"over": over, fixed: value, "tokens": tokens, "points": names, **found})
    return laws


def _law(x: Floats, sums: Sums, bootstrap: int, seed: int) -> dict[str, Any]:
    """One power law of the squared error, `sums` (points, subjects, 6)."""
    counts = bootstrap_counts(sums.shape[1], bootstrap, seed)
    error = scores(sums.sum(axis=1))["mse"][:, None]
    if not (np.isfinite(error) & (error > 0)).all():
        return {"exponent": metric(float("nan"), None), "factor": None, "r2_of_logs": None}
    exponent, factor, fit = (float(value[0]) for value in fit_power_law(x, error))
    draws = None
    if counts is not None:
        drawn = scores(np.stack([counts @ each for each in sums]))["mse"]  # (points, draws)
        draws = fit_power_law(x, drawn)[0]
    reason = too_few_subjects(sums.shape[1]) if counts is None else None
    return {
        "exponent": metric(exponent, draws, reason, n_subjects=sums.shape[1]),
        "factor": factor,
        "r2_of_logs": fit if np.isfinite(fit) else None,
    }


def _sums_of(table: pd.DataFrame, cohort: str, method: str, units: Names) -> Sums:
    """(units, 6) of subjects who are of these units, in the order of the subjects' names."""
    rows = table[(table["cohort"] == cohort) & (table["method"] == method)]
    sums = rows.sort_values("subject")[list(SUM_COLUMNS)].to_numpy(np.float64)
    whole = np.ascontiguousarray(sums).reshape(-1, N_SUMS)  # summed up in the order of `Tally`
    return added_up(whole, units)


def _check_same_test(points: Sequence[tuple[Point, pd.DataFrame]]) -> None:
    """Refuse points scored on other people, windows or entries hidden; or trained for longer.

    Networks that cut windows in other ways have other entries hidden: only people are the same.
    """
    about, table = points[0]
    alike: dict[str, tuple[Point, pd.DataFrame]] = {}
    for other, others in points:
        if about.steps != other.steps:
            raise DataError(
                f"{about.point} was trained for {about.steps} steps, {other.point} for "
                f"{other.steps}: they cannot be compared",
                fix="train both with the present options: `snakemake scaling`",
            )
        same = (about.timepoints, about.mask_ratio) == (other.timepoints, other.mask_ratio)
        keys = ["cohort", "method", "subject"]
        same = same and table[keys].equals(others[keys])
        first, sums = alike.setdefault(other.tokens, (other, others))
        asked = list(_WHAT_WAS_ASKED)
        if not same or not np.allclose(sums[asked], others[asked], rtol=1e-6):
            raise DataError(
                f"{(first if same else about).point} and {other.point} were not scored on the same "
                "windows of the same test subjects",
                fix="give all scaling.sizes the same timepoints, and train on the present shards: "
                "`snakemake scaling`",
            )
