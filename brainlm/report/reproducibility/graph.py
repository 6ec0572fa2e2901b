"""Lineage as a graph: files and numbers, and which was made from which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

#: Small tables of people, and shards with what is made for each, the last of which may hold one
#: recording alone: from the hash of one, its content might be guessed.
GUESSABLE = frozenset(
    {
        "splits",
        "exclusions",
        "exclude_list",
        "recordings",
        "recordings_tsv",
        "labels",
        "sources",
        "split_ledger",
        "leakage",
        "config",
        "shard",
        "shard_plan",
        "shard_part",
        "scaler_part",
    }
)


class State(StrEnum):
    """What is known of a file against the hash that those who read it have recorded."""

    whole = "whole"  # the bytes are those that were recorded
    changed = "changed"  # they are others
    missing = "missing"  # it is gone, though something was made from it
    temporary = "temporary"  # it is gone as the workflow wanted, and can be made anew
    given_up = "given up"  # an empty file that stands for a recording that could not be used
    unread = "unread"  # not looked at, such as raw data that are not here


@dataclass(frozen=True)
class Node:
    """A file, or a number in one."""

    id: str  # path relative to the study, `bids::path` of raw data, `path#pointer` of a number
    kind: str  # key of layout.TEMPLATES; "raw"; "metric"; "checkpoint"; "outside"
    state: State
    sha256: str | None = (
        None  # as recorded by those who read it; of the file itself where nobody did
    )
    made_by: str | None = None  # stage
    recording: str | None = None  # recording_id, where it is of one
    about: Mapping[str, Any] = field(default_factory=dict)  # e.g. code digest, value of a number


@dataclass(frozen=True)
class Graph:
    """Nodes by id; `sources` says of each what it was made from."""

    nodes: Mapping[str, Node]
    sources: Mapping[str, tuple[str, ...]]
