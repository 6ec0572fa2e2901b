"""Which columns of which tables become labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ...config import Label, Phenotypes
from ...errors import InputError
from .tables import Header, Source, is_unnamed

#: A column of participants.tsv that is a column of the recordings table by its own name.
SITE = "site"
#: How a column that no mapping names is read.
PLAIN = Label(name="plain")


@dataclass(frozen=True)
class Wanted:
    """A label that is to be made."""

    name: str
    column: str
    rule: Label


def wanted_labels(
    sources: Iterable[Source], headers: dict[str, Header], options: Phenotypes
) -> tuple[dict[str, list[Wanted]], list[str]]:
    """The labels of each table, and notes on tables of which nothing is taken.

    All columns of participants.tsv are labels by their own names. Of other tables the config
    names what to take; a file that it lists is taken as a whole unless it names parts of it.
    """
    sources = list(sources)
    _check_named(sources, headers, options)
    mapped = {label.name for label in options.labels}
    taken: dict[str, list[Wanted]] = {}
    left, passed = [], []
    for source in sources:
        header = headers[source.name]
        own = [
            Wanted(label.name, label.column or label.name, label)
            for label in options.labels
            if label.table == source.name
        ]
        plain = [
            Wanted(name, column, PLAIN)
            for column in _columns_taken(source, header, options, bool(own))
            if not is_unnamed(column) or _is_named(source, column, options)
            if (name := _label_name(source, column)) not in mapped
        ]
        taken[source.name] = own + plain
        if taken[source.name] and header.unnamed:
            passed.append(
                f"{source.shown}: {header.unnamed} columns without a name (a saved index?) are "
                "passed over unless phenotypes.labels or .tables name them"
            )
        if not taken[source.name]:
            left.append(f"{source.name} ({len(header.columns)} columns)")
    names = [label.name for labels in taken.values() for label in labels]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"Two columns would both be the label {twice[0]}",
            fix="name one of them in phenotypes.labels: name, table, column",
        )
    if not left:
        return taken, passed
    listed = ", ".join(left[:5]) + (", ..." if len(left) > 5 else "")
    told = f"no labels are taken of {listed}: phenotypes.tables or .labels names them"
    return taken, [*passed, told]


def _label_name(source: Source, column: str) -> str:
    return column if source.kind == "participants" else f"{source.name}_{column}"


def _columns_taken(source: Source, header: Header, options: Phenotypes, named: bool) -> list[str]:
    if source.kind == "participants":
        return [column for column in header.columns if column != SITE]
    patterns = [pattern for pattern in options.tables if _is_about(pattern, source.name)]
    if patterns:
        columns = [c for c in header.columns if any(_takes(p, source.name, c) for p in patterns)]
        whole = any("." not in pattern for pattern in patterns)
    else:
        whole = source.kind == "file" and not named
        columns = list(header.columns) if whole else []
    if whole and len(columns) > options.most_columns:
        raise InputError(
            f"{source.shown} has {len(columns)} columns, which would all be labels",
            file=source.files[0],
            fix=f"name those that you need: phenotypes.tables: ['{source.name}.COLUMN'] (with * "
            "for any letters) or phenotypes.labels; or raise phenotypes.most_columns",
        )
    return columns


def _is_named(source: Source, column: str, options: Phenotypes) -> bool:
    """Whether a pattern means this very column, and not only any."""
    named = [p for p in options.tables if p.partition(".")[2].startswith("Unnamed")]
    return any(_takes(pattern, source.name, column) for pattern in named)


def _is_about(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern.partition(".")[0])


def _takes(pattern: str, name: str, column: str) -> bool:
    table, dot, columns = pattern.partition(".")
    return fnmatchcase(name, table) and (not dot or fnmatchcase(column, columns))


def _check_named(sources: list[Source], headers: dict[str, Header], options: Phenotypes) -> None:
    """Refuse a mapping or a pattern of a table or column that is not there."""
    known = ", ".join(source.name for source in sources) or "(none)"
    for pattern in options.tables:
        columns = [(s.name, column) for s in sources for column in headers[s.name].columns]
        if not any(_takes(pattern, name, column) for name, column in columns):
            raise InputError(
                f"phenotypes.tables: no table or column fits {pattern!r}",
                fix=f"the tables are {known}",
            )
    for label in options.labels:
        if label.table not in headers:
            raise InputError(
                f"The label {label.name} is to be read from a table {label.table!r}, which is "
                "not there",
                fix=f"say `table: NAME` with it in phenotypes.labels; the tables are {known}",
            )
        columns_there = headers[label.table].columns
        if (label.column or label.name) not in columns_there:
            more = ", ..." if len(columns_there) > 20 else ""
            raise InputError(
                f"The label {label.name}: the table {label.table} has no column "
                f"{label.column or label.name!r}",
                fix=f"its columns are {', '.join(columns_there[:20])}{more}",
            )
