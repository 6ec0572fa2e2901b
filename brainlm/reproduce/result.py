"""What a rerun leaves: reports/reproduce.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .compare import BAD, Compared, Verdict
from .tolerances import tolerance_of


def summary_of(
    compared: Sequence[Compared],
    *,
    sample: Sequence[Mapping[str, str]],
    seed: int,
    training: str,
    circumstances: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole content of the file; nothing in it tells of time or machine."""
    stages: dict[str, list[Compared]] = {}
    for one in compared:
        stages.setdefault(one.stage, []).append(one)
    return {
        **circumstances,
        "verdict": str(verdict_of(compared)),
        "seed": seed,
        "sample": [dict(one) for one in sample],
        "training": training,
        "stages": [_of_stage(stage, members) for stage, members in stages.items()],
        "differences": [one.as_json() for one in compared if one.verdict is not Verdict.bitwise],
    }


def verdict_of(compared: Sequence[Compared]) -> Verdict:
    """The worst one that counts."""
    found = {one.verdict for one in compared}
    if found & set(BAD):
        return Verdict.beyond
    return Verdict.within if Verdict.within in found else Verdict.bitwise


def _of_stage(stage: str, members: Sequence[Compared]) -> dict[str, Any]:
    tolerance = tolerance_of(stage)
    far = [one.distance for one in members if one.distance is not None]
    correlations = [one.correlation for one in far if one.correlation is not None]
    return {
        "stage": stage,
        "counts": {
            str(verdict): count
            for verdict in Verdict
            if (count := sum(one.verdict is verdict for one in members))
        },
        "max_abs": max((one.max_abs for one in far), default=0.0),
        "max_relative": max((one.relative for one in far), default=0.0),
        "min_correlation": min(correlations, default=1.0),
        "tolerance": {
            "relative": tolerance.relative,
            "correlation": tolerance.correlation,
            "why": tolerance.why,
        },
    }
