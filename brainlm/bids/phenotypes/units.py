"""Units of labels, as data dictionaries write them."""

from __future__ import annotations

import re

from ...errors import InputError

#: Name -> what it measures, and how many of the first of its kind it is.
_UNITS: dict[str, tuple[str, float]] = {
    **dict.fromkeys(("day", "d"), ("time", 1.0)),
    **dict.fromkeys(("week", "wk", "w"), ("time", 7.0)),
    **dict.fromkeys(("month", "mo"), ("time", 365.25 / 12)),
    **dict.fromkeys(("year", "yr", "y", "y/o", "yo", "a"), ("time", 365.25)),
    **dict.fromkeys(("gram", "g"), ("mass", 1.0)),
    **dict.fromkeys(("kilogram", "kg"), ("mass", 1000.0)),
    **dict.fromkeys(("pound", "lb"), ("mass", 453.59237)),
    **dict.fromkeys(("millimeter", "millimetre", "mm"), ("length", 1.0)),
    **dict.fromkeys(("centimeter", "centimetre", "cm"), ("length", 10.0)),
    **dict.fromkeys(("inch", "inches", "in"), ("length", 25.4)),
    **dict.fromkeys(("meter", "metre", "m"), ("length", 1000.0)),
    **dict.fromkeys(("second", "sec", "s"), ("short time", 1.0)),
    **dict.fromkeys(("minute", "min"), ("short time", 60.0)),
    **dict.fromkeys(("hour", "h", "hr"), ("short time", 3600.0)),
}


#: Years of age, age (in years), decimal years, yrs. old: what stands beside the unit itself.
_SAY_NOTHING = frozenset(
    ("age", "at", "completed", "decimal", "in", "of", "old", "scan", "the", "unit", "units")
)
_OF_WORDS = re.compile(r"[a-z\s.,:()\[\]-]+")


def known_unit(text: str | None) -> tuple[str, float] | None:
    """What a unit measures, and its size; None for one that is not known here."""
    if text is None:
        return None
    plain = " ".join(text.lower().replace("(s)", "").split()).rstrip(".")
    found = _UNITS.get(plain) or _UNITS.get(plain.removesuffix("s"))
    if found is not None or not _OF_WORDS.fullmatch(plain):
        return found
    said = [word for word in re.findall("[a-z]+", plain) if word not in _SAY_NOTHING]
    return known_unit(said[0]) if len(said) == 1 and said[0] != plain else None


def units_like(unit: str | None) -> list[str]:
    """Names of the units that measure the same as `unit`, one for each; none for an unknown one."""
    known = known_unit(unit)
    first = {about: name for name, about in reversed(_UNITS.items())}
    return [first[about] for about in first if known is not None and about[0] == known[0]][::-1]


def conversion(
    source: str | None, target: str | None, label: str, table: str, column: str
) -> float:
    """What numbers in `source` are multiplied by to be in `target`; 1 where one is not told.

    The others say of which label, for the line of phenotypes.labels that would mend it.
    """
    if source is None or target is None or source.strip().lower() == target.strip().lower():
        return 1.0
    old, new = known_unit(source), known_unit(target)
    if old is None or new is None or old[0] != new[0]:
        units = ", ".join(units_like(target)) or target
        raise InputError(
            f"The label {label} in {source!r} cannot be brought to {target!r}",
            fix=f"say in phenotypes.labels what it is in (of {units}): "
            f"- {{name: {label}, table: {table}, column: {column}, unit: {target}, "
            f"source_unit: {target}}}; for any other unit add factor: NUMBER to multiply by",
        )
    return old[1] / new[1]
