"""The user's own list of recordings to leave out: `config/exclude.tsv`, made by hand or by the
page of quality control.
"""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path

from ..errors import InputError

#: The stage that `cohort/exclusions.tsv` names for a recording that a person left out.
BY_HAND = "by hand"

_FIX = "give each recording one line, tab-separated, below the heading recording_id, reason"


def read_exclude_list(path: Path, known: Collection[str]) -> dict[str, str]:
    """recording_id -> reason; empty where there is no such file. `known` are all recordings.

    A name that nobody has, e.g. with a typing error, is refused: the recording that was meant
    would stay in.
    """
    if not path.exists():
        return {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError("The exclusion list is not text in UTF-8", file=path, fix=_FIX) from None
    # A quotation mark is one like any other: an open one would swallow the lines that follow.
    table = csv.DictReader(
        (line for line in lines if line.strip()), delimiter="\t", quoting=csv.QUOTE_NONE
    )
    rows = list(table)
    if table.fieldnames and "recording_id" not in table.fieldnames:
        raise InputError("The exclusion list has no column recording_id", file=path, fix=_FIX)
    found: dict[str, str] = {}
    for row in rows:
        name = (row["recording_id"] or "").strip()
        if name in found:
            raise InputError(f"The exclusion list holds {name} twice", file=path, fix=_FIX)
        found[name] = " ".join((row.get("reason") or "").split()) or "no reason given"
    strangers = [name for name in found if name not in known]
    if strangers:
        told = ", ".join(strangers[:5]) + (" ..." if len(strangers) > 5 else "")
        raise InputError(
            f"The exclusion list names {len(strangers)} recordings that this study does not have: "
            f"{told}",
            file=path,
            fix="take names as in onboarding/recordings.tsv, or delete these lines",
        )
    return found
