"""Options as one line of text; in the shareable variant, those that can name nobody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: Options whose numbers may be values of a label.
_OF_LABELS = frozenset({"targets", "external", "positive", "threshold", "table", "family"})


def plain(options: Mapping[str, Any]) -> str:
    """Canonical JSON."""
    return json.dumps(options, sort_keys=True, ensure_ascii=False)


def public(options: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers and switches alone: text may be a path, a site or a label's value."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        if key in _OF_LABELS:
            continue
        if isinstance(value, Mapping):
            if inner := public(value):
                found[key] = inner
        elif isinstance(value, int | float) or (
            isinstance(value, list) and value and all(isinstance(one, int | float) for one in value)
        ):
            found[key] = value
    return found
