"""Messages about recordings, counted by kind: 20,000 of them fit on a page."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

import pandas as pd

#: Recordings that are named as examples of a kind.
_EXAMPLES = 3
#: What differs between messages of a kind: paths, BIDS names and numbers.
_PATH = re.compile(r"\S*(?:/|sub-)\S*[^\s:;,.)]")
_NUMBER = re.compile(r"(?<![A-Za-z0-9])[-+]?\d+(?:\.\d+)?(?:e-?\d+)?")


@dataclass(frozen=True)
class Kind:
    """Messages that say the same of several recordings."""

    text: str  # with … where they differ; the message itself where all are equal
    recordings: int
    subjects: int
    examples: tuple[tuple[str, str], ...]  # recording_id, its message


def kinds_of(table: pd.DataFrame, column: str, separator: str = "; ") -> list[Kind]:
    """The kinds of message in a column, the most frequent first."""
    found: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    told = table[table[column].notna()]
    ids, who, texts = (told[name].tolist() for name in ("recording_id", "subject", column))
    for name, subject, text in zip(ids, who, texts, strict=True):
        for message in dict.fromkeys(str(text).split(separator)):
            found[alike(message)].append((name, subject, message))
    kinds = [
        Kind(
            same[0][2] if len({message for _, _, message in same}) == 1 else text,
            len({name for name, _, _ in same}),
            len({subject for _, subject, _ in same}),
            tuple((name, message) for name, _, message in same[:_EXAMPLES]),
        )
        for text, same in found.items()
    ]
    return sorted(kinds, key=lambda kind: (-kind.recordings, kind.text))


def alike(message: str) -> str:
    """A message without what differs from recording to recording."""
    return _NUMBER.sub("…", _PATH.sub("…", message))
