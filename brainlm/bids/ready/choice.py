"""Which of several copies of a run to read: one series in several spaces and resolutions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from isal import igzip

from ...images import LONGEST_HEADER, READ_ERRORS, parse_header
from .names import Derived


@dataclass(frozen=True)
class Wanted:
    """What the study reads: its template, its voxel size (mm), and what else is allowed."""

    space: str
    resolution_mm: float
    any_space: bool = False  # another MNI space will do


def choose_series(
    candidates: list[Derived], root: Path, wanted: Wanted
) -> tuple[Derived | None, list[str], list[str]]:
    """The series to read among `candidates`, with faults and notes.

    Those in the study's space come first, then (where that is allowed) other MNI spaces. Among
    them the voxel size nearest to the study's wins, the finer one of two equally near. Two files
    that nothing tells apart are a fault: nobody knows which one is right.
    """
    spaces = sorted({file.further["space"] for file in candidates})
    here = [file for file in candidates if file.further["space"] == wanted.space]
    notes = []
    if not here and wanted.any_space:
        here = [file for file in candidates if file.further["space"].startswith("MNI")]
        here = [file for file in here if file.further["space"] == here[0].further["space"]]
        if here:
            notes.append(
                f"read in {here[0].further['space']} as if it were {wanted.space}: they differ by "
                "some mm (derivatives.space_ok)"
            )
    if not here:
        found = f"it is there in {', '.join(spaces)}" if spaces else "there is none in any space"
        return None, [f"no series in {wanted.space}: {found}"], []
    sized = sorted((_distance(file, root, wanted.resolution_mm), file.path, file) for file in here)
    best = [file for distance, _, file in sized if distance == sized[0][0]]
    if len(best) > 1:
        names = " and ".join(file.path for file in best)
        return None, [f"two candidate files for one run: {names}"], []
    if len(sized) > 1:
        notes.append(f"{len(sized)} resolutions; {best[0].path} is nearest to the study's")
    return best[0], [], notes


def _distance(file: Derived, root: Path, resolution_mm: float) -> tuple[float, float]:
    """How far the voxel size is from the study's, mm, and the size; unreadable files come last."""
    zoom = _zoom(root / file.path)
    return (np.inf, 0.0) if zoom is None else (round(abs(zoom - resolution_mm), 3), round(zoom, 3))


def _zoom(path: Path) -> float | None:
    """Mean voxel edge, mm, from the header."""
    try:
        with path.open("rb") as handle:
            packed = handle.read(2) == b"\x1f\x8b"
        with igzip.open(path, "rb") if packed else path.open("rb") as handle:
            header = parse_header(handle.read(LONGEST_HEADER))
        affine = np.asarray(header.get_best_affine(), dtype=float)
    except READ_ERRORS:
        return None
    return float(np.cbrt(abs(np.linalg.det(affine[:3, :3]))))
