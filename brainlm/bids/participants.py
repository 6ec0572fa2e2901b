"""What participants.tsv says about each subject, its labels apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .phenotypes.people import match_ids
from .phenotypes.tables import Source, is_unnamed, read_cells, read_header
from .phenotypes.values import EMPTY
from .phenotypes.wanted import SITE


@dataclass
class Participants:
    """Who is listed, where each was scanned, and whose rows contradict each other."""

    listed: frozenset[str] = frozenset()
    site: dict[str, str] = field(default_factory=dict)
    contradictory: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)


def read_participants(path: Path, subjects: Iterable[str]) -> Participants:
    """Read what participants.tsv says of the `subjects`; a dataset without it has no labels of it.

    Two equal rows of a subject count as one; two different rows make the subject contradictory,
    since nobody can know which of them is right. A row for each session is no contradiction.
    """
    if not path.exists():
        return Participants(notes=["there is no participants.tsv, so there are no labels of it"])
    source = Source("participants", "participants", (path,), path.name)
    header = read_header(source)
    # A saved index would make each of a subject's equal rows another one.
    named = [column for column in header.columns if not is_unnamed(column)]
    table = read_cells(source, header, named)
    who = table.subject.map(match_ids(table.subject, subjects).known)
    rows = table.cells.assign(_who=who)
    if table.session is not None:
        rows["_session"] = table.session
    rows = rows[who.notna()].drop_duplicates()
    several = rows.duplicated([name for name in ("_who", "_session") if name in rows.columns])
    site = {}
    if SITE in rows.columns:
        told = rows[~rows[SITE].isin(EMPTY)].drop_duplicates(["_who", SITE])
        moved = told["_who"].duplicated(keep=False)
        site = dict(zip(told.loc[~moved, "_who"], told.loc[~moved, SITE], strict=True))
    return Participants(frozenset(rows["_who"]), site, frozenset(rows.loc[several, "_who"]))
