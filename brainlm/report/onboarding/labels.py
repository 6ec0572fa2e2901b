"""Labels as the page shows them: how many have one, how it is spread, what looks wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd

from ...recordings import LABEL_PREFIX

_BINS, _MOST_LEVELS = 20, 20
#: Codes that often stand for a value that is missing.
_CODES = (-999.0, -99.0, -9.0, -1.0, 99.0, 999.0, 9999.0)


class Label(Protocol):
    """What the page reads of a label's summary."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str | None: ...
    @property
    def subjects(self) -> int: ...
    @property
    def missing(self) -> Mapping[str, int]: ...
    @property
    def quantiles(self) -> Mapping[str, float]: ...
    @property
    def histogram(self) -> Mapping[str, Sequence[float]]: ...
    @property
    def levels(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def other_levels(self) -> int: ...
    @property
    def suspicions(self) -> Sequence[str]: ...
    @property
    def description(self) -> str | None: ...


@dataclass(frozen=True)
class PlainLabel:
    """A label, from the recordings table alone."""

    name: str
    subjects: int
    missing: dict[str, int]
    quantiles: dict[str, float] = field(default_factory=dict)
    histogram: dict[str, list[float]] = field(default_factory=dict)
    levels: list[dict[str, Any]] = field(default_factory=list)
    other_levels: int = 0
    suspicions: list[str] = field(default_factory=list)
    unit: str | None = None
    description: str | None = None


def plain_labels(table: pd.DataFrame) -> list[PlainLabel]:
    """The labels of the recordings table, each counted over subjects."""
    names = [name for name in table.columns if name.startswith(LABEL_PREFIX)]
    people = table[["subject", *names]].groupby("subject", sort=False).first()
    return [_label(name.removeprefix(LABEL_PREFIX), people[name]) for name in names]


def _label(name: str, values: pd.Series) -> PlainLabel:
    known = values.dropna()
    absent = {"no value": int(values.isna().sum())} if values.isna().any() else {}
    if not pd.api.types.is_numeric_dtype(values):
        counted = Counter(map(str, known))
        ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
        levels: list[dict[str, Any]] = [{"value": value, "subjects": n} for value, n in ordered]
        rest = sum(level["subjects"] for level in levels[_MOST_LEVELS:])
        told = ["every subject has the same value"] if len(levels) == 1 else []
        return PlainLabel(
            name,
            len(known),
            absent,
            levels=levels[:_MOST_LEVELS],
            other_levels=rest,
            suspicions=told,
        )
    numbers = known.to_numpy(float)
    if not len(numbers):
        return PlainLabel(name, 0, absent, suspicions=["nobody has a value"])
    counts, edges = np.histogram(numbers, bins=min(_BINS, len(np.unique(numbers))))
    spread = np.quantile(numbers, (0, 0.5, 1))
    return PlainLabel(
        name,
        len(numbers),
        absent,
        quantiles=dict(zip(("0", "0.5", "1"), map(float, spread), strict=True)),
        histogram={"edges": edges.tolist(), "counts": counts.tolist()},
        suspicions=_suspicions(numbers),
    )


def _suspicions(numbers: np.ndarray) -> list[str]:
    """What may be wrong with numbers, in words."""
    if numbers.min() == numbers.max() and len(numbers) > 1:
        return ["every subject has the same value"]
    told = []
    for code in _CODES:
        rest = numbers[numbers != code]
        if len(rest) in (0, len(numbers)):
            continue
        if not rest.min() - np.ptp(rest) <= code <= rest.max() + np.ptp(rest):
            told.append(f"{code:g} looks like a code for missing ({len(numbers) - len(rest)})")
    return told
