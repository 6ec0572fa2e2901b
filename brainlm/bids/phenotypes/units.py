"""Units of labels, as data dictionaries write them."""

from __future__ import annotations

from ...errors import InputError

#: Name -> what it measures, and how many of the first of its kind it is.
_UNITS: dict[str, tuple[str, float]] = {
    **dict.fromkeys(("day", "d"), ("time", 1.0)),
    **dict.fromkeys(("week", "wk"), ("time", 7.0)),
    **dict.fromkeys(("month", "mo"), ("time", 365.25 / 12)),
    **dict.fromkeys(("year", "yr", "y", "years old", "a"), ("time", 365.25)),
    **dict.fromkeys(("gram", "g"), ("mass", 1.0)),
    **dict.fromkeys(("kilogram", "kg"), ("mass", 1000.0)),
    **dict.fromkeys(("pound", "lb"), ("mass", 453.59237)),
    **dict.fromkeys(("millimeter", "millimetre", "mm"), ("length", 1.0)),
    **dict.fromkeys(("centimeter", "centimetre", "cm"), ("length", 10.0)),
    **dict.fromkeys(("inch", "in"), ("length", 25.4)),
    **dict.fromkeys(("meter", "metre", "m"), ("length", 1000.0)),
    **dict.fromkeys(("second", "sec", "s"), ("short time", 1.0)),
    **dict.fromkeys(("minute", "min"), ("short time", 60.0)),
    **dict.fromkeys(("hour", "h", "hr"), ("short time", 3600.0)),
}


def known_unit(text: str | None) -> tuple[str, float] | None:
    """What a unit measures, and its size; None for one that is not known here."""
    if text is None:
        return None
    plain = text.strip().lower().rstrip(".")
    return _UNITS.get(plain) or _UNITS.get(plain.removesuffix("s"))


def conversion(source: str | None, target: str | None) -> float:
    """What numbers in `source` are multiplied by to be in `target`; 1 where one is not told."""
    if source is None or target is None or source.strip().lower() == target.strip().lower():
        return 1.0
    old, new = known_unit(source), known_unit(target)
    if old is None or new is None or old[0] != new[0]:
        raise InputError(
            f"A label in {source!r} cannot be brought to {target!r}",
            fix="give `unit` and `source_unit` the same name, and the number to multiply by as "
            "`factor`; or leave `unit` out",
        )
    return old[1] / new[1]
