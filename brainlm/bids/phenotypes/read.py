"""The labels of all recordings, from all tables of a dataset."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...config import Phenotypes
from ...errors import about_file
from ...recordings import LABEL_PREFIX
from ..onboarded import SeenTables, see_tables
from .dictionary import Column
from .join import find_people, one_of_each, rows_of
from .summary import LabelSummary, summarise
from .suspicions import suspicions
from .tables import (
    Source,
    Table,
    dictionaries_of,
    dictionary_of,
    find_sources,
    read_cells,
    read_header,
)
from .values import Parsed, parse
from .wanted import Wanted, wanted_labels

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Labelled:
    """The recordings table with its labels, what each is like, and notes."""

    table: pd.DataFrame
    labels: list[LabelSummary]
    notes: list[str]
    seen: SeenTables


@dataclass(frozen=True)
class _Read:
    source: Source
    table: Table
    labels: list[tuple[Wanted, Column, Parsed]]


@dataclass(frozen=True)
class Tables:
    """All labels as the tables have them, not yet of recordings."""

    read: list[_Read]
    notes: list[str]
    seen: SeenTables

    def label(self, recordings: pd.DataFrame) -> Labelled:
        """Add a column `label_<name>` for each label to the recordings table."""
        import pandas as pd

        who = pd.factorize(recordings["subject"])[0]
        columns: dict[str, pd.Series] = {}
        labels: list[LabelSummary] = []
        notes = list(self.notes)
        for one in self.read:
            people = find_people(one.table, one.source, recordings)
            notes += people.notes
            rules = {label.rule.session for label, _, _ in one.labels}
            rows = {rule: rows_of(recordings, people, rule) for rule in rules}
            for label, about, parsed in one.labels:
                by_key = one_of_each(parsed, people)
                values, why = _spread(recordings, by_key, *rows[label.rule.session])
                columns[f"{LABEL_PREFIX}{label.name}"] = values
                told = suspicions(label.name, parsed, about, people.key >= 0)
                labels.append(
                    summarise(
                        label,
                        one.source,
                        one.table.sha256,
                        about,
                        parsed,
                        values,
                        why,
                        who,
                        told,
                    )
                )
        added = pd.DataFrame(columns, index=recordings.index)
        return Labelled(pd.concat([recordings, added], axis="columns"), labels, notes, self.seen)


def read_phenotypes(
    root: Path, study: Path, options: Phenotypes, participants: Path | None = None
) -> Tables:
    """Read the labels of participants.tsv, and those that the options ask for.

    `root` is the dataset, relative paths of the options start at `study`; `participants` is
    participants.tsv where it lies elsewhere. This comes before any image is read, so that a fault
    in the mapping is told at once.
    """
    subjects = {path.name.removeprefix("sub-") for path in root.glob("sub-*") if path.is_dir()}
    sources = find_sources(root, study, options, subjects, participants)
    headers = {source.name: read_header(source) for source in sources}
    wanted, notes = wanted_labels(sources, headers, options)
    used = [source for source in sources if wanted[source.name]]
    # Before the tables are read: what is edited meanwhile differs from what is noted. By the names
    # that the config gives: a link may point at another file by then. (The study may not be there
    # yet, so that its `..` are taken away by name.)
    given = [study / file.path for file in options.files]
    named = {path.resolve(): Path(os.path.normpath(path)) for path in given}
    files = [named.get(path, path) for path in _files(root, used, participants)]
    seen = see_tables(root, study, files, participants)
    read = []
    for source in used:
        asked = list(dict.fromkeys(label.column for label in wanted[source.name]))
        table = read_cells(source, headers[source.name], asked)
        dictionary, more = dictionary_of(source)
        notes += more
        labels = []
        for label in wanted[source.name]:
            about = dictionary.get(label.column, Column())
            with about_file(source.files[0]):
                parsed = parse(table.cells[label.column], about, label.rule, options.missing)
            labels.append((label, about, parsed))
        read.append(_Read(source, table, labels))
    return Tables(read, notes, seen)


def _files(root: Path, used: list[Source], participants: Path | None) -> list[Path]:
    """All files that decide labels: tables, dictionaries, and participants.tsv, there or not."""
    first = participants or root / "participants.tsv"
    files = [first, first.with_suffix(".json")]
    for source in used:
        files += [*source.files, *dictionaries_of(source)]
    return files


def _spread(
    recordings: pd.DataFrame,
    by_key: tuple[pd.Series, pd.Series],
    places: list[int],
    why_no_row: list[str],
) -> tuple[pd.Series, pd.Series]:
    """Values and reasons of each recording, of those by key at its place (-1: none)."""
    import numpy as np
    import pandas as pd

    values, why = by_key
    place = np.asarray(places, dtype=np.intp)
    absent = pd.Series(place < 0, index=recordings.index)
    told = pd.Series(why_no_row, index=recordings.index, dtype=object)
    if not len(values):
        return pd.Series(pd.NA, index=recordings.index, dtype=values.dtype), told
    spread = values.take(place.clip(0)).set_axis(recordings.index).mask(absent)
    return spread, why.take(place.clip(0)).set_axis(recordings.index).mask(absent, told)
