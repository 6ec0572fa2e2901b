"""How scores, p values and cohorts are put in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..metrics import Estimate


def estimate_of(score: Mapping[str, Any]) -> Estimate:
    """A score as metrics.json holds it."""
    return Estimate(
        score["value"], score["ci_low"], score["ci_high"], str(score.get("reason") or "")
    )


def to_draw(value: float | None) -> float:
    """A number for a chart: NaN, which is not drawn, where there is none."""
    return math.nan if value is None else float(value)


def printed(estimate: Estimate) -> str:
    """The value, and its interval in brackets."""
    interval = f" ({estimate.interval})" if estimate.interval else ""
    return estimate.text + interval


def p_text(value: float | None) -> str:
    """A p value; empty where there is none."""
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def signed(value: float | None, digits: int = 3) -> str:
    """A number with its sign, a true minus; empty where there is none."""
    return "" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def cohort_name(cohort: Mapping[str, Any]) -> str:
    """A cohort of test subjects."""
    if cohort["cohort"] == "all":
        return "All test subjects"
    return f"{cohort['cohort']} (external)" if cohort.get("external") else str(cohort["cohort"])
