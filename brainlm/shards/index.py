"""The index of the shards: one row per recording, and the proof that it fits them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import DataError
from .writer import PART_SCHEMA

#: Columns of the cohort that go on into the index, besides every `label_<name>`.
CARRIED = (
    "recording_id",
    "subject",
    "family",
    "site",
    "dataset",
    "split",
    "wave",
    "tr",
    "source_tr",
    "mean_fd",
    "share_parcels",
)

_AGAIN = "run `brainlm write-shard` again, then this"


def index_table(cohort: pd.DataFrame, parts: pd.DataFrame, source: object) -> pd.DataFrame:
    """The index: one row per recording of the cohort, which the shards hold once each.

    `parts` holds the rows of all shards (`writer.PART_SCHEMA`); messages name `source`, the cohort.
    """
    _check_once("The cohort", cohort["recording_id"], source)
    _check_once("The shards", parts["recording_id"], source)
    planned, written = set(cohort["recording_id"]), set(parts["recording_id"])
    for names, what in ((planned - written, "not in the shards"), (written - planned, "too many")):
        if names:
            raise DataError(
                f"{len(names)} recordings of the cohort are {what}, e.g. {min(names)}",
                file=str(source),
                fix="run `brainlm cohort`, `brainlm scale` and `brainlm write-shard` again, "
                "then this",
            )
    labels = [name for name in cohort.columns if name.startswith("label_")]
    facts = parts.astype({"recording_id": cohort["recording_id"].dtype})
    merged = cohort[[*CARRIED, *labels]].merge(facts, on="recording_id")
    return merged.sort_values("recording_id", ignore_index=True)


def check_columns(index: pd.DataFrame, source: object) -> None:
    """Refuse the index of an earlier schema, or of another program."""
    wanted = dict.fromkeys((*CARRIED, *(name for name, _ in PART_SCHEMA)))
    lacking = [name for name in wanted if name not in index.columns]
    if lacking:
        raise DataError(
            f"The index lacks the columns {', '.join(lacking[:5])}",
            file=str(source),
            fix="make the shards anew with this version of brainlm: `brainlm write-shard`, then "
            "`brainlm index-shards`",
        )


def check_part(
    part: pd.DataFrame, about: Mapping[str, Any], expected: Mapping[str, Any], shard: Path
) -> None:
    """Refuse a shard that was not made of what is there now, or whose part is another's.

    `about` is the shard's header, `expected` some of its fields as they should be.
    """
    for field, value in expected.items():
        if about.get(field) != value:
            raise DataError(
                f"This shard was made of something else than is there now: its {field} differs",
                file=shard,
                fix=_AGAIN,
            )
    facts: Mapping[str, Mapping[str, Any]] = about["facts"]
    found = {
        str(row.pop("recording_id")): row for row in part.drop(columns="shard").to_dict("records")
    }
    if found != facts or set(part["shard"]) - {shard.name}:
        raise DataError(
            "What stands in shards/parts is not what this shard holds", file=shard, fix=_AGAIN
        )


def _check_once(what: str, names: pd.Series, source: object) -> None:
    twice = sorted(set(names[names.duplicated()]))
    if twice:
        raise DataError(
            f"{what} hold {len(twice)} recordings twice, e.g. {twice[0]}",
            file=str(source),
            fix="make the cohort and the shards anew; never edit them by hand",
        )
