"""The user's own table of splits."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import InputError
from .subjects import SPLITS, some


def read_split_table(path: Path) -> list[dict[str, str]]:
    """The table (TSV), one dictionary a line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            return list(csv.DictReader(handle, delimiter="\t"))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"The table of splits is not text in UTF-8 ({error})",
            file=path,
            fix="save it as tab-separated text in UTF-8",
        ) from None
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(
            "The table of splits does not exist",
            file=path,
            fix="split.table is relative to the study folder; leave it out to draw",
        ) from None


def splits_from_table(
    families: Mapping[str, str | None], table: Iterable[Mapping[str, str | None]], source: str
) -> dict[str, str]:
    """Subject -> split as `table` (columns `subject` and `split`) says.

    `families` are those of the cohort's subjects (None: of none). A table may hold more subjects.
    """
    table = list(table)
    if not table or not {"subject", "split"} <= set(table[0]):
        raise InputError(
            "The table of splits needs the columns subject and split",
            file=source,
            fix="write a TSV with a header line, one subject a line, split = train, val or test",
        )
    pairs = {((row["subject"] or "").removeprefix("sub-"), row["split"] or "") for row in table}
    unknown = sorted({split for _, split in pairs} - set(SPLITS))
    if unknown:
        raise InputError(
            f"The table of splits names unknown splits: {some(repr(name) for name in unknown)}",
            file=source,
            fix="use train, val and test",
        )
    known = dict(sorted(pairs))
    if len(known) < len(pairs):
        counts = Counter(subject for subject, _ in pairs)
        twice = sorted(name for name, count in counts.items() if count > 1)
        raise InputError(
            f"The table of splits puts a subject into two: {some(twice)}",
            file=source,
            fix="keep one line for each subject",
        )
    wanted = {subject: subject.removeprefix("sub-") for subject in sorted(families)}
    missing = [subject for subject, label in wanted.items() if label not in known]
    if missing:
        raise InputError(
            f"The table of splits lacks {len(missing)} subjects of the cohort: {some(missing)}",
            file=source,
            fix="add a line for each of them",
        )
    splits = {subject: known[label] for subject, label in wanted.items()}
    if torn := torn_families(splits, families):
        raise InputError(
            f"The table of splits puts {len(torn)} families into more than one split, e.g. that "
            f"of sub-{torn[0]}",
            file=source,
            fix="give all members of a family one split, or take split.family out",
        )
    return splits


def torn_families(splits: Mapping[str, str], families: Mapping[str, str | None]) -> list[str]:
    """One subject of each family that is in more than one split."""
    first: dict[str, str] = {}
    torn: dict[str, str] = {}
    for subject, split in splits.items():
        family = families[subject]
        if family is not None and splits[first.setdefault(family, subject)] != split:
            torn.setdefault(family, subject)
    return sorted(torn.values())
