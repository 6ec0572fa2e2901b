"""Tables about people: where they are, and their cells as text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ...config import Phenotypes
from ...errors import InputError
from ...provenance import sha256_file, sha256_json
from .dictionary import Column, read_dictionary

if TYPE_CHECKING:
    import pandas as pd

#: Names of columns, in small letters, that say who and when; the first that is there counts.
SUBJECT_COLUMNS = (
    *("participant_id", "subject_id", "subject", "sub", "sub_id", "participant", "eid"),
    *("src_subject_id", "ptid", "id"),
)
SESSION_COLUMNS = (
    *("session_id", "session", "ses", "visit", "visit_id", "eventname", "viscode", "timepoint"),
)
_AS_TEXT = "save it as .tsv or .csv (UTF-8)"


@dataclass(frozen=True)
class Source:
    """A table that is there."""

    name: str
    kind: Literal["participants", "sessions", "phenotype", "file"]
    files: tuple[Path, ...]  # one, but for the sessions: one of each subject
    shown: str  # what messages call it
    subject: str | None = None
    session: str | None = None


@dataclass(frozen=True)
class Header:
    """The names of a table's columns."""

    columns: tuple[str, ...]  # those that may be labels
    subject: str | None  # None: the file's name says it
    session: str | None
    unnamed: int = 0  # columns without a name, which nobody means unless asked for


@dataclass(frozen=True)
class Table:
    """The cells of a table as text."""

    subject: pd.Series
    session: pd.Series | None
    cells: pd.DataFrame
    sha256: str


def find_sources(
    root: Path,
    study: Path,
    options: Phenotypes,
    subjects: Iterable[str],
    participants: Path | None = None,
) -> list[Source]:
    """All tables about the `subjects`: of the dataset at `root`, and the files of the options.

    `participants` is participants.tsv where that lies elsewhere.
    """
    found = []
    path = participants or root / "participants.tsv"
    if path.is_file():
        found.append(Source("participants", "participants", (path,), path.name))
    names = (root / f"sub-{subject}/sub-{subject}_sessions.tsv" for subject in sorted(subjects))
    if files := tuple(path for path in names if path.is_file()):
        found.append(Source("sessions", "sessions", files, "sub-*_sessions.tsv"))
    for path in sorted((root / "phenotype").glob("*.tsv")):
        found.append(Source(path.stem, "phenotype", (path,), f"phenotype/{path.name}"))
    for file in options.files:
        path = (study / file.path).resolve()  # the study may not be there yet
        if not path.is_file():
            raise InputError(
                "A table of phenotypes.files does not exist",
                file=path,
                fix="relative paths start at the study folder",
            )
        name = file.name or name_of(path)
        found.append(Source(name, "file", (path,), path.name, file.subject, file.session))
    for source in found:
        if sum(other.name == source.name for other in found) > 1:
            raise InputError(
                f"Two tables are called {source.name}",
                file=source.files[0],
                fix="give one of phenotypes.files another name there",
            )
    return found


def name_of(path: Path) -> str:
    """What a file of the user's is called where the config gives it no name."""
    return re.sub("[^A-Za-z0-9_-]", "_", path.stem)


def read_header(source: Source) -> Header:
    """The columns of a table, and which of them say who and when."""
    columns: dict[str, None] = {}
    unnamed = 0
    for path in source.files:
        listed = columns_of(path)
        columns |= dict.fromkeys(listed)
        unnamed = max(unnamed, sum(map(is_unnamed, listed)))
    names = list(columns)
    subject = source.subject or _first(names, SUBJECT_COLUMNS)
    session = source.session or _first(names, SESSION_COLUMNS)
    for name in (source.subject, source.session):
        if name is not None and name not in columns:
            raise _no_column(source, name, names)
    if source.kind == "participants":
        subject, session = "participant_id" if "participant_id" in columns else None, None
    if source.kind == "sessions":
        subject, session = None, "session_id" if "session_id" in columns else None
    if (subject is None and source.kind != "sessions") or (
        session is None and source.kind == "sessions"
    ):
        wanted = "session_id" if source.kind == "sessions" else "participant_id"
        raise InputError(
            f"{source.shown} has no column {wanted}",
            file=source.files[0],
            fix="it must be tab-separated, with that column first (BIDS)"
            if source.kind != "file"
            else "name its column of subjects in phenotypes.files: subject",
        )
    labels = tuple(name for name in names if name not in ("", subject, session))
    return Header(labels, subject, session, unnamed)


