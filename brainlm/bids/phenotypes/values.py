"""From the cells of a column to a label: what is missing and why, numbers, units, levels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...config import Label
from ...errors import InputError
from .dictionary import Column
from .units import conversion

if TYPE_CHECKING:
    import pandas as pd

#: Cells that say nothing, in any column.
EMPTY = ("", "n/a", "N/A", "NA", "NaN", "nan")
#: Numbers that often stand for a missing value.
CODES = (-1.0, -3.0, -7.0, -9.0, -99.0, -999.0, -9999.0, 99.0, 999.0, 9999.0)
#: Such a number is one beyond doubt where it lies this many times the others' range away from them;
#: -1, -3 and -7 are too near to what scores can be.
_FAR = 3.0
_SMALLEST = 9.0
_ENOUGH = 10  # other values that are needed to judge
_CENSORED = r"^(?:[<>≤≥]=?\s*(-?\d+(?:\.\d+)?)|(-?\d+(?:\.\d+)?)\s*\+)$"


@dataclass
class Parsed:
    """A column as a label, row by row."""

    values: pd.Series  # Float64 or string
    why: pd.Series  # why a value is missing; empty where it is not
    type: str
    unit: str | None
    notes: list[str] = field(default_factory=list)  # what was decided
    suspicions: list[str] = field(default_factory=list)  # what may be wrong, and was left
    names: Mapping[str, str] = field(default_factory=dict)  # level as stored -> its name


def parse(cells: pd.Series, about: Column, rule: Label, everywhere: Iterable[str] = ()) -> Parsed:
    """Read the `cells` (text) of a column as `rule` and its data dictionary say.

    `everywhere` are codes of missing values that count in each column. A number that looks like
    such a code is taken out only where nothing else can be meant; else it stays, and is told.
    """
    import pandas as pd

    codes = dict(about.missing) | dict.fromkeys((*rule.missing, *everywhere), "")
    why = _why_missing(cells, codes)
    present = cells.mask(why != "")
    numbers = pd.to_numeric(present, errors="coerce").astype(float)
    numbers = numbers.mask(numbers.abs() == float("inf"))
    unread = present.notna() & numbers.isna()
    bounds = present[unread].str.extract(_CENSORED)
    bound = pd.to_numeric(bounds[0].fillna(bounds[1])).astype(float).reindex(cells.index)
    as_numbers = _are_numbers(rule, unread & bound.isna(), numbers, present)
    if not as_numbers:
        return _texts(present, why, about, rule, n_numbers=int(numbers.notna().sum()))
    parsed = Parsed(numbers, why, "number", rule.unit or about.unit, names=about.levels)
    if bound.notna().any():
        _take_bounds(parsed, bound, rule)
    if not about.levels and rule.type in ("auto", "number"):
        _take_out_far_codes(parsed)
    place = (rule.name, rule.table, rule.column or rule.name)
    factor = rule.factor * conversion(rule.source_unit or about.unit, rule.unit, *place)
    parsed.values = parsed.values * factor
    if rule.range is not None:
        low, high = rule.range
        outside = (parsed.values < low) | (parsed.values > high)
        _drop(parsed, outside, "outside of the range")
        if outside.any():
            parsed.notes.append(
                f"values outside of {low:g} to {high:g} stand {int(outside.sum())} times, so they "
                "are missing"
            )
    _finish_numbers(parsed, about, rule)
    return parsed


def _why_missing(cells: pd.Series, codes: Mapping[str, str]) -> pd.Series:
    import pandas as pd

    why = pd.Series("", index=cells.index, dtype=object).mask(cells.isin(EMPTY), "empty")
    for code, meaning in codes.items():
        told = f"code {code}" + (f" ({meaning})" if meaning else "")
        why = why.mask((why == "") & same_value(cells, code), told)
    return why


def same_value(cells: pd.Series, code: str) -> pd.Series:
    """Where cells are that text, or that number."""
    import pandas as pd

    alike = cells == code.strip()
    try:
        number = float(code)
    except ValueError:
        return alike
    return alike | (pd.to_numeric(cells, errors="coerce") == number)


def _are_numbers(rule: Label, text: pd.Series, numbers: pd.Series, present: pd.Series) -> bool:
    """Whether the label is read as numbers; refuses text where the mapping wants numbers."""
    if rule.type == "category" or rule.positive is not None:
        return False
    if rule.type == "ordinal" and (rule.levels or text.any()):
        return False
    if rule.type == "auto":
        return bool(not text.any() and (numbers.notna().any() or not present.notna().any()))
    if text.any():
        raise InputError(
            f"The label {rule.name} is to be a {rule.type}, but {int(text.sum())} of "
            f"{int(present.notna().sum())} values of {rule.table}.{rule.column or rule.name} are "
            f"not: {_examples(present[text])}",
            fix="name such values in its `missing`, or give it another type",
        )
    return True


def _texts(
    present: pd.Series, why: pd.Series, about: Column, rule: Label, *, n_numbers: int
) -> Parsed:
    """A label that is text, or that text decides: a category, a place among levels, 0 or 1."""
    count = int(present.notna().sum())
    parsed = Parsed(present.astype("string"), why, "category", None, names=about.levels)
    if rule.positive is not None:
        values = same_value(present, rule.positive).astype(float).where(present.notna())
        if not (values == 1).any() and count:
            raise InputError(
                f"No value of {rule.table}.{rule.column or rule.name} is {rule.positive!r}, which "
                f"the label {rule.name} names as positive",
                fix=f"it has: {_examples(present.dropna())}",
            )
        named = {"1": about.levels.get(rule.positive, rule.positive), "0": "other"}
        return Parsed(values.astype("Float64"), why, "binary", None, names=named)
    levels = rule.levels or (about.levels if rule.type == "ordinal" else {})
    if levels:
        places = _place_of(present, levels)
        unnamed = present.notna() & (places < 0)
        if unnamed.any():
            raise InputError(
                f"The levels of the label {rule.name} leave out {int(unnamed.sum())} of {count} "
                f"values: {_examples(present[unnamed])}",
                fix="add them to its `levels` or to its `missing`",
            )
        if rule.type == "ordinal":
            values = places.where(present.notna()).astype("Float64")
            named = {str(place): name for place, name in enumerate(levels.values())}
            return Parsed(values, why, "ordinal", None, names=named)
        names = list(levels.values())
        parsed.values = places.where(present.notna()).map(lambda n: names[int(n)], "ignore")
        parsed.values, parsed.names = parsed.values.astype("string"), {}
    elif rule.type == "ordinal":
        raise InputError(
            f"The label {rule.name} is to be ordinal, but its values are text",
            fix="give its `levels`, from low to high",
        )
    elif rule.type == "auto" and n_numbers * 2 >= count and count:
        parsed.suspicions.append(
            f"{count - n_numbers} of {count} values are no numbers, so all are kept as text: "
            f"{_examples(present[~_is_number(present)].dropna())}"
        )
    return parsed


def _place_of(present: pd.Series, levels: Mapping[str, str]) -> pd.Series:
    import pandas as pd

    places = pd.Series(-1.0, index=present.index)
    for place, code in enumerate(levels):
        places = places.mask((places < 0) & same_value(present, code), float(place))
    return places


def _is_number(cells: pd.Series) -> pd.Series:
    import pandas as pd

    return pd.to_numeric(cells, errors="coerce").notna()


def _take_bounds(parsed: Parsed, bound: pd.Series, rule: Label) -> None:
    count = int(bound.notna().sum())
    if rule.censored == "bound":
        parsed.values = parsed.values.fillna(bound)
        parsed.notes.append(f"bounds (as 89+) stand {count} times, taken as that number")
        return
    _drop(parsed, bound.notna(), "a bound, no value (as 89+)")
    parsed.notes.append(
        f"bounds (as 89+) stand {count} times, so they are missing; `censored: bound` takes the "
        "number"
    )


def _take_out_far_codes(parsed: Parsed) -> None:
    """Take out numbers as -999 that lie far from all others; two codes may hide each other."""
    values = parsed.values
    codes = values.isin(CODES)
    others = values[~codes].dropna()
    if len(others) < _ENOUGH or others.nunique() < 2:
        return
    low, high = others.min(), others.max()
    reach = _FAR * (high - low)
    far = (values < low - reach) | (values > high + reach)
    far &= codes & (values.abs() >= _SMALLEST)
    for code, count in sorted(Counter(values[far]).items()):
        _drop(parsed, far & (values == code), f"code {code:g}, far from all other values")
        parsed.notes.append(
            f"{code:g} stands {count} times, far from all other values, so it counts as missing"
        )


def _finish_numbers(parsed: Parsed, about: Column, rule: Label) -> None:
    values = parsed.values
    if rule.type == "binary" and not values.dropna().isin((0, 1)).all():
        raise InputError(
            f"The binary label {rule.name} has other values than 0 and 1 in {rule.table}."
            f"{rule.column or rule.name}",
            fix="say which value counts as 1: positive: VALUE",
        )
    if rule.type in ("binary", "ordinal"):
        parsed.type = rule.type
    elif about.levels and rule.type == "auto":
        parsed.type = "category"
    parsed.values = values.astype("Float64")


def _drop(parsed: Parsed, where: pd.Series, why: str) -> None:
    parsed.values = parsed.values.mask(where)
    parsed.why = parsed.why.mask(where, why)


def _examples(values: pd.Series) -> str:
    """A few of the values, never with whose they are."""
    seen = sorted(Counter(str(value)[:20] for value in values).items(), key=lambda x: (-x[1], x[0]))
    return ", ".join(repr(v) for v, _ in seen[:3]) + (", ..." if len(seen) > 3 else "")
