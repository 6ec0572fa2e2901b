"""Numbers and lists, as a sentence has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from .groups import common


def number(value: float) -> str:
    """Without zeros that say nothing."""
    return f"{value:g}"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def span(values: pd.Series, people: pd.Series, k: int) -> str | None:
    """`2`, or `0.72 to 2 (median 0.8)`; of values that fewer than `k` people have, nothing."""
    told = common(values, people, k)
    if told.empty:
        return None
    low, high = told.min(), told.max()
    if low == high:
        return number(low)
    text = f"{number(low)} to {number(high)}"
    return text if len(told) < len(values) else f"{text} (median {number(values.median())})"


def score(found: Mapping[str, Any]) -> str:
    """`0.41 (95% CI 0.38 to 0.44)`."""
    if found.get("value") is None:
        return "not estimable"
    text = f"{found['value']:.3f}"
    if found.get("ci_low") is not None:
        text += f" (95% CI {found['ci_low']:.3f} to {found['ci_high']:.3f})"
    return text
