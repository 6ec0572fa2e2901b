"""The labels of a dataset file that the tables at hand have."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..phenotypes.tables import columns_of, name_of
from .model import Dataset


def labels_here(
    dataset: Dataset,
    root: Path,
    further: Iterable[Path] = (),
    participants: Path | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Entries of phenotypes.labels for what is there, and the names of labels that are not.

    Looked through are participants.tsv and phenotype/*.tsv of the dataset and `further` tables of
    the user's; `participants` takes the place of participants.tsv. What a site's export calls a
    column differs: the first name that is found counts.
    """
    tables = _tables(root, further, participants)
    found, missing = [], []
    for label in dataset.labels:
        place = next(
            (
                (table, column)
                for column in label.columns
                for table, columns in tables.items()
                if column in columns
            ),
            None,
        )
        if place is None:
            missing.append(label.name)
        else:
            found.append(label.rule(*place))
    return found, missing


def _tables(root: Path, further: Iterable[Path], participants: Path | None) -> dict[str, set[str]]:
    """Columns of each table, by the name that phenotypes.labels has for it."""
    paths = {"participants": participants or root / "participants.tsv"}
    paths |= {path.stem: path for path in sorted((root / "phenotype").glob("*.tsv"))}
    paths |= {name_of(path): path for path in further}
    return {name: set(columns_of(path)) for name, path in paths.items() if path.is_file()}
