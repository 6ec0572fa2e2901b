"""The data dictionary of a table: the JSON file beside it (BIDS)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Names of levels that say that there is no answer. "No response" is not among them: in a trial it
#: is the level of those whom the treatment did not help.
_NO_ANSWER = re.compile(
    r"^(n/?a|missing|unknown|no (data|answer|information)|refused|skipped|invalid"
    r"|not (available|applicable|known|collected|answered|recorded|reported|done|assessed|asked)"
    r"|(data )?(missing|unavailable)|(do not|don'?t) know"
    r"|(prefer(red|s)?|choose|chose|wish(es)?) not to (say|answer)"
    r"|(declined|refused) to (say|answer))"
    r"(?![a-z])",
    re.IGNORECASE,
)


def says_nothing(text: str) -> bool:
    """Whether a level's name says that there is no answer."""
    return bool(_NO_ANSWER.match(text))


@dataclass(frozen=True)
class Column:
    """What the dictionary says of a column."""

    description: str | None = None
    unit: str | None = None
    levels: Mapping[str, str] = field(default_factory=dict)  # code -> name, without missing codes
    missing: Mapping[str, str] = field(default_factory=dict)  # code -> why
    derived: bool = False
    term_url: str | None = None


def read_dictionary(path: Path) -> tuple[dict[str, Column], list[str]]:
    """The columns that the dictionary describes, and notes; empty where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}, []
    except (ValueError, OSError) as error:
        told = " ".join(str(error).split())
        return {}, [f"{path.name} cannot be read, so codes of missing values are not known: {told}"]
    if not isinstance(content, dict):
        return {}, [f"{path.name} is not a JSON object: codes of missing values are not known"]
    return {n: _column(about) for n, about in content.items() if isinstance(about, dict)}, []


def _column(about: Mapping[str, Any]) -> Column:
    names = {str(code): _name(level) for code, level in _mapping(about.get("Levels")).items()}
    missing = {code: name for code, name in names.items() if says_nothing(name)}
    stated = about.get("MissingValues", about.get("MissingValue"))
    if isinstance(stated, dict):
        missing |= {str(code): _name(why) for code, why in stated.items()}
    elif stated is not None:
        missing |= {str(code): "" for code in (stated if isinstance(stated, list) else [stated])}
    return Column(
        description=_text(about.get("Description")) or _text(about.get("LongName")),
        unit=_text(about.get("Units")),
        levels={code: name for code, name in names.items() if code not in missing},
        missing=missing,
        derived=about.get("Derivative") is True,
        term_url=_text(about.get("TermURL")),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _name(level: Any) -> str:
    """A level's name; since BIDS 1.8 it may be an object with a description."""
    if isinstance(level, dict):
        level = level.get("Description", "")
    return str(level).strip()


def _text(value: Any) -> str | None:
    return " ".join(value.split()) or None if isinstance(value, str) else None
