"""The ledger of a stratified draw: who has once been drawn never moves.

A draw that is stratified depends on who else is there. So that a cohort can grow all the same,
`brainlm cohort` writes down whom it drew into which split, where it cut the numeric labels, and
with which options; later draws start from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from .split_table import torn_families
from .subjects import SPLITS, Value, some

_COLUMNS = ["subject", "family", "split"]
_OPTIONS = ("salt", "train", "val", "stratify", "bins", "family")
_DELETE = "delete it to draw anew (this moves subjects between splits)"


@dataclass(frozen=True)
class Ledger:
    """What has been drawn."""

    options: dict[str, Any]  # those of the draw
    edges: dict[str, list[float]]  # label -> where it is cut
    splits: dict[str, str] = field(default_factory=dict)  # subject -> split
    families: dict[str, str | None] = field(default_factory=dict)  # subject -> family

    def text(self) -> str:
        """The file: what it was drawn with as a comment, then one subject a line."""
        about = json.dumps({"drawn_with": self.options, "edges": self.edges}, sort_keys=True)
        lines = [f"# {about}", "\t".join(_COLUMNS)]
        lines += [
            f"{subject}\t{self.families[subject] or 'n/a'}\t{self.splits[subject]}"
            for subject in sorted(self.splits)
        ]
        return "\n".join(lines) + "\n"

    def with_drawn(self, splits: Mapping[str, str], families: Mapping[str, str | None]) -> Ledger:
        """Add the newly drawn, and all families as they are known by now."""
        return replace(
            self, splits={**self.splits, **splits}, families={**self.families, **families}
        )

    def check_kind(self, name: str, values: Iterable[Value], path: Path) -> None:
        """Refuse a label that was numbers when it was cut into bins and now is text, or so."""
        if any(
            (name in self.edges) is isinstance(value, str) for value in values if value is not None
        ):
            was, now = ("numbers", "text") if name in self.edges else ("text", "numbers")
            raise InputError(
                f"The label {name} held {was} when the ledger of splits was drawn, now it is {now}",
                file=path,
                fix=f"mend participants.tsv and onboard again, or {_DELETE}",
            )


def drawn_with(split: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide a draw, of the config's section `split`."""
    return {key: list(split[key]) if key == "stratify" else split[key] for key in _OPTIONS}


def read_ledger(path: Path, split: Mapping[str, Any]) -> Ledger | None:
    """The ledger, refused if it was drawn with other options; None where there is none yet."""
    try:
        first, header, *lines = path.read_text(encoding="utf-8").splitlines()
        about = json.loads(first.removeprefix("# "))
        options, edges = about["drawn_with"], about["edges"]
        if header.split("\t") != _COLUMNS:
            raise ValueError
        rows = [(subject, family, split) for subject, family, split in map(_cells, lines)]
        splits = {subject: split for subject, _, split in rows}
        families = {subject: None if name == "n/a" else name for subject, name, _ in rows}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise InputError(
            "The ledger of splits cannot be read", file=path, fix=f"restore it, or {_DELETE}"
        ) from None
    unknown = sorted(set(splits.values()) - set(SPLITS))
    if unknown or len(splits) < len(rows):
        why = f"unknown splits: {some(unknown)}" if unknown else "a subject twice"
        raise InputError(
            f"The ledger of splits holds {why}", file=path, fix=f"restore it, or {_DELETE}"
        )
    now = drawn_with(split)
    if changed := [key for key in _OPTIONS if now[key] != options.get(key)]:
        told = ", ".join(f"split.{key} was {json.dumps(options.get(key))}" for key in changed)
        raise InputError(
            f"The ledger of splits was drawn with other options: {told}",
            file=path,
            fix=f"set them back, or {_DELETE}",
        )
    return Ledger(options, edges, splits, families)


def _cells(line: str) -> list[str]:
    return line.split("\t")


def check_families_are_whole(
    ledger: Ledger, families: Mapping[str, str | None], path: Path
) -> None:
    """Refuse a ledger that now tears a family apart: its labels have changed since the draw."""
    known = {**ledger.families, **{s: f for s, f in families.items() if s in ledger.splits}}
    if torn := torn_families(ledger.splits, known):
        raise InputError(
            f"{len(torn)} families are in more than one split of the ledger, e.g. that of "
            f"sub-{torn[0]}: their labels have changed since they were drawn",
            file=path,
            fix=f"set the labels back and onboard again, or {_DELETE}",
        )
