"""Labels of recordings: which row of a table is about which recording."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .people import Match, in_order, match_ids
from .tables import Source, Table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from .values import Parsed

CONTRADICTORY = "rows that contradict each other"
NO_ROW = "no row"
NO_VISIT = "no row of this session"
WHICH_VISIT = "several sessions, and which is meant is not told"


@dataclass(frozen=True)
class People:
    """The rows of a table, each brought to a subject (and session) of the dataset."""

    key: pd.Series  # number of the row's key in `keys`; -1 for a row of nobody here
    keys: list[tuple[str, str | None]]  # subject and session; one of each
    by_session: bool
    notes: list[str]


def find_people(table: Table, source: Source, recordings: pd.DataFrame) -> People:
    """Say whose each row is; what could not be told is a note with counts."""
    import pandas as pd

    known = [str(subject) for subject in recordings["subject"].dropna().unique()]
    subjects = match_ids(table.subject, known)
    notes = _notes_on_subjects(source, subjects, known)
    who = table.subject.map(subjects.known)
    if table.session is None:
        codes, names = pd.factorize(who)
        notes += _notes_on_repeats(source, codes)
        keys: list[tuple[str, str | None]] = [(str(name), None) for name in names]
        return People(pd.Series(codes, index=who.index), keys, False, notes)
    written = table.session.mask(table.session.isin(("", "n/a")), "")
    sessions = [str(session) for session in recordings["session"].dropna().unique()]
    match = match_ids(written, sessions, "ses-")
    if sessions and not match.known and (written != "").any():
        listed = ", ".join(sorted(set(written[written != ""]))[:5])
        notes.append(
            f"{source.shown}: none of its sessions ({listed}) is one of the dataset's "
            f"({', '.join(sorted(sessions)[:5])}); labels say which they mean by `session`"
        )
    if match.ambiguous:
        notes.append(
            f"{source.shown}: {match.ambiguous} sessions could be more than one of the dataset's: "
            "write them as the dataset does"
        )
    visit = [match.known.get(text, text.removeprefix("ses-")) for text in written]
    pairs = pd.MultiIndex.from_arrays([who, visit])
    codes, pair_names = pd.factorize(pairs)
    codes = pd.Series(codes, index=who.index).where(who.notna(), -1).to_numpy()
    notes += _notes_on_repeats(source, codes)
    keys = [(str(subject), str(session) or None) for subject, session in pair_names]
    return People(pd.Series(codes, index=who.index), keys, True, notes)


def _notes_on_subjects(source: Source, match: Match, known: list[str]) -> list[str]:
    notes = []
    if match.respelled:
        notes.append(f"{source.shown}: {match.respelled} subjects are written otherwise (01 and 1)")
    if match.ambiguous:
        notes.append(
            f"{source.shown}: {match.ambiguous} subjects are left out, for they could be more "
            "than one of the dataset's: write them as the dataset does"
        )
    if match.unknown:
        notes.append(f"{source.shown}: {match.unknown} subjects have no recording here")
    if lacking := len(set(known) - set(match.known.values())):
        notes.append(f"{source.shown}: {lacking} of {len(known)} subjects have no row")
    return notes


def _notes_on_repeats(source: Source, codes: NDArray[np.intp]) -> list[str]:
    import numpy as np

    count = int((np.bincount(codes[codes >= 0]) > 1).sum()) if (codes >= 0).any() else 0
    if not count:
        return []
    return [
        f"{source.shown}: {count} subjects (or sessions) have several rows; where these give "
        "different values the label is missing"
    ]


def one_of_each(parsed: Parsed, people: People) -> tuple[pd.Series, pd.Series]:
    """Values and why they are missing by key: what all rows with a value agree on."""
    import pandas as pd

    mine = people.key >= 0
    key = people.key[mine]
    order = range(len(people.keys))
    grouped = parsed.values[mine].groupby(key)
    values = grouped.first().reindex(order)
    why = parsed.why[mine].groupby(key).first().reindex(order).fillna(NO_ROW)
    torn = (grouped.nunique() > 1).reindex(order, fill_value=False)
    why = why.mask(torn, CONTRADICTORY)
    values = values.mask(torn).astype(parsed.values.dtype)
    return values, pd.Series(why).mask(values.notna(), "")


def rows_of(
    recordings: pd.DataFrame, people: People, session: str | None
) -> tuple[list[int], list[str]]:
    """For each recording its key (-1 for none) and why there is none.

    `session` is the label's: None (that of the recording), first, last, or a session's name.
    """
    by_subject: dict[str, dict[str | None, int]] = {}
    for number, (subject, visit) in enumerate(people.keys):
        by_subject.setdefault(subject, {})[visit] = number
    places, why = [], []
    named = session and _as_known(session, (visit for _, visit in people.keys))
    own = recordings["session"].astype(object).where(recordings["session"].notna(), None)
    for subject, visit in zip(recordings["subject"], own, strict=True):
        place, reason = _choose(by_subject.get(str(subject), {}), visit, named)
        places.append(place)
        why.append(reason)
    return places, why


def _as_known(session: str, visits: Iterable[str | None]) -> str:
    if session in ("first", "last"):
        return session
    match = match_ids([session], {visit for visit in visits if visit}, "ses-")
    return match.known.get(session, session)


def _choose(visits: dict[str | None, int], own: str | None, named: str | None) -> tuple[int, str]:
    if not visits:
        return -1, NO_ROW
    if set(visits) == {None}:
        return visits[None], ""
    told = sorted((visit for visit in visits if visit), key=in_order)
    if named in ("first", "last"):
        return visits[told[0 if named == "first" else -1]], ""
    wanted = named or own
    if wanted is None:
        return (visits[told[0]], "") if len(visits) == 1 else (-1, WHICH_VISIT)
    if wanted in visits:
        return visits[wanted], ""
    if None in visits and named is None:
        return visits[None], ""
    return -1, NO_VISIT