def read_cells(source: Source, header: Header, columns: Iterable[str]) -> Table:
    """The `columns` of a table, all as text without outer blanks."""
    import pandas as pd

    if source.kind == "participants" and not header.session:
        header = _with_visits(source, header)
    keys = [name for name in (header.subject, header.session) if name is not None]
    wanted = [*keys, *(name for name in columns if name not in keys)]
    parts = []
    for path in source.files:
        part = _read(path, wanted)
        if header.subject is None:
            part.insert(0, "_subject", path.name.removesuffix("_sessions.tsv"))
        parts.append(part)
    cells = pd.concat(parts, ignore_index=True).fillna("")
    hashes = [sha256_file(path) for path in source.files]
    return Table(
        cells[header.subject or "_subject"],
        cells[header.session] if header.session else None,
        cells[list(columns)],
        hashes[0] if len(hashes) == 1 else sha256_json(hashes),
    )


def dictionaries_of(source: Source) -> list[Path]:
    """Where the data dictionary of a table may be: that of all sessions files in the root too."""
    path = source.files[0].with_suffix(".json")
    return [path.parent.parent / "sessions.json", path] if source.kind == "sessions" else [path]


def dictionary_of(source: Source) -> tuple[dict[str, Column], list[str]]:
    """The data dictionary beside a table."""
    columns: dict[str, Column] = {}
    notes: list[str] = []
    for path in dictionaries_of(source):
        own, more = read_dictionary(path)
        columns |= own
        notes += more
    return columns, notes


def _with_visits(source: Source, header: Header) -> Header:
    """A participants.tsv with a row of each visit is read by subject and session."""
    session = _first(list(header.columns), SESSION_COLUMNS)
    if session is None or header.subject is None:
        return header
    keys = _read(source.files[0], [header.subject, session])
    told = not keys[session].isin(["", "n/a"]).any()
    several = keys[header.subject].duplicated().any() and not keys.duplicated().any()
    return replace(header, session=session) if told and several else header


def _first(columns: list[str], names: Iterable[str]) -> str | None:
    by_small = {column.lower(): column for column in reversed(columns)}
    return next((by_small[name] for name in names if name in by_small), None)


def _delimiter(path: Path, line: str) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    return max(",;\t", key=line.count)


def _first_line(path: Path) -> str:
    if path.suffix.lower() not in (".tsv", ".csv", ".txt"):
        raise InputError("A table of labels must be text", file=path, fix=_AS_TEXT)
    try:
        with path.open(encoding="utf-8-sig", newline=None) as handle:
            return handle.readline().rstrip("\n")
    except UnicodeDecodeError:
        raise InputError("The table is not UTF-8 text", file=path, fix=_AS_TEXT) from None


def columns_of(path: Path) -> list[str]:
    """The names in a table's first line."""
    import csv

    line = _first_line(path)
    columns = next(csv.reader([line], delimiter=_delimiter(path, line)), [])
    twice = sorted({name for name in columns if columns.count(name) > 1 and name})
    if twice or not columns:
        what = f"has two columns {twice[0]!r}" if twice else "is empty"
        raise InputError(f"The table {what}", file=path, fix="mend its first line")
    return columns


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    """Columns of a file; rows that are longer or shorter than the header are refused.

    In such a row nobody knows which cell belongs to which column.
    """
    import pyarrow as pa
    from pyarrow import csv

    there = [name for name in columns if name in columns_of(path)]
    delimiter = _delimiter(path, _first_line(path))
    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(use_threads=False),  # so that an error names the row
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                include_columns=there,
                column_types=dict.fromkeys(there, pa.string()),
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        # What else the message holds are cells, which are nobody's business.
        told = re.search(r"(Row #\d+: )?Expected \d+ columns, got \d+", str(error))
        raise InputError(
            f"{path.name} cannot be read: {told[0] if told else 'it is no table of UTF-8 text'}",
            file=path,
            fix="each row must have as many cells as the first line; " + _AS_TEXT,
        ) from None
    return table.to_pandas().apply(lambda cells: cells.str.strip())


def is_unnamed(column: str) -> bool:
    """Whether a column has no name, or the one that pandas gives to such a column (an index)."""
    return not column or bool(re.fullmatch(r"Unnamed: \d+(\.\d+)?", column))


def _no_column(source: Source, name: str, known: Iterable[str]) -> InputError:
    listed = list(known)
    more = ", ..." if len(listed) > 20 else ""
    return InputError(
        f"{source.shown} has no column {name!r}",
        file=source.files[0],
        fix=f"choose of {', '.join(listed[:20])}{more}",
    )
