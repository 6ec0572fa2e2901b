"""Finding the images of a BIDS dataset, and the JSON sidecars that apply to each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
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

    @cached_property
    def entities(self) -> dict[str, str] | None:
        """Entities of the file name, or None if it is not made of entities."""
        try:
            return entities_of(self.identifier)
        except ValueError:
            return None


@dataclass
class Images:
    """What one walk through a dataset found, each list sorted by path."""

    bolds: list[Found] = field(default_factory=list)
    t1ws: list[Found] = field(default_factory=list)
    maps: list[Found] = field(default_factory=list)  # all files of field maps
    #: Folder, relative to the dataset ("" for itself) -> its JSON files.
    sidecars: dict[str, list[str]] = field(default_factory=dict)


def find_images(bids_dir: Path) -> Images:
    """All BOLD runs, T1w images and files of field maps, and the JSON files on the way to them.

    Looks into sub-*/[ses-*/]func, anat and fmap only, so derivatives and sourcedata are left
    alone. Broken links are found too: their content is missing, which is to be reported. Each
    folder is listed once: on a network file system that is what a walk costs.
    """
    found = Images()
    of_kind = {"func": found.bolds, "anat": found.t1ws, "fmap": found.maps}
    subjects = _look_into(bids_dir, "", found, "sub-")
    if not subjects:
        raise InputError(
            "This is not a BIDS dataset: it has no folder called sub-...",
            file=bids_dir,
            fix="give the folder that holds dataset_description.json and the sub-* folders",
        )
    for subject in subjects:
        label = subject.removeprefix("sub-")
        inside = _look_into(bids_dir, subject, found, "ses-", *_SUFFIXES)
        sessions = [name for name in inside if name.startswith("ses-")]
        places: dict[tuple[str | None, str], str]
        places = {(None, kind): f"{subject}/{kind}" for kind in _SUFFIXES if kind in inside}
        for session in sessions:
            kinds = _look_into(bids_dir, f"{subject}/{session}", found, *_SUFFIXES)
            for kind in set(kinds) & set(_SUFFIXES):
                places[session.removeprefix("ses-"), kind] = f"{subject}/{session}/{kind}"
        for (session_label, kind), place in places.items():
            for name in _files(bids_dir, place, found):
                stem = name.removesuffix(".gz").removesuffix(".nii")
                identifier, _, suffix = stem.rpartition("_")
                if stem != name.removesuffix(".gz") and suffix in _SUFFIXES[kind]:
                    path = f"{place}/{name}"
                    of_kind[kind].append(Found(path, identifier, label, session_label))
    for images in of_kind.values():
        images.sort(key=lambda image: image.path.split("/"))
    return found


def _look_into(root: Path, folder: str, found: Images, *prefixes: str) -> list[str]:
    """The folders in `folder` whose names begin so, sorted; its JSON files are noted."""
    try:
        with os.scandir(root / folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError("The BIDS folder does not exist", file=root / folder) from None
    found.sidecars[folder] = [entry.name for entry in listed if entry.name.endswith(".json")]
    return [e.name for e in listed if e.name.startswith(prefixes) and e.is_dir()]


def _files(root: Path, folder: str, found: Images) -> list[str]:
    """The names of what lies in a folder of images; its JSON files are noted."""
    with os.scandir(root / folder) as entries:
        names = sorted(entry.name for entry in entries)
    found.sidecars[folder] = [name for name in names if name.endswith(".json")]
    return [name for name in names if not name.endswith(".json")]


class Sidecars:
    """JSON metadata under BIDS's inheritance principle; each file is read once.

    Contents are kept only of files that may serve several images, so that memory does not grow
    with the sidecar of each image.
    """

    def __init__(self, bids_dir: Path, listed: Mapping[str, list[str]]):
        """Take the JSON files of each folder, as `find_images` found them."""
        self._root = bids_dir
        self._listed = listed
        self._shared: dict[str, tuple[dict[str, Any], str | None]] = {}
        # Images come sorted by path: these are the folders from the root to the last one.
        self._in = lru_cache(maxsize=16)(self._sort)

    def metadata(self, image: Found, suffix: str) -> tuple[dict[str, Any], list[str]]:
        """The fields that apply to `image` (`suffix` as in `bold`), and what is wrong.

        A JSON file applies if it has the same suffix, lies in a folder on the way from the
        dataset's root to the image, and all its entities are the image's. The nearer file
        wins, field by field; within a folder, the one with more entities.
        """
        merged: dict[str, Any] = {}
        faults: list[str] = []
        own = frozenset(image.identifier.split("_"))
        folder, *below = ["", *image.path.split("/")[:-1]]
        for name in ["", *below]:
            folder = f"{folder}/{name}" if folder else name
            for parts, path in self._in(folder).get(suffix, ()):
                if not own.issuperset(parts):
                    continue
                content, fault = self._read(path, keep=len(parts) < len(own))
                merged |= content
                faults += [fault] if fault else []
        return merged, faults

    def _sort(self, folder: str) -> dict[str, list[tuple[frozenset[str], str]]]:
        """The JSON files of a folder by suffix: entities and path, fewer entities first."""
        known: dict[str, list[tuple[frozenset[str], str]]] = {}
        names = self._listed.get(folder, [])
        for name in sorted(names, key=lambda name: (name.count("_"), name)):
            *parts, suffix = name.removesuffix(".json").split("_")
            path = f"{folder}/{name}" if folder else name
            known.setdefault(suffix, []).append((frozenset(parts), path))
        return known

    def _read(self, path: str, *, keep: bool) -> tuple[dict[str, Any], str | None]:
        """The fields of a file, and what is wrong with it."""
        if path in self._shared:
            return self._shared[path]
        content, fault = {}, None
        try:
            content = json.loads((self._root / path).read_bytes().decode("utf-8-sig"))
        except (ValueError, OSError) as error:
            fault = f"{path} is not valid JSON ({' '.join(str(error).split())})"
        if not isinstance(content, dict):
            content, fault = {}, f"{path} is not a JSON object"
        if keep:
            self._shared[path] = content, fault
        return content, fault
