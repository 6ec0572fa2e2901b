"""Finding the images of a BIDS dataset, and the JSON sidecars that apply to each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..layout import entities_of

_SUFFIXES = {
    "func": ("bold",),
    "anat": ("T1w",),
    "fmap": (
        *("phasediff", "phase1", "phase2", "fieldmap", "epi"),
        *("magnitude", "magnitude1", "magnitude2"),
    ),
}


@dataclass(frozen=True)
class Found:
    """An image of the dataset."""

    path: str  # relative to the dataset, with forward slashes
    identifier: str  # the file name without suffix and extension
    subject: str  # label of the folder that it lies in, without `sub-`
    session: str | None

    @property
    def entities(self) -> dict[str, str] | None:
        """Entities of the file name, or None if it is not made of entities."""
        try:
            return entities_of(self.identifier)
        except ValueError:
            return None


def find_images(bids_dir: Path) -> tuple[list[Found], list[Found], list[Found]]:
    """All BOLD runs, all T1w images and all files of field maps, each sorted by path.

    Looks into sub-*/[ses-*/]func, anat and fmap only, so derivatives and sourcedata are left
    alone. Broken links are found too: their content is missing, which is to be reported.
    """
    images: dict[str, list[Found]] = {kind: [] for kind in _SUFFIXES}
    subjects = _folders(bids_dir, "sub-")
    if not subjects:
        raise InputError(
            "This is not a BIDS dataset: it has no folder called sub-...",
            file=bids_dir,
            fix="give the folder that holds dataset_description.json and the sub-* folders",
        )
    for subject in subjects:
        for place in (subject, *_folders(subject, "ses-")):
            session = place.name.removeprefix("ses-") if place != subject else None
            for kind, suffixes in _SUFFIXES.items():
                for name in _names(place / kind):
                    stem = name.removesuffix(".gz").removesuffix(".nii")
                    identifier, _, suffix = stem.rpartition("_")
                    if stem == name.removesuffix(".gz") or suffix not in suffixes:
                        continue
                    relative = (place / kind / name).relative_to(bids_dir).as_posix()
                    label = subject.name.removeprefix("sub-")
                    images[kind].append(Found(relative, identifier, label, session))
    return images["func"], images["anat"], images["fmap"]


def _folders(parent: Path, prefix: str) -> list[Path]:
    try:
        entries = sorted(parent.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError("The BIDS folder does not exist", file=parent) from None
    return [entry for entry in entries if entry.name.startswith(prefix) and entry.is_dir()]


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


@dataclass
class Sidecars:
    """JSON metadata under BIDS's inheritance principle; each file is read once."""

    bids_dir: Path
    _listings: dict[Path, list[Path]] = field(default_factory=dict)
    _contents: dict[Path, dict[str, Any] | str] = field(default_factory=dict)

    def metadata(self, image: Found, suffix: str) -> tuple[dict[str, Any], list[str]]:
        """The fields that apply to `image` (`suffix` as in `bold`), and what is wrong.

        A JSON file applies if it has the same suffix, lies in a folder on the way from the
        dataset's root to the image, and all its entities are the image's. The nearer file
        wins, field by field; within a folder, the one with more entities.
        """
        merged: dict[str, Any] = {}
        faults: list[str] = []
        folders = (self.bids_dir / image.path).relative_to(self.bids_dir).parents
        own = set(image.identifier.split("_"))
        for folder in reversed(folders):
            for path in self._list(self.bids_dir / folder):
                *parts, last = path.stem.split("_")
                if last != suffix or not own.issuperset(parts):
                    continue
                content = self._read(path)
                if isinstance(content, str):
                    faults.append(content)
                else:
                    merged |= content
        return merged, faults

    def _list(self, folder: Path) -> list[Path]:
        if folder not in self._listings:
            found = [entry for entry in folder.iterdir() if entry.suffix == ".json"]
            self._listings[folder] = sorted(found, key=lambda p: (p.stem.count("_"), p.name))
        return self._listings[folder]

    def _read(self, path: Path) -> dict[str, Any] | str:
        if path not in self._contents:
            name = path.relative_to(self.bids_dir).as_posix()
            try:
                content = json.loads(path.read_text(encoding="utf-8-sig"))
            except (ValueError, OSError) as error:
                content = f"{name} is not valid JSON ({' '.join(str(error).split())})"
            else:
                if not isinstance(content, dict):
                    content = f"{name} is not a JSON object"
            self._contents[path] = content
        return self._contents[path]
