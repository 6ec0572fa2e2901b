"""Trying settings of a network and keeping the one that does best on the validation split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from ..errors import DataError

Made = TypeVar("Made")


def best_of(
    trials: Mapping[str, Callable[[], tuple[Made, float]]],
) -> tuple[Made, str, dict[str, float | None]]:
    """What the trial of the smallest error made, its name, and the error of each.

    A trial whose numbers explode is passed over (None), for another setting may be gentler; when
    all do, the last one's error is raised.
    """
    best: tuple[Made, str, float] | None = None
    tried: dict[str, float | None] = {}
    failure: DataError | None = None
    for name, trial in trials.items():
        try:
            made, error = trial()
        except DataError as exploded:
            tried[name], failure = None, exploded
            continue
        tried[name] = error
        if best is None or error < best[2]:
            best = (made, name, error)
    if best is None:
        assert failure is not None, "there is at least one trial"
        raise failure
    return best[0], best[1], tried
