"""Predictions of a label, scored on the test subjects beside plain baselines.

Whatever is fitted here is fitted on train recordings alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError
from ..shards.reader import ShardReader
from ..train.label_scores import SCORERS, Scorer, regression_scores
from ..train.labelled import LabelledData
from .cohorts import cohorts_of
from .cross_validation import TooFewError
from .label_baselines import Material, site_names
from .paired import compare_errors, holm
from .permutation import N_DRAWS, STATISTICS, permutation_p
from .statistics import labels_with_ci, or_none
from .units import families_column, told_units, units_of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LabelScores:
    """Scores, and the prediction of each test recording by each method."""

    metrics: dict[str, Any]
    predictions: pd.DataFrame  # recording_id, subject (and family), true, one column per method


def recordings_to_score(
    reader: ShardReader, data: LabelledData, target: str, window: int
) -> list[str]:
    """The recordings to be scored; refused when there are none."""
    test = sorted(data.lengths["test"])
    if not test:
        raise DataError(
            f"No test recording has the label {target} and the model's {window} time points",
            file=reader.index_path,
            fix="choose another target, or change the split",
        )
    return test


def predictions_by(
    methods: Mapping[str, Callable[[Material], Floats]], given: Material
) -> tuple[dict[str, Floats], dict[str, str]]:
    """Predictions of the test recordings by each method, and why there are none of some."""
    guesses, reasons = {}, {}
    for name, predict in methods.items():
        try:
            guesses[name] = predict(given)
        except TooFewError as error:
            reasons[name] = str(error)
    return guesses, reasons


def score(
    guesses: Mapping[str, Floats],
    reasons: Mapping[str, str],
    given: Material,
    *,
    bootstrap: int,
    as_frequent: Collection[str] = (),
    within_sites: bool = False,
) -> LabelScores:
    """Score `guesses` of the test recordings, the first as the model's, resampling subjects.

    The others stand as its baselines, and so do those that `reasons` tell could not be fitted.
    Each is tested against chance, labels permuted (`within_sites`: among people of the same site),
    and against the first. Chances are those of equally frequent classes, but for the methods
    `as_frequent`, who learned them as frequent as they are.
    """
    reader, data, kind = given.reader, given.data, given.kind
    truth = data.truth(given.test)
    check_finite(guesses, given.test)
    rows = reader.table.loc[given.test]
    subjects, units = rows["subject"].to_numpy(dtype=np.str_), units_of(rows)
    table = scores_of(guesses, truth, units, given, bootstrap)
    first = next(iter(guesses))
    metrics = {
        "target": given.target,
        "kind": kind,
        "metrics": table[first],
        "baselines": {
            **{name: found for name, found in table.items() if name != first},
            **{name: {"reason": why} for name, why in reasons.items()},
        },
        "chance": chance_levels(truth, kind, len(data.classes)),
        "tests": compare_errors(
            guesses if kind == "regression" else _of_true_shares(guesses, given, as_frequent),
            truth,
            subjects,
            kind,
            given.seed,
            units,
        ),
        "permutation": _against_chance(guesses, truth, subjects, units, given, within_sites),
        "cohorts": _by_cohort(guesses, truth, subjects, units, given, bootstrap),
        "n_subjects": len(set(subjects)),
        **told_units(len(set(subjects)), units),
        "n_recordings": len(given.test),
        "n_train_recordings": len(given.train),
        "n_train_subjects": int(reader.table.loc[given.train, "subject"].nunique()),
        "n_train_of_connectivity": len(given.drawn),
        "n_missing_label": data.n_missing,
        "classes": list(data.classes) or None,
        "bootstrap": bootstrap,
        "seed": given.seed,
    }
    shown = {
        name: guess.argmax(axis=1).astype(float) if kind == "classes" else guess
        for name, guess in guesses.items()
    }
    who = {"recording_id": given.test, "subject": subjects, **families_column(rows, subjects)}
    columns = {**who, "true": truth, **shown}
    return LabelScores(metrics, pd.DataFrame(columns))


def scores_of(
    guesses: Mapping[str, Floats],
    truth: Floats,
    units: NDArray[np.str_],
    given: Material,
    bootstrap: int,
) -> dict[str, dict[str, Any]]:
    """Method -> metric -> value and interval."""
    scorer = scorer_of(given)
    return {
        name: labels_with_ci(scorer, truth, guess, units, n_draws=bootstrap, seed=given.seed)
        for name, guess in guesses.items()
    }


def scorer_of(given: Material) -> Scorer:
    """What a label is scored by; of numbers also the MSE on the scale that models are trained on.

    That one is told by the paper (z-scores of age, logarithms between 0 and 1). Of logarithms, a
    guess below the smallest train label counts as that label: below -1 there would be none. Labels
    count as they are.
    """
    if given.kind != "regression":
        return SCORERS[given.kind]
    scale = given.data.scale
    least = -np.inf if scale.log == "none" else float(scale.to_label(np.zeros(1))[0])

    def score(truth: Floats, guess: Floats) -> dict[str, float]:
        error = scale.to_model(np.maximum(guess, least)) - scale.to_model(truth)
        return {**regression_scores(truth, guess), "mse_scaled": float((error**2).mean())}

    return score


def check_finite(guesses: Mapping[str, Floats], names: list[str]) -> None:
    """Refuse predictions that are no numbers: they would be left out of scores, or spoil them."""
    for method, guess in guesses.items():
        missing = ~np.isfinite(guess.reshape(len(names), -1)).all(axis=1)
        if missing.any():
            raise DataError(
                f"{method} predicts no number of {int(missing.sum())} test recordings, the first: "
                f"{names[int(missing.argmax())]}",
                fix="look into that recording's series and the model's training log; leave the "
                "recording out (quality) or train again",
            )


def chance_levels(truth: Floats, kind: str, n_classes: int) -> dict[str, float]:
    """What knowing nothing scores: AUPRC is that of the classes' shares of the test recordings."""
    if kind == "regression":
        return {"r2": 0.0, "pearson": 0.0}
    if kind == "binary":
        return {"auroc": 0.5, "balanced_accuracy": 0.5, "auprc": float((truth == 1).mean())}
    # The shares of all classes add up to one.
    return {"auroc": 0.5, "balanced_accuracy": 1 / n_classes, "auprc": 1 / n_classes}


