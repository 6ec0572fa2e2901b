"""Scores of recorded predictions, computed again and set beside those recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..evaluate.statistics import labels_with_ci
from ..evaluate.units import units_of
from ..train.label_scores import SCORERS
from .compare import Compared, Distance, Verdict, judge
from .tolerances import tolerance_of

#: Kinds of label whose predictions are kept whole; of several classes only the likeliest is.
_WHOLE = ("regression", "binary")
_NOT_METHODS = ("recording_id", "subject", "family", "true")


def compare_scores_of(what: str, metrics: Path, predictions: Path) -> list[Compared]:
    """Each method's scores and intervals, bootstrapped with the recorded seed and draws."""
    recorded = json.loads(metrics.read_text(encoding="utf-8"))
    table = pd.read_parquet(predictions)
    if recorded["kind"] not in _WHOLE:
        return []
    truth = table["true"].to_numpy(dtype=float)
    units = units_of(table)
    methods = [name for name in table.columns if name not in _NOT_METHODS]
    found = []
    for position, method in enumerate(methods):
        block = recorded["metrics"] if position == 0 else recorded["baselines"].get(method, {})
        again = labels_with_ci(
            SCORERS[recorded["kind"]],
            truth,
            table[method].to_numpy(dtype=float),
            units,
            n_draws=recorded["bootstrap"],
            seed=recorded["seed"],
        )
        before, after = _numbers(block), _numbers(again)
        common = [name for name in after if name in before]
        if not common:
            continue  # a method that stands elsewhere in the file, under other names
        part = f"{what}#{method}"
        old, new = (np.array([one[name] for name in common]) for one in (before, after))
        if np.array_equal(old, new, equal_nan=True):
            found.append(Compared("evaluate", part, Verdict.bitwise))
            continue
        distance = Distance.between({"scores": old}, {"scores": new})
        found.append(judge("evaluate", part, distance, tolerance_of("evaluate")))
    return found


def _numbers(block: Mapping[str, Any]) -> dict[str, float]:
    """`r2.value`, `r2.ci_low`, ... of a block of scores; NaN where there is a reason instead."""
    return {
        f"{score}.{key}": np.nan if found[key] is None else float(found[key])
        for score, found in block.items()
        if isinstance(found, Mapping)
        for key in ("value", "ci_low", "ci_high")
        if key in found
    }
