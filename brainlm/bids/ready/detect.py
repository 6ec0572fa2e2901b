"""Which pipeline a folder comes from."""

from __future__ import annotations

from pathlib import Path

from ...errors import InputError
from .names import generated_by

LAYOUTS = ("fmriprep", "xcpd", "hcp", "ukb", "tables")

#: How pipelines call themselves in dataset_description.json -> layout.
_NAMES = {"fmriprep": "fmriprep", "fmripost": "fmriprep", "xcp": "xcpd"}
_SERIES = (".parquet", ".npy", ".csv", ".tsv", ".txt", ".dat", ".mat")


def detect_layout(root: Path) -> str | None:
    """The layout of `root`, from its description, else from the folders in it; None if unknown."""
    name = generated_by(root)[0].lower()
    for start, layout in _NAMES.items():
        if name.startswith(start):
            return layout
    if any(root.glob("*/MNINonLinear/Results")):
        return "hcp"
    if any(root.glob("*/fMRI/rfMRI.ica")):
        return "ukb"
    if any(path.suffix not in _SERIES for path in root.glob("*20227_*")):
        return "ukb"
    if (root / "recordings.tsv").is_file():
        return "tables"
    names = [entry.name for entry in root.iterdir() if entry.is_file()]
    if any(name.endswith(_SERIES) and name != "participants.tsv" for name in names):
        return "tables"
    return None


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
