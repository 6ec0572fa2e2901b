"""Who is who in the Arrow layout of BrainLM's authors: names, labels and splits by subject."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import DataError
from ...layout import entities_of
from .tables import IDENTITY
from .ukb import identifier_of

_ENDINGS = re.compile(r"\.(dat|txt|csv|tsv|npy|nii|gz)$")
#: Their names of splits -> ours; others (`all`, one folder without a name) split nothing.
SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
#: Where a subject stands in several splits, it goes where it does least harm.
_MOST_HELD_OUT = ("test", "val", "train")
#: In participants.tsv, the split of theirs.
UPSTREAM_SPLIT = "upstream_split"


@dataclass
class People:
    """What the rows tell of the subjects, gathered as they are read."""

    named_by_file: int = 0
    subjects: dict[str, str] = field(default_factory=dict)  # label -> as it was written
    splits: dict[str, set[str]] = field(default_factory=dict)  # label -> splits of theirs
    labels: dict[str, dict[str, Any]] = field(default_factory=dict)  # label -> name -> value
    contradictory: set[str] = field(default_factory=set)  # names of labels
    _seen: dict[str, int] = field(default_factory=dict)

    def add(self, filename: str, patient: str, split: str, labels: Mapping[str, Any]) -> str:
        """Take a row; returns the recording_id that it gets."""
        identifier = self._named(filename, patient)
        subject = entities_of(identifier)["sub"]
        self.splits.setdefault(subject, set()).add(split)
        known = self.labels.setdefault(subject, {})
        for name, value in labels.items():
            plain = label_name(name)
            if missing(value):
                known.setdefault(plain, None)
            elif known.get(plain) is None:
                known[plain] = value
            elif known[plain] != value:
                self.contradictory.add(plain)
        again = self._seen[identifier] = self._seen.get(identifier, 0) + 1
        if again == 1:
            return identifier
        if "_run-" in identifier:
            raise DataError(
                f"Two rows are of {identifier}",
                fix="leave one of them out: the same recording may not count twice",
            )
        return f"{identifier}_run-{again}"

    def _named(self, filename: str, patient: str) -> str:
        stem = filename.rpartition("/")[2]
        while _ENDINGS.search(stem):
            stem = _ENDINGS.sub("", stem)
        of_file = _entities_in(stem)
        if not patient:
            self.named_by_file += 1
        written: str = patient or of_file.get("sub", stem)
        subject = re.sub("[^A-Za-z0-9]", "", written.removeprefix("sub-"))
        if not subject:
            raise DataError(
                "A row has neither a Patient ID nor a Filename: whose it is cannot be told"
            )
        if self.subjects.setdefault(subject, written) != written:
            raise DataError(
                f"{self.subjects[subject]!r} and {written!r} would both be sub-{subject}",
                fix="rename one of them in the dataset: subjects are letters and digits",
            )
        entities = {"task": "rest", **of_file, "sub": subject}
        return "_".join(f"{key}-{entities[key]}" for key in IDENTITY if key in entities)

    def split_table(self) -> dict[str, str] | None:
        """Subject -> split as theirs; None where they do not split into train, val and test."""
        known = {SPLITS.get(split) for splits in self.splits.values() for split in splits}
        if known != set(SPLITS.values()):
            return None
        return {
            subject: next(
                split for split in _MOST_HELD_OUT if split in {SPLITS[name] for name in names}
            )
            for subject, names in sorted(self.splits.items())
        }

    def in_several_splits(self) -> list[str]:
        """Subjects with recordings in more than one split of theirs: leakage."""
        return sorted(subject for subject, names in self.splits.items() if len(names) > 1)

    def participants(self) -> tuple[list[str], list[list[Any]]]:
        """Columns and rows of participants.tsv, with the split of theirs; None where missing.

        A label that differs between recordings of a subject is of no subject: it is left out.
        """
        named: Iterable[str] = (name for known in self.labels.values() for name in known)
        names = [name for name in dict.fromkeys(named) if name not in self.contradictory]
        header = ["participant_id", *names]
        rows = [
            [f"sub-{subject}", *(known.get(name) for name in names)]
            for subject, known in sorted(self.labels.items())
        ]
        if any(split for splits in self.splits.values() for split in splits):
            header.append(UPSTREAM_SPLIT)
            for row in rows:
                row.append("+".join(sorted(self.splits[str(row[0]).removeprefix("sub-")])))
        return header, rows


def missing(value: Any) -> bool:
    """Whether a label says nothing."""
    return value is None or value != value or str(value).strip() == ""


def label_name(column: str) -> str:
    """A column's name as a label's: letters and digits, e.g. Age.At.MHQ -> AgeAtMHQ."""
    return re.sub("[^A-Za-z0-9]", "", column)


def _entities_in(stem: str) -> dict[str, str]:
    """What BIDS entities or a name of UK Biobank say of the recording; empty for other names."""
    identifier = identifier_of(stem)
    parts = (identifier or stem).split("_")
    try:
        return entities_of("_".join(part for part in parts if "-" in part))
    except ValueError:
        return {}