def _against_chance(
    guesses: Mapping[str, Floats],
    truth: Floats,
    subjects: NDArray[np.str_],
    units: NDArray[np.str_],
    given: Material,
    within_sites: bool,
) -> dict[str, Any]:
    """P of each method, labels permuted between subjects or families; Holm over the methods."""
    sites = site_names(given.reader.table, given.test) if within_sites else None
    p = permutation_p(
        truth, guesses, subjects, kind=given.kind, seed=given.seed, units=units, sites=sites
    )
    corrected = holm(np.array(list(p.values())))
    return {
        "statistic": STATISTICS[given.kind],
        "draws": N_DRAWS,
        "within_sites": within_sites,
        "methods": {
            name: {"p": or_none(value), "p_holm": or_none(adjusted)}
            for (name, value), adjusted in zip(p.items(), corrected, strict=True)
        },
    }


def _by_cohort(
    guesses: Mapping[str, Floats],
    truth: Floats,
    subjects: NDArray[np.str_],
    units: NDArray[np.str_],
    given: Material,
    bootstrap: int,
) -> list[dict[str, Any]]:
    """Scores of each dataset's test subjects, where there are several datasets."""
    blocks = []
    for cohort in cohorts_of(given.reader, given.test)[1:]:
        own = np.isin(given.test, cohort.recordings)
        of_own = {name: guess[own] for name, guess in guesses.items()}
        blocks.append(
            {
                "cohort": cohort.name,
                "external": cohort.external,
                "n_subjects": len(set(subjects[own])),
                **told_units(len(set(subjects[own])), units[own]),
                "n_recordings": int(own.sum()),
                "chance": chance_levels(truth[own], given.kind, len(given.data.classes)),
                "methods": scores_of(of_own, truth[own], units[own], given, bootstrap),
            }
        )
    return blocks


def _of_true_shares(
    guesses: Mapping[str, Floats], given: Material, as_frequent: Collection[str]
) -> dict[str, Floats]:
    """Chances for classes as frequent as in the train split, which Brier's score asks for."""
    truth, _ = given.fitted_on(given.train)
    shares = np.bincount(truth.astype(int)) / len(truth)
    return {
        name: guess if name in {"constant", *as_frequent} else of_shares(guess, shares)
        for name, guess in guesses.items()
    }


def of_shares(chances: Floats, shares: Floats) -> Floats:
    """Chances of class 1 (n,), or of each (n, classes), from equally frequent classes to `shares`.

    By Bayes's rule: a class that is rare is so beforehand.
    """
    each = np.stack([1 - chances, chances], axis=1) if chances.ndim == 1 else chances
    weighed = each * shares
    weighed /= weighed.sum(axis=1, keepdims=True)
    return np.asarray(weighed[:, 1] if chances.ndim == 1 else weighed)
