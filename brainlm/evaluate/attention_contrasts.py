"""Two groups of recordings, or two conditions of the same people, and how their attention differs.

What is compared are subjects: each by the mean over their recordings in a group. Where most are in
both groups they are compared with themselves; else groups of different people are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import InputError
from ..layout import entities_of
from ..shards.labels import LABEL_PREFIX, read_label
from .attention_tests import Tested, permutation_test
from .units import units_of_subjects

Floats = NDArray[np.float64]

#: With five subjects, no two-sided p of sign flips is below 0.05; with three and three none of
#: permutations.
_FEWEST = {"paired": 6, "groups": 4}
#: Parcels that more subjects lack are not tested; in the others a missing value speaks for no
#: difference. What is held but more subjects lack is not held; else those without it are left out.
_MISSING = 0.1
#: Values of a column that are named where one is not among them.
_LISTED = 8
#: What names of recordings tell.
_ENTITIES = {"task": "task", "session": "ses", "run": "run", "acquisition": "acq"}


@dataclass(frozen=True)
class Contrast:
    """Who is compared with whom."""

    name: str
    column: str | None  # of the recordings, e.g. task
    label: str | None
    high: tuple[str, ...]  # values
    low: tuple[str, ...]
    above: float | None  # numbers
    below: float | None
    share: float  # else the upper and the lower share of the subjects

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Contrast:
        """From the config's section."""
        words = {key: tuple(content[key]) for key in ("high", "low")}
        return cls(**{**content, **words})

    @property
    def told(self) -> str:
        """In words: what is high and what is low."""
        what = self.column or self.label
        if self.high:
            low = ", ".join(self.low) or "all others"
            return f"{what}: {', '.join(self.high)} against {low}"
        if self.above is not None:
            low = "the rest" if self.below == self.above else f"below {self.below:g}"
            return f"{what}: above {self.above:g} against {low}"
        if self.share == 0.5:
            return f"{what}: above the median against below"
        return f"{what}: highest {self.share:.0%} of subjects against lowest"


def usual_contrasts(targets: Sequence[Mapping[str, Any]]) -> list[Contrast]:
    """Each label to predict: the median of numbers, one class against the other; not several."""
    found = []
    for target in targets:
        if target["kind"] == "classes":
            continue
        high: tuple[str, ...] = ()
        above = None
        if target["kind"] == "binary":
            if target["threshold"] is not None:
                above = float(target["threshold"])
            else:
                high = (str(target["positive"] or 1),)
        name = target["name"]
        found.append(Contrast(name, None, name, high, (), above, above, 0.5))
    return found


def sides_of(contrast: Contrast, table: pd.DataFrame) -> pd.Series:
    """Of each recording of `table` 1 (high), -1 (low) or 0 (neither)."""
    found = _values_of(contrast, table)
    if contrast.high:
        values = _words(found)
        low = values.isin(contrast.low) if contrast.low else values.notna()
        high = values.isin(contrast.high)
        return high.astype(int) - (low & ~high).astype(int)
    if contrast.label is None:
        values = pd.to_numeric(found, errors="coerce")
    else:
        values = read_label(table, contrast.label, "regression", None)
    values = values.set_axis(table.index)
    if contrast.above is not None:
        low = (
            values <= contrast.above
            if contrast.below == contrast.above
            else (values < contrast.below)
        )
        return (values > contrast.above).astype(int) - low.astype(int)
    of_subject = values.groupby(table["subject"].astype(str)).mean().dropna()
    if not len(of_subject):
        return pd.Series(0, index=table.index)
    upper, lower = of_subject.quantile(1 - contrast.share), of_subject.quantile(contrast.share)
    # Whoever stands on the median goes to the lower group.
    of_recording = table["subject"].astype(str).map(of_subject)
    high = of_recording > upper if contrast.share == 0.5 else of_recording >= upper
    return high.astype(int) - (of_recording <= lower).astype(int)


