"""Train, validation and test, by subject.

A subject's split is decided by a hash of (salt, subject) alone, so that adding or removing
others never moves anybody: a cohort can grow without test subjects leaking into training.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, InputError

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "val", "test")
_MOST_SALTS_TRIED = 1000


def uniform_of(*parts: object) -> float:
    """A number in [0, 1) decided by `parts` alone (53 bits of a SHA-256)."""
    text = "\0".join(str(part) for part in parts)
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return (number >> 11) / 2**53


def draw_splits(subjects: Iterable[str], *, train: float, val: float, salt: str) -> dict[str, str]:
    """Subject -> split, drawn with the given shares; what is left over is `test`."""
    splits = {}
    for subject in sorted(set(subjects)):
        draw = uniform_of(salt, subject)
        splits[subject] = "train" if draw < train else "val" if draw < train + val else "test"
    return splits


def assign_splits(
    rows: Iterable[Mapping[str, Any]], options: Mapping[str, Any], study: Path
) -> dict[str, str]:
    """Subject -> split of the eligible recordings `rows`, by the config's `split` options.

    Asked when the workflow is parsed and when the cohort is selected: neither quality control nor
    later subjects change the answer. `study` is where `split.table` lies.
    """
    subjects = [str(row["subject"]) for row in rows]
    if options["table"]:
        path = study / options["table"]
        return splits_from_table(subjects, read_split_table(path), str(options["table"]))
    return draw_splits(subjects, **{key: options[key] for key in ("train", "val", "salt")})


def read_split_table(path: Path) -> list[dict[str, str]]:
    """The user's own table of splits (TSV), one dictionary a line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            return list(csv.DictReader(handle, delimiter="\t"))
    except FileNotFoundError:
        raise InputError(
            "The table of splits does not exist",
            file=path,
            fix="split.table is relative to the study folder; leave it out to draw",
        ) from None


def splits_from_table(
    subjects: Iterable[str], table: Iterable[Mapping[str, str]], source: str
) -> dict[str, str]:
    """Subject -> split as the user's `table` (columns `subject` and `split`) says."""
    table = list(table)
    if not table or not {"subject", "split"} <= set(table[0]):
        raise InputError(
            "The table of splits needs the columns subject and split",
            file=source,
            fix="write a TSV with a header line, one subject a line, split = train, val or test",
        )
    pairs = {(row["subject"].removeprefix("sub-"), row["split"]) for row in table}
    unknown = sorted({split for _, split in pairs} - set(SPLITS))
    if unknown:
        raise InputError(
            f"The table of splits names unknown splits: {', '.join(unknown[:5])}",
            file=source,
            fix="use train, val and test",
        )
    known = dict(sorted(pairs))
    if len(known) < len(pairs):
        twice = sorted(
            subject for subject in known if len({s for n, s in pairs if n == subject}) > 1
        )
        raise InputError(
            f"The table of splits puts a subject into two: {_some(twice)}",
            file=source,
            fix="keep one line for each subject",
        )
    wanted = {subject: subject.removeprefix("sub-") for subject in sorted(set(subjects))}
    missing = [subject for subject, label in wanted.items() if label not in known]
    if missing:
        raise InputError(
            f"The table of splits lacks {len(missing)} subjects of the cohort: {_some(missing)}",
            file=source,
            fix="add a line for each of them",
        )
    return {subject: known[label] for subject, label in wanted.items()}


def check_no_split_is_empty(splits: Mapping[str, str], fix: str) -> None:
    """Refuse a cohort in which nobody is left to train on, validate on or test on."""
    empty = [split for split in SPLITS if split not in splits.values()]
    if not empty:
        return
    raise DataError(
        f"No subject of {len(splits)} is in the split{'s' if len(empty) > 1 else ''} "
        f"{' and '.join(empty)}",
        fix=fix,
    )


def working_salt(subjects: Iterable[str], *, train: float, val: float, salt: str) -> str | None:
    """The first of `salt`-1, `salt`-2, ... that leaves no split empty, to put into a fix."""
    subjects = sorted(set(subjects))
    for number in range(1, _MOST_SALTS_TRIED + 1):
        candidate = f"{salt}-{number}"
        drawn = draw_splits(subjects, train=train, val=val, salt=candidate)
        if set(drawn.values()) == set(SPLITS):
            return candidate
    return None


def check_leakage(table: pd.DataFrame, source: object) -> None:
    """Refuse a table (columns `subject`, `split`) with a subject in two splits."""
    counts = table.groupby("subject")["split"].nunique()
    if (counts > 1).any():
        raise DataError(
            f"Leakage: {int((counts > 1).sum())} subjects are in more than one split, "
            f"e.g. {_some(counts.index[counts > 1])}",
            file=str(source),
            fix="make the cohort and the shards anew; never edit them by hand",
        )


def _some(names: Iterable[str], most: int = 5) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
