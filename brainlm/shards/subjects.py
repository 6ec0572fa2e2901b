"""What the recordings table says of each subject: family, strata, whether it is external.

Asked at parse time of the workflow, so there is no pandas here: rows are plain dictionaries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import InputError

Row = Mapping[str, Any]
Value = str | float | None

SPLITS = ("train", "val", "test")

#: Columns of the recordings table that go by their own name; the others are labels.
_PLAIN = ("site", "dataset")
_MOST_NAMED = 10


def column_of(name: str) -> str:
    """The recordings table's column of what the config calls `name`."""
    return name if name in _PLAIN else f"label_{name}"


def columns_asked(split: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that the config's section `split` needs besides those of every table."""
    names = [*split["stratify"], *split["external"], *filter(None, [split["family"]])]
    return tuple(sorted({column_of(name) for name in names}))


def values_of(rows: Iterable[Row], name: str, option: str) -> dict[str, Value]:
    """Subject -> its one value of `name`, None where missing; `option` is who asks.

    A row without a value is overruled by another row of the same subject that has one.
    """
    column = column_of(name)
    values: dict[str, Value] = {}
    for row in rows:
        subject, value = row["subject"], row[column]
        known = values.setdefault(subject, value)
        if known is None:
            values[subject] = value
        elif value is not None and value != known:
            raise InputError(
                f"sub-{subject} has different values of {name} in its recordings, and {option} "
                "needs one for each subject",
                file="onboarding/recordings.tsv",
                fix=f"mend the labels and onboard again, or take {name} out of {option}",
            )
    if values and all(value is None for value in values.values()):
        raise InputError(
            f"No eligible recording has a value of {name}, which {option} names",
            file="onboarding/recordings.tsv",
            fix=f"add it to participants.tsv and onboard again, or take it out of {option}",
        )
    return values


def families_of(rows: Iterable[Row], name: str | None) -> dict[str, str | None]:
    """Subject -> its family, None for a subject of none (or where the config names no label)."""
    if name is None:
        return {row["subject"]: None for row in rows}
    values = values_of(rows, name, "split.family")
    return {subject: None if v is None else text_of(v) for subject, v in values.items()}


def external_subjects(
    rows: Iterable[Row],
    external: Mapping[str, Iterable[str]],
    families: Mapping[str, str | None],
) -> frozenset[str]:
    """The subjects with a recording of an external cohort, and all of their families.

    Whoever has a foot in it is wholly out of it: a subject that was scanned here and there
    would else be trained on and tested.
    """
    rows = list(rows)
    subjects = set()
    for name, wanted in external.items():
        column = column_of(name)
        present = {text_of(row[column]) for row in rows if row[column] is not None}
        if unknown := sorted(set(wanted) - present):
            raise InputError(
                f"split.external names {name} {some(unknown)}, which no eligible recording has",
                file="onboarding/recordings.tsv",
                fix=f"its values are: {some(sorted(present), _MOST_NAMED) or '(none)'}",
            )
        chosen = set(wanted)
        subjects |= {
            row["subject"]
            for row in rows
            if row[column] is not None and text_of(row[column]) in chosen
        }
    kin = {families[subject] for subject in subjects} - {None}
    return frozenset(
        subject for subject, family in families.items() if subject in subjects or family in kin
    )


def text_of(value: str | float) -> str:
    """A value as text; numbers without a needless `.0`, as they stood in participants.tsv."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def some(names: Iterable[str], most: int = 5) -> str:
    """The first few of `names`, for a message."""
    names = [str(name) for name in names]
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
