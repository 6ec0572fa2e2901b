"""Train, validation and test, by subject.

Without strata a subject's split is decided by a hash of (salt, subject) alone, or of its family,
so that adding or removing others never moves anybody: a cohort can grow without test subjects
leaking into training. A stratified draw keeps that promise by a ledger.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..layout import Study
from .split_ledger import Ledger, check_families_are_whole, drawn_with, read_ledger
from .split_table import read_split_table, splits_from_table
from .strata import bin_edges, fill_strata, strata_of
from .subjects import SPLITS as SPLITS
from .subjects import Row, external_subjects, families_of, some, values_of

if TYPE_CHECKING:
    import pandas as pd

_MOST_SALTS_TRIED = 1000


def uniform_of(*parts: object) -> float:
    """A number in [0, 1) decided by `parts` alone (53 bits of a SHA-256)."""
    text = "\0".join(str(part) for part in parts)
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return (number >> 11) / 2**53


@dataclass(frozen=True)
class Assignment:
    """Who is in which split, before any quality control."""

    splits: dict[str, str]  # subject -> split
    families: dict[str, str | None]  # subject -> family
    external: frozenset[str] = frozenset()  # subjects that are wholly for test
    ledger: Ledger | None = None  # what to keep of a stratified draw


def assign(rows: Iterable[Row], options: Mapping[str, Any], study: Path) -> Assignment:
    """Assign the subjects of the eligible recordings `rows`, by the config's `split` options.

    In this order: the user's table; external cohorts; the ledger of a stratified draw; the draw.
    Asked when the workflow is parsed and when the cohort is selected, with equal answers: neither
    quality control nor later subjects change them. `study` is where the table and ledger lie.
    """
    rows = list(rows)
    families = families_of(rows, options["family"])
    if options["table"]:
        table = read_split_table(study / options["table"])
        return Assignment(splits_from_table(families, table, str(options["table"])), families)
    external = external_subjects(rows, options["external"], families)
    drawn = {subject: fam for subject, fam in families.items() if subject not in external}
    splits = dict.fromkeys(sorted(external), "test")
    if not options["stratify"]:
        splits |= draw_splits(drawn, **{key: options[key] for key in ("train", "val", "salt")})
        return Assignment(splits, families, external)
    ledger = _draw_in_strata(rows, drawn, options, Study(study).path("split_ledger"))
    splits |= {subject: ledger.splits[subject] for subject in drawn}
    return Assignment(splits, families, external, ledger)


def assign_splits(rows: Iterable[Row], options: Mapping[str, Any], study: Path) -> dict[str, str]:
    """Subject -> split: see `assign`."""
    return assign(rows, options, study).splits


def draw_splits(
    families: Mapping[str, str | None], *, train: float, val: float, salt: str
) -> dict[str, str]:
    """Subject -> split, drawn with the given shares; what is left over is `test`.

    `families` maps each subject to its family (None: of none), which is drawn as one.
    """
    splits = {}
    for subject in sorted(families):
        draw = _hash_of_group(_group_of(subject, families[subject]), salt)
        splits[subject] = "train" if draw < train else "val" if draw < train + val else "test"
    return splits


def _draw_in_strata(
    rows: list[Row], families: Mapping[str, str | None], options: Mapping[str, Any], path: Path
) -> Ledger:
    """The ledger at `path`, if there is one, and who it lacks of the subjects in `families`."""
    ledger = read_ledger(path, options)
    if ledger is not None:
        check_families_are_whole(ledger, families, path)
        if families.keys() <= ledger.splits.keys():  # as when a drawn cohort is parsed again
            return ledger.with_drawn({}, families)
    rows = [row for row in rows if row["subject"] in families]
    labels = {name: values_of(rows, name, "split.stratify") for name in options["stratify"]}
    if ledger is None:
        found = {name: bin_edges(labels[name].values(), options["bins"]) for name in labels}
        edges = {name: cuts for name, cuts in found.items() if cuts is not None}
        ledger = Ledger(drawn_with(options), edges)
    for name, values in labels.items():
        ledger.check_kind(name, values.values(), path)
    strata = strata_of(labels, ledger.edges)
    groups = {subject: _group_of(subject, families[subject]) for subject in sorted(families)}
    # Siblings may differ in their strata: a family counts in that of its first member.
    first = {groups[subject]: subject for subject in reversed(groups)}
    # Who has left the cohort may have been trained on: a family follows its earlier members.
    fixed = {_group_of(s, ledger.families[s]): split for s, split in ledger.splits.items()}
    fixed |= {groups[s]: split for s, split in ledger.splits.items() if s in groups}
    salt = options["salt"]
    drawn = fill_strata(
        Counter(groups.values()),
        {group: strata[subject] for group, subject in first.items()},
        fixed,
        _shares(options),
        lambda group: _hash_of_group(group, salt),
    )
    splits = {subject: drawn[group] for subject, group in groups.items()}
    return ledger.with_drawn(splits, families)


def _shares(options: Mapping[str, Any]) -> dict[str, float]:
    train, val = options["train"], options["val"]
    return {"train": train, "val": val, "test": 1 - train - val}


def _group_of(subject: str, family: str | None) -> tuple[str, ...]:
    """What is drawn as one: a family, or a subject of none."""
    return (subject,) if family is None else ("family", family)


def _hash_of_group(group: tuple[str, ...], salt: str) -> float:
    return uniform_of(salt, *group)


def check_no_split_is_empty(
    splits: Mapping[str, str], fix: str, needed: Iterable[str] = SPLITS
) -> None:
    """Refuse a cohort in which nobody is left in one of the `needed` splits."""
    empty = [split for split in needed if split not in splits.values()]
    if not empty:
        return
    raise DataError(
        f"No subject of {len(splits)} is in the split{'s' if len(empty) > 1 else ''} "
        f"{' and '.join(empty)}",
        fix=fix,
    )


def working_salt(
    families: Mapping[str, str | None],
    needed: Iterable[str],
    *,
    train: float,
    val: float,
    salt: str,
) -> str | None:
    """The first of `salt`-1, `salt`-2, ... that leaves no `needed` split empty, for a fix."""
    needed = set(needed)
    if needed - {split for split, share in _shares({"train": train, "val": val}).items() if share}:
        return None
    for number in range(1, _MOST_SALTS_TRIED + 1):
        candidate = f"{salt}-{number}"
        drawn = draw_splits(families, train=train, val=val, salt=candidate)
        if needed <= set(drawn.values()):
            return candidate
    return None


def check_leakage(table: pd.DataFrame, source: object) -> None:
    """Refuse a table with a subject, or a family, in two splits.

    Its columns are `subject` and `split`, and `family` where families are known (missing: of
    none). Whoever reads or writes data of more than one split asks here first.
    """
    for column in ("subject", "family"):
        if column not in table.columns:
            continue
        torn = in_two_splits(table, column)
        if len(torn):
            what = "subjects" if column == "subject" else "families"
            example = (
                some(torn)
                if column == "subject"
                else "one of " + some(table.loc[table["family"] == torn[0], "subject"].unique())
            )
            raise DataError(
                f"Leakage: {len(torn)} {what} are in more than one split, e.g. {example}",
                file=str(source),
                fix="make the cohort and the shards anew; never edit them by hand",
            )


def in_two_splits(table: pd.DataFrame, column: str) -> list[str]:
    """The values of `column` that stand in more than one split."""
    pairs = table[[column, "split"]].dropna(subset=column).drop_duplicates()
    return [str(name) for name in pairs.loc[pairs[column].duplicated(), column].unique()]