def compare(
    contrast: Contrast,
    table: pd.DataFrame,
    maps: pd.DataFrame,
    columns: Sequence[str],
    *,
    adjust: Sequence[str],
    draws: int,
    seed: int,
) -> tuple[dict[str, Any], Tested | None]:
    """How `columns` of `maps` (recordings) differ between the sides; None where too few are there.

    `table` has the same recordings; `adjust`: its columns whose share in the difference is taken
    out.
    """
    side = sides_of(contrast, table)
    about: dict[str, Any] = {"name": contrast.name, "contrast": contrast.told}
    means = {}
    for sign in (1, -1):
        rows = side.index[side == sign]
        part = maps.loc[rows, list(columns)].join(table.loc[rows, list(adjust)])
        means[sign] = part.groupby(table.loc[rows, "subject"].astype(str)).mean()
    both = means[1].index.intersection(means[-1].index)
    paired = len(both) >= max(_FEWEST["paired"], 0.5 * min(len(means[1]), len(means[-1])))
    about |= {
        "n_high": len(means[1]),
        "n_low": len(means[-1]),
        "n_both": len(both),
        "design": "paired" if paired else "groups",
        "adjusted_for": [],
    }
    if paired:
        high, low = means[1].loc[both], means[-1].loc[both]
    else:  # who is on both sides is on neither
        high, low = means[1].drop(both), means[-1].drop(both)
    high, low, about["n_without_nuisance"] = _with_nuisances(high, low, adjust, paired=paired)
    about["n_subjects"] = len(high) if paired else len(high) + len(low)
    fewest = _FEWEST["paired"] if paired else _FEWEST["groups"]
    if min(len(high), len(low)) < fewest:
        where = "in both conditions" if paired else "in each group"
        reason = f"a test needs {fewest} subjects {where}, here: {len(high)} and {len(low)}"
        if len(both):
            reason += (
                f" (and {len(both)} in both: compared with themselves from {_FEWEST['paired']} on)"
            )
        return {**about, "reason": reason + _not_there(contrast, table)}, None
    values, of, nuisances, names = _model(high, low, list(columns), adjust, paired=paired)
    about["adjusted_for"] = names
    try:
        units = units_of_subjects(table, high.index.to_numpy(dtype=np.str_)) if paired else None
        tested = permutation_test(
            values, of, nuisances, flip=paired, draws=draws, seed=seed, units=units
        )
    except ValueError:
        reason = "what is adjusted for tells the groups apart entirely, or leaves nothing over"
        return {**about, "reason": reason}, None
    about["permutations"] = draws
    return about, tested


def _with_nuisances(
    high: pd.DataFrame, low: pd.DataFrame, adjust: Sequence[str], *, paired: bool
) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """The subjects of whom is known what is held, and how many others there are.

    So that one recording without motion parameters does not leave everybody's motion unheld. What
    more than a tenth lack is not held (see `adjusted_for`), and nobody is left out for it.
    """
    unknown = [part[list(adjust)].isna() for part in (high, low)]
    lacking = unknown[0] | unknown[1] if paired else pd.concat(unknown)
    few = lacking.loc[:, lacking.mean() <= _MISSING].any(axis=1)
    gone = few.index[few.to_numpy()]
    return high.drop(gone, errors="ignore"), low.drop(gone, errors="ignore"), len(gone)


def _model(
    high: pd.DataFrame,
    low: pd.DataFrame,
    columns: list[str],
    adjust: Sequence[str],
    *,
    paired: bool,
) -> tuple[Floats, Floats, Floats, list[str]]:
    """Values (subjects, columns), what is asked for, nuisances, and the names of those known."""
    if paired:
        rows = high - low
        of, level = np.ones(len(rows)), np.empty((len(rows), 0))
    else:
        rows = pd.concat([high, low])
        of = np.repeat([1.0, 0.0], [len(high), len(low)])
        level = np.ones((len(rows), 1))
    known = [name for name in adjust if rows[name].notna().all() and rows[name].nunique() > 1]
    nuisances = rows[known].to_numpy(dtype=np.float64)
    if not paired:
        nuisances = nuisances - nuisances.mean(axis=0)
    values = rows[columns].to_numpy(dtype=np.float64)
    lacking = np.isnan(values)
    mean = np.where(lacking, 0.0, values).sum(axis=0) / np.maximum((~lacking).sum(axis=0), 1)
    values = np.where(lacking, 0.0 if paired else mean, values)  # what speaks for no difference
    values[:, lacking.mean(axis=0) > _MISSING] = 0.0  # without variation: not tested
    return values, of, np.hstack([level, nuisances]), known


def _values_of(contrast: Contrast, table: pd.DataFrame) -> pd.Series:
    """What tells the recordings apart: a column of the index, or a part of their BIDS names."""
    column = contrast.column or f"{LABEL_PREFIX}{contrast.label}"
    if column in table:
        return table[column]
    entity = _ENTITIES.get(column)
    values = table.index.to_series().map(lambda name: entities_of(name).get(entity or ""))
    if entity is None or values.isna().all():
        raise InputError(
            f"attention.contrasts: {contrast.name}: the shards' index has no column {column}",
            fix="correct its name in config/config.yaml: column is one of the index's or "
            f"{', '.join(_ENTITIES)}, label one of participants.tsv",
        )
    return values


def _not_there(contrast: Contrast, table: pd.DataFrame) -> str:
    """Which of a contrast's values no recording has: perhaps they are written in another way."""
    there = set(_words(_values_of(contrast, table)).dropna().astype(str))
    lacking = [value for value in (*contrast.high, *contrast.low) if value not in there]
    if not lacking:
        return ""
    known = ", ".join(sorted(there)) if 0 < len(there) <= _LISTED else f"{len(there)} others"
    what = contrast.column or contrast.label
    return f"; {what} is {' or '.join(lacking)} in no recording (but {known})"


def _words(values: pd.Series) -> pd.Series:
    """Values as they are written: of numbers, `1` and `1.0` are the same; NA where missing."""
    if pd.api.types.is_numeric_dtype(values):
        return values.astype(float).map("{:g}".format).where(values.notna())
    words = values.astype("string").str.strip()
    return words.mask(words.isin(["", "n/a", "nan", "NaN"]))
