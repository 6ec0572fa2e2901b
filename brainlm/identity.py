"""Is this file the recording's own? Names are compared, so it costs nothing.

What a job computes is named after its recording, so a row of the recordings table that points to
another's file would put one person's data under another's name, and nothing later could tell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import InputError
from .layout import entities_of

#: Layouts that name a run's first folder after its subject, not its files after BIDS entities.
_BY_FOLDER = ("hcp", "ukb")
#: Layouts in which the user's own list may say which file is whose.
_ANY_NAME = ("tables",)


def check_row(row: Mapping[str, Any], table: Path) -> None:
    """Refuse a row of the recordings table whose files are another recording's, by their names."""
    name = str(row["recording_id"])
    for what, path, fits in _files(row, entities_of(name)):
        if not fits:
            raise InputError(
                f"The recordings table gives {name} the {what} of another recording: {path}",
                file=table,
                fix="make it anew with `brainlm onboard`; never edit it by hand",
            )


def _files(row: Mapping[str, Any], own: dict[str, str]) -> Iterator[tuple[str, str, bool]]:
    """What each file of a row is, its path, and whether its name fits the recording's entities."""
    if row["layout"] is not None:
        for role, path in json.loads(row["ready"] or "{}").items():
            yield role, path, _ready_fits(path, own, row["layout"])
        return
    yield "BOLD file", row["bold"], _stem(row["bold"]) == f"{row['recording_id']}_bold"
    if row["t1w"]:
        fits = _of_subject(row["t1w"], own) and _stem(row["t1w"]) == f"{row['anat_id']}_T1w"
        yield "T1w image", row["t1w"], fits
    for path in json.loads(row["fmap"] or "[]"):
        yield "field map", path, _of_subject(path, own)


def _stem(path: str) -> str:
    return PurePosixPath(path).name.removesuffix(".gz").removesuffix(".nii")


def _of_subject(path: str, own: Mapping[str, str]) -> bool:
    """Whether the last part of the path that names a subject names the recording's."""
    named = [part for part in PurePosixPath(path).parts if part.startswith("sub-")]
    return not named or named[-1].partition("_")[0] == f"sub-{own['sub']}"


def _ready_fits(path: str, own: Mapping[str, str], layout: str) -> bool:
    """The same of another pipeline's file."""
    if layout in _ANY_NAME:
        return True
    if layout in _BY_FOLDER:
        return any(
            own["sub"] in (part.partition("_")[0], re.sub("[^A-Za-z0-9]", "", part))
            for part in PurePosixPath(path).parts
        )
    pairs = (part.partition("-") for part in PurePosixPath(path).name.split("_"))
    said = {key: value for key, dash, value in pairs if dash and key in own}
    return _of_subject(path, own) and all(own[key] == value for key, value in said.items())
