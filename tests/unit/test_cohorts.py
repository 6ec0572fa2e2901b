"""Test subjects are told apart by dataset, and who is external is decided in one place."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest

from brainlm.errors import DataError
from brainlm.evaluate.cohorts import ALL, cohorts_of
from brainlm.shards.splits import check_leakage


def _reader(rows: list[tuple[str, str, str]]) -> SimpleNamespace:
    """Recordings of (subject, dataset, split), named after their subjects."""
    table = pd.DataFrame(rows, columns=["subject", "dataset", "split"])
    table["recording_id"] = "sub-" + table["subject"]
    return SimpleNamespace(table=table.set_index("recording_id", drop=False))


ROWS = [
    ("b", "ukb", "test"),
    ("a", "ukb", "train"),
    ("d", "hcp", "test"),
    ("c", "hcp", "test"),
    ("v", "hcp", "val"),
]


def test_a_dataset_that_nobody_was_trained_on_is_external() -> None:
    every, hcp, ukb = cohorts_of(_reader(ROWS))  # type: ignore[arg-type]
    assert (every.name, every.recordings, every.external) == (
        ALL,
        ("sub-b", "sub-c", "sub-d"),
        False,
    )
    assert (hcp.name, hcp.recordings, hcp.external) == ("hcp", ("sub-c", "sub-d"), True)
    assert (ukb.name, ukb.recordings, ukb.external) == ("ukb", ("sub-b",), False)


def test_one_dataset_is_not_told_apart() -> None:
    (every,) = cohorts_of(_reader(ROWS), among=["sub-d", "sub-a"])  # type: ignore[arg-type]
    assert (every.name, every.recordings, every.external) == (ALL, ("sub-d",), True)
    (nobody,) = cohorts_of(_reader(ROWS), among=[])  # type: ignore[arg-type]
    assert (nobody.recordings, nobody.external) == ((), False)


def test_an_external_cohort_with_people_that_were_trained_on_is_refused() -> None:
    table = _reader([*ROWS, ("a", "hcp", "test")]).table
    with pytest.raises(DataError, match="Leakage: 1 subjects"):
        check_leakage(table, "index.parquet")
