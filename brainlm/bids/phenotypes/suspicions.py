"""What may be wrong with a label. Nothing is changed here: it is told, and a person decides."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .dictionary import Column, says_nothing
from .units import known_unit
from .values import CODES, Parsed

if TYPE_CHECKING:
    import pandas as pd

_DATE = r"^(\d{4}-\d{1,2}-\d{1,2}([T ].*)?|\d{1,2}[./-]\d{1,2}[./-]\d{4})$"
_COMMA = r"^-?\d+,\d+$"
_AGE = re.compile(r"(^|_)age($|_)", re.IGNORECASE)
_NOTHING = frozenset(("null", "none", "nil", "nan", "na", "-", "--", ".", "?", "#n/a", "n.a."))
_OLDEST = 120  # years
_IN_YEARS = (89.0, 90.0)  # what ages above are cut to (BIDS, HIPAA)


def suspicions(name: str, parsed: Parsed, about: Column, rows: pd.Series) -> list[str]:
    """What looks wrong in these `rows` of a label, a line each; never with whose value it is."""
    values = parsed.values[rows].dropna()
    told = list(parsed.suspicions)
    if values.empty:
        return [*told, "no value at all"]
    if values.nunique() == 1:
        told.append("one value only: there is nothing to learn")
    if values.dtype == "string":
        return [*told, *_of_text(values, about)]
    if parsed.type in ("number", "category"):
        told += _codes(values, about)
    if parsed.type == "number" and _AGE.search(name):
        told += _ages(values, parsed.unit)
    if about.levels and parsed.type == "category":
        told += _beside_levels({f"{value:g}" for value in values}, about)
    return told


def _codes(values: pd.Series, about: Column) -> list[str]:
    """Numbers that look like codes for missing values and were left in."""
    named = set(about.levels)
    present = sorted(c for c in set(values) & set(CODES) if f"{c:g}" not in named)
    others = values[~values.isin(CODES)]
    told = []
    for code in present:
        if others.empty or (others.min() <= code <= others.max()):
            continue
        below = code < 0 <= others.min()
        above = code > 0 and code - others.max() >= max(others.max() - others.min(), 1)
        if below or above:
            side = "are 0 or more" if below else f"are {others.max():g} at most"
            told.append(
                f"{code:g} stands {int((values == code).sum())} times, all others {side}: a code "
                "for missing? It was left in; name it in `missing` if so"
            )
    return told


def _ages(values: pd.Series, unit: str | None) -> list[str]:
    known = known_unit(unit)
    years = known is None or known == known_unit("year")
    told = []
    if years and values.max() > _OLDEST:
        told.append(
            f"ages up to {values.max():g}: "
            + (f"the unit is said to be {unit}" if known else "no unit is told")
            + "; are they months or days?"
        )
    elif not years and values.median() >= 18 and values.max() <= 100:
        told.append(f"the unit is said to be {unit}, but the values look like years")
    elif years and values.max() in _IN_YEARS and (values == values.max()).sum() > 1:
        told.append(f"{values.max():g} may stand for that age and all above (privacy)")
    return told


def _of_text(values: pd.Series, about: Column) -> list[str]:
    told = []
    if values.str.match(_DATE).mean() > 0.8:
        told.append("these are dates: of no use as a label, and they may tell who somebody is")
    elif values.str.match(_COMMA).mean() > 0.5:
        told.append("numbers with a decimal comma are text here: write them with a point")
    elif len(values) >= 20 and values.nunique() > 0.9 * len(values):
        told.append("nearly every value is another: names or free text, which may identify people")
    if about.levels:
        told += _beside_levels(set(values), about)
    small = values.str.strip().str.lower()
    empty = small[small.map(lambda text: text in _NOTHING or says_nothing(text)).astype(bool)]
    if len(empty):
        listed = ", ".join(repr(text) for text in sorted(set(values[empty.index]))[:3])
        told.append(
            f"{listed} stand {len(empty)} times, and look like no answer: they count as values; "
            "name them in `missing` if they are none"
        )
    if small.nunique() < values.nunique():
        told.append("some values differ in capitals alone: they count as different")
    return told


def _beside_levels(values: set[str], about: Column) -> list[str]:
    unnamed = sorted(values - set(about.levels) - set(about.levels.values()))
    if not unnamed:
        return []
    return [f"{len(unnamed)} values are not among the Levels of the data dictionary"]
