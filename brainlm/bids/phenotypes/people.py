"""Which subject, and which session, a table means: ids are written in many ways."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Match:
    """Who the ids of a table are."""

    known: dict[str, str]  # id as written -> as the dataset has it
    respelled: int  # ids that are written otherwise there
    ambiguous: int  # ids that could be more than one, or that more than one id could be
    unknown: int


def match_ids(written: Iterable[str], known: Iterable[str], prefix: str = "sub-") -> Match:
    """Match ids as a table has them with those of the dataset (without prefix).

    The same id is the same subject. Else sub-01, 01, 1 and 1.0 are alike, AB_1 and ab1 too;
    such a pair counts only if no other id of the dataset or of the table is like them.
    """
    names, ids = set(known), sorted({text for text in written if text})
    like_known, like_written = defaultdict(set), defaultdict(set)
    for name in names:
        like_known[canonical(name, prefix)].add(name)
    for text in ids:
        like_written[canonical(text, prefix)].add(text.removeprefix(prefix))
    found: dict[str, str] = {}
    respelled = ambiguous = 0
    for text in ids:
        plain, alike = text.removeprefix(prefix), canonical(text, prefix)
        if plain in names:
            found[text] = plain
        elif alike and len(like_known[alike]) == 1 and len(like_written[alike]) == 1:
            found[text] = next(iter(like_known[alike]))
            respelled += 1
        elif like_known[alike]:
            ambiguous += 1
    return Match(found, respelled, ambiguous, len(ids) - len(found) - ambiguous)


def canonical(text: str, prefix: str) -> str:
    """What the spellings of one id have in common."""
    plain = re.sub(r"^(\d+)\.0+$", r"\1", text.strip().removeprefix(prefix))
    plain = re.sub("[^A-Za-z0-9]", "", plain).lower()
    return (plain.lstrip("0") or "0") if plain.isdigit() else plain


def in_order(session: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts sessions as people count them: 2 before 10."""
    parts = re.findall(r"\d+|\D+", session)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)
