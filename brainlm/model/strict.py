"""Sections of a model's config.json, read strictly into frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from ..errors import InputError

#: What JSON may hold for a field of such a type.
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "float": (float, int),
    "float | None": (float, int, type(None)),
    "int": (int,),
    "bool": (bool,),
    "tuple[str, ...]": (list, tuple),
}


def check_section(kind: type, content: Mapping[str, Any], called: str) -> None:
    """Every field without a default, no unknown one, each of its type.

    `called` is what the section is called to people, as in `model.hidden`.
    """
    names = {field.name: str(field.type) for field in fields(kind)}
    needed = {field.name for field in fields(kind) if field.default is MISSING}
    unknown, missing = sorted(set(content) - set(names)), sorted(needed - set(content))
    if unknown or missing:
        told = [f"unknown: {', '.join(unknown)}"] if unknown else []
        told += [f"missing: {', '.join(missing)}"] if missing else []
        raise InputError(
            f"The {called}'s settings have wrong keys ({'; '.join(told)})",
            fix=f"the keys are {', '.join(names)}",
        )
    for name, value in content.items():
        # bool is a kind of int, but neither a number of outputs nor a scale
        if not isinstance(value, _TYPES[names[name]]) or (
            isinstance(value, bool) and names[name] != "bool"
        ):
            raise InputError(f"{called}.{name} must be of type {names[name]}, not {value!r}")
