"""`brainlm import-arrow`: recordings out of the Arrow datasets that BrainLM's authors made."""

from __future__ import annotations

import csv
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..wording import counted
from ._console import progress, say, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..bids.ready.upstream import People
    from ..parcellate.arrow_rows import Row


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("import-arrow")(import_arrow)


def import_arrow(
    source: Annotated[
        Path,
        typer.Argument(help="folder of `save_to_disk`, or one that holds train, val and test"),
    ],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="the folder to make")],
    column: Annotated[
        str, typer.Option(help="the column with the recordings, not yet scaled")
    ] = "Raw_Recording",
    tr: Annotated[
        float | None,
        typer.Option(help="repetition time, s: these datasets do not say it", min=0.05),
    ] = None,
) -> None:
    """Take over parcel series from an Arrow dataset in the layout of BrainLM's authors.

    Writes a table (.npy) for each recording with recordings.tsv, participants.tsv of all other
    columns, and splits.tsv if the dataset has train, val and test: a folder for
    `brainlm onboard --engine derivatives`. Subjects are taken from `Patient ID`, and where that is
    empty from the file's name. Columns that are scaled already are taken only when named.
    """
    from ..bids.ready.upstream import People
    from ..errors import InputError
    from ..files import whole_folder

    final = destination.resolve()
    if final.exists():
        raise InputError("It exists already", file=destination, fix="give another folder")
    datasets = _datasets_with(source, column)
    people = People()
    with whole_folder(final) as folder:
        index = _write_recordings(folder, _rows(datasets, column), people, tr)
        _write_tsv(folder / "recordings.tsv", *index)
        _write_tsv(folder / "participants.tsv", *people.participants())
        splits = people.split_table()
        if splits:
            _write_tsv(folder / "splits.tsv", ["subject", "split"], list(splits.items()))
    _tell(people, len(index[1]), splits is not None)
    command = f"brainlm onboard {quote(str(destination))} --study STUDY --engine derivatives"
    command += " --set derivatives.layout=tables"
    if tr is None:
        command += " --set derivatives.tr=SECONDS"
    if splits:
        command += " --set " + quote(f"split.table={final / 'splits.tsv'}")
    say(f"Next:  {command}")


def _datasets_with(source: Path, column: str) -> dict[str, list[Path]]:
    """The datasets that have this column, which holds recordings."""
    from ..errors import InputError
    from ..parcellate.arrow_rows import columns_of, find_datasets, is_scaled

    found = {split: files for split, files in find_datasets(source).items() if files}
    columns = {split: columns_of(files[0]) for split, files in found.items()}
    chosen = {split: files for split, files in found.items() if columns[split].get(column)}
    if not chosen:
        tables = sorted(
            {name for each in columns.values() for name, is_one in each.items() if is_one}
        )
        raw = [name for name in tables if not is_scaled(name)]
        raise InputError(
            f"No dataset here has a column {column!r} of recordings",
            file=source,
            fix=f"--column NAME with one of: {', '.join(raw or tables) or '(none)'}"
            + ("" if raw or not tables else "; all of these are scaled already"),
        )
    if is_scaled(column):
        warn(
            f"{column} is scaled already: to scale it twice is wrong, and some of these columns "
            "are known to be faulty; take the raw recordings wherever there are any"
        )
    for split in found.keys() - chosen.keys():
        say(f"{split}: left out, it has no column {column}")
    return chosen


def _rows(datasets: dict[str, list[Path]], column: str) -> Iterator[Row]:
    from ..parcellate.arrow_rows import rows_of

    for split, files in datasets.items():
        yield from rows_of(files, split, column)


def _write_recordings(
    folder: Path, rows: Iterator[Row], people: People, tr: float | None
) -> tuple[list[str], list[Any]]:
    """A table per recording; returns the head and the lines of recordings.tsv."""
    import numpy as np

    from ..layout import entities_of

    lines = []
    for row in progress(rows, "importing"):
        identifier = people.add(row.filename, row.patient, row.split, row.labels)
        entities = entities_of(identifier)
        name = f"{identifier}_timeseries.npy"
        np.save(folder / name, row.values)
        lines.append(
            [name, entities["sub"], *(entities.get(key) for key in ("ses", "task", "run")), tr]
        )
    return ["file", "subject", "session", "task", "run", "tr"], lines


def _write_tsv(path: Path, header: list[str], rows: list[Any]) -> None:
    """Tab-separated, `n/a` where something is missing."""
    from ..bids.ready.upstream import missing

    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow("n/a" if missing(value) else value for value in row)


def _tell(people: People, n_recordings: int, split: bool) -> None:
    say(f"{counted(n_recordings, 'recording')} of {counted(len(people.subjects), 'subject')}")
    if people.named_by_file:
        warn(
            f"{people.named_by_file} recordings have no Patient ID: their subjects are named by "
            "the files. Check that no person has two names"
        )
    if several := people.in_several_splits():
        warn(
            f"{len(several)} subjects are in several splits of the dataset, e.g. sub-{several[0]}: "
            "splits.tsv has each once, in test before val before train"
        )
    if people.contradictory:
        names = ", ".join(sorted(people.contradictory))
        warn(f"left out, since they differ between recordings of one subject: {names}")
    if not split:
        say("The dataset is not split into train, val and test: the cohort will be")
