"""File names of BIDS derivatives, taken apart and grouped by the run that they belong to."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...recordings import RAW_ENTITIES

_EXTENSIONS = (".dtseries.nii", ".nii.gz", ".nii", ".tsv", ".csv")


@dataclass(frozen=True)
class Derived:
    """A file of a BIDS derivative dataset."""

    path: str  # relative to the dataset, with forward slashes
    recording_id: str  # the entities that a raw run has
    further: dict[str, str]  # the others: space, res, desc, ...
    suffix: str
    extension: str

    def has(self, suffix: str, *extensions: str, **further: str | None) -> bool:
        """Whether the file is of that kind; `desc=None` asks for a name without that entity."""
        return (
            self.suffix == suffix
            and self.extension in extensions
            and all(self.further.get(key) == value for key, value in further.items())
        )


def parse_name(path: str) -> Derived | None:
    """The parts of a file's name; None where it is not made of them."""
    name = path.rpartition("/")[2]
    extension = next((end for end in _EXTENSIONS if name.endswith(end)), None)
    if extension is None:
        return None
    *parts, suffix = name.removesuffix(extension).split("_")
    pairs = [part.partition("-") for part in parts]
    if not parts or not all(dash and value for _, dash, value in pairs):
        return None
    raw = [f"{key}-{value}" for key, _, value in pairs if key in RAW_ENTITIES]
    further = {key: value for key, _, value in pairs if key not in RAW_ENTITIES}
    if not raw or not raw[0].startswith("sub-"):
        return None
    return Derived(path, "_".join(raw), further, suffix, extension)


def files_by_run(root: Path, subject: str = "sub-*") -> dict[str, list[Derived]]:
    """The files in sub-*/[ses-*/]func, by recording_id; both sorted. Links count as files."""
    found: dict[str, list[Derived]] = defaultdict(list)
    for path in sorted(_func_files(root, subject)):
        parsed = parse_name(path)
        if parsed is not None:
            found[parsed.recording_id].append(parsed)
    return dict(sorted(found.items()))


def _func_files(root: Path, subject: str) -> Iterator[str]:
    for pattern in (f"{subject}/func", f"{subject}/ses-*/func"):
        for folder in root.glob(pattern):
            relative = folder.relative_to(root).as_posix()
            yield from (f"{relative}/{entry.name}" for entry in os.scandir(folder))


def generated_by(root: Path) -> tuple[str, str]:
    """Name and version of the pipeline, as dataset_description.json says; empty where it does not.

    fMRIPrep before 20.1 wrote PipelineDescription, later ones a list GeneratedBy.
    """
    content = read_json_or_empty(root / "dataset_description.json")
    listed = content.get("GeneratedBy")
    first = listed[0] if isinstance(listed, list) and listed else content.get("PipelineDescription")
    first = first if isinstance(first, dict) else {}
    return str(first.get("Name", "")), str(first.get("Version", ""))


def read_json_or_empty(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none or where it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
