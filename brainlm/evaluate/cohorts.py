"""The groups of test subjects that scores are told of: all together, and each dataset apart.

A dataset of which nobody was trained on is an external cohort: it asks whether what was learned
holds for other scanners and other people. That none of its people were trained on under the name of
another dataset, `ShardReader` has checked: it refuses a subject that is in two splits.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import pandas as pd

from ..shards.reader import ShardReader

#: Name of the cohort of all test subjects.
ALL = "all"


@dataclass(frozen=True)
class Cohort:
    """Some test recordings, in the order of their names."""

    name: str
    recordings: tuple[str, ...]
    external: bool  # nobody of its datasets was trained on


def cohorts_of(reader: ShardReader, among: Collection[str] | None = None) -> list[Cohort]:
    """All test recordings first; then those of each dataset, where there are several.

    `among`: only these recordings count (those that have a label, or are long enough).
    """
    table = reader.table
    test = table[table["split"] == "test"].sort_index()
    if among is not None:
        test = test[test.index.isin(list(among))]
    trained = datasets_trained_on(table)
    datasets = test["dataset"].astype(str)
    groups = {ALL: test}
    if datasets.nunique() > 1:
        groups |= {str(name): rows for name, rows in test.groupby(datasets)}
    return [
        Cohort(
            name,
            tuple(rows.index.astype(str)),
            external=len(rows) > 0 and trained.isdisjoint(datasets[rows.index]),
        )
        for name, rows in groups.items()
    ]


def datasets_trained_on(table: pd.DataFrame) -> set[str]:
    """Names of the datasets that have a train recording."""
    return set(table.loc[table["split"] == "train", "dataset"].astype(str))
