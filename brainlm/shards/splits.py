"""Train, validation and test, by subject.

A subject's split is decided by a hash of (salt, subject) alone, so that adding or removing
others never moves anybody: a cohort can grow without test subjects leaking into training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import pandas as pd

from ..errors import DataError, InputError

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


def splits_from_table(subjects: Iterable[str], table: pd.DataFrame, source: str) -> dict[str, str]:
    """Subject -> split as the user's `table` (columns `subject` and `split`) says."""
    if not {"subject", "split"} <= set(table.columns):
        raise InputError(
            "The table of splits needs the columns subject and split",
            file=source,
            fix="write a TSV with a header line, one subject a line, split = train, val or test",
        )
    given = table.assign(subject=table["subject"].astype(str).str.removeprefix("sub-"))
    unknown = sorted(set(given["split"].astype(str)) - set(SPLITS))
    if unknown:
        raise InputError(
            f"The table of splits names unknown splits: {', '.join(unknown[:5])}",
            file=source,
            fix="use train, val and test",
        )
    twice = given.groupby("subject")["split"].nunique()
    if (twice > 1).any():
        raise InputError(
            f"The table of splits puts a subject into two: {_some(twice.index[twice > 1])}",
            file=source,
            fix="keep one line for each subject",
        )
    known = dict(zip(given["subject"], given["split"].astype(str), strict=True))
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
