"""Whose files lie in a folder: raw BIDS, or what some pipeline left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from .names import generated_by

LAYOUTS = ("fmriprep", "xcpd", "hcp", "ukb", "tables")

#: How pipelines call themselves in dataset_description.json -> layout.
_NAMES = {"fmriprep": "fmriprep", "fmripost": "fmriprep", "xcp": "xcpd"}
#: The same of series, where there is no description.
_DESCRIBED = {"_desc-preproc_bold.": "fmriprep", "_desc-denoised_bold.": "xcpd"}
_SERIES = (".parquet", ".npy", ".csv", ".tsv", ".txt", ".dat", ".mat")


@dataclass(frozen=True)
class Seen:
    """What a folder looks like, and the sign that tells."""

    layout: str  # bids, or one of `LAYOUTS`
    sign: str


def look_at(root: Path) -> Seen | None:
    """What the folder's description, else its names show; None if nothing is known there."""
    name, version = generated_by(root)
    for start, layout in _NAMES.items():
        if name.lower().startswith(start):
            return Seen(layout, f"dataset_description.json names {name} {version}".rstrip())
    for pattern in ("sub-*/func/*_bold.*", "sub-*/ses-*/func/*_bold.*"):
        for path in root.glob(pattern):
            for end, layout in _DESCRIBED.items():
                if end in path.name:
                    return Seen(layout, f"{path.relative_to(root).as_posix()} is there")
            if path.name.endswith((".nii", ".nii.gz")) and "_desc-" not in path.name:
                return Seen("bids", f"{path.relative_to(root).as_posix()} is there")
    return _by_folders(root)


def _by_folders(root: Path) -> Seen | None:
    """Layouts that are no BIDS."""
    for pattern, layout in (("*/MNINonLinear/Results", "hcp"), ("*/fMRI/rfMRI.ica", "ukb")):
        if any(root.glob(pattern)):
            return Seen(layout, f"folders {pattern} are there")
    for path in root.glob("*20227_*"):
        if path.suffix not in _SERIES:
            return Seen("ukb", f"{path.name} is there")
    if (root / "recordings.tsv").is_file():
        return Seen("tables", "recordings.tsv is there")
    names = sorted(entry.name for entry in root.iterdir() if entry.is_file())
    tables = [name for name in names if name.endswith(_SERIES) and name != "participants.tsv"]
    return Seen("tables", f"{tables[0]} is there") if tables else None


def detect_layout(root: Path) -> str | None:
    """The pipeline's layout of `root`; None where none is known, or where the runs are raw."""
    seen = look_at(root)
    return None if seen is None or seen.layout == "bids" else seen.layout


def chosen_layout(root: Path, asked: str) -> str:
    """The layout that the config asks for, or what the folder shows where it says auto."""
    layout = detect_layout(root) if asked == "auto" else asked
    if layout is None:
        raise InputError(
            "Which pipeline wrote these files cannot be told: there is no "
            "dataset_description.json of fMRIPrep or XCP-D, no */MNINonLinear (HCP), no "
            "*/fMRI/rfMRI.ica (UK Biobank), no table of parcels",
            file=root,
            fix="give the folder that holds the subjects, or say --set "
            f"derivatives.layout=... ({', '.join(LAYOUTS)})",
        )
    return layout
