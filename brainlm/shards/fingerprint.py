"""Hashes that tie models and scores to the data they saw."""

from __future__ import annotations

import pandas as pd

from ..errors import DataError
from ..provenance import sha256_json


def split_sha256(table: pd.DataFrame) -> str:
    """Hash of who is in which split (columns subject, split)."""
    pairs = {(str(row.subject), str(row.split)) for row in table.itertuples()}
    return sha256_json(sorted(pairs))


def check_same_split(table: pd.DataFrame, expected: str, model: object) -> None:
    """Refuse to score a model on other splits than it was trained on: test may hold train."""
    if split_sha256(table) != expected:
        raise DataError(
            "The model was trained with other splits than the shards have now: its train "
            "subjects may be among the test subjects",
            file=str(model),
            fix="train it again on the present shards",
        )
