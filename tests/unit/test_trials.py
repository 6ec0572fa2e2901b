"""Trying settings."""

from __future__ import annotations

import pytest

from brainlm.errors import DataError
from brainlm.evaluate.trials import best_of


def _explodes():
    raise DataError("The loss is nan")


def test_the_smallest_error_is_kept_and_what_explodes_is_passed_over() -> None:
    trials = {
        "wild": _explodes,
        "good": lambda: ("network", 0.2),
        "worse": lambda: ("other", 0.3),
        "as good": lambda: ("third", 0.2),
    }
    made, name, tried = best_of(trials)
    assert (made, name) == ("network", "good")
    assert tried == {"wild": None, "good": 0.2, "worse": 0.3, "as good": 0.2}


def test_when_all_explode_it_is_told() -> None:
    with pytest.raises(DataError, match="nan"):
        best_of({"wild": _explodes, "wilder": _explodes})
