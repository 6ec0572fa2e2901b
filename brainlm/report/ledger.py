"""Reading the failures ledger `qc/failures/`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..layout import TEMPLATES, Study, folder_of
from ..provenance import is_tombstone

#: Stage of one recording or T1w -> a file it leaves which is not removed afterwards.
LASTING = {
    "motion": "motion",
    "fieldmap": "fieldmap",
    "normalize-anat": "t1w_to_mni",
    "coregister-bold": "boldref_to_t1w",
    "normalize-bold": "boldref_to_mni",
    "warp-bold": "boldref_to_mni_warp",
    "resample": "mni_mask",
    "fmriprep": "mni_mask",
    "adopt": "mni_mask",
    "confounds": "confounds",
    "ica": "aroma_metrics",
    "denoise": "carpet",
    "parcellate": "timeseries",
    "resample-to-parcels": "timeseries",
    "adopt-to-parcels": "timeseries",
    "adopt-parcels": "timeseries",
    "qc-figure": "qc_figure",
}


def read_failures(study: Study, fields: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The live entries, by recording_id or anat_id; `fields` are the labels of file names.

    An entry is stale, and left out, when the file that its stage gave up has been made since.
    """
    folder = (study.root / TEMPLATES["failure"]).parent
    entries = {}
    for path in sorted(folder.glob("sub-*.json")):
        entry = _read_entry(path.read_text(encoding="utf-8"))
        if not _made_since(study, entry, path.stem, fields):
            entries[path.stem] = entry
    return entries


def _read_entry(text: str) -> dict[str, Any]:
    """An entry; one that is damaged still says that the recording failed."""
    try:
        entry = json.loads(text)
        return {"stage": entry["stage"], "what": entry["what"], "fix": entry.get("fix")}
    except (ValueError, KeyError, TypeError):
        return {"stage": "", "what": "The entry of the failures ledger cannot be read", "fix": None}


def _made_since(
    study: Study, entry: Mapping[str, Any], identifier: str, fields: Mapping[str, str]
) -> bool:
    kind = LASTING.get(entry["stage"])
    if kind is None:
        return False
    path = lasting_path(study, kind, identifier, fields)
    return path.exists() and not is_tombstone(path)


def lasting_path(study: Study, kind: str, identifier: str, fields: Mapping[str, str]) -> Path:
    """The path of a file of a recording or of a T1w, whichever `identifier` names."""
    folder = folder_of(identifier)
    names = {
        "recording": identifier,
        "folder": folder,
        "anat": identifier,
        "anat_folder": folder,
    }
    return study.path(kind, **{**fields, **names})


def read_exclusions(study: Study) -> pd.DataFrame:
    """`cohort/exclusions.tsv`, or an empty table while there is none that can be read."""
    path = study.path("exclusions")
    if not path.exists() or is_tombstone(path):
        return pd.DataFrame(columns=["recording_id", "stage", "reason"], dtype="string")
    try:
        table = pd.read_csv(path, sep="\t", dtype="string", keep_default_na=False)
        return table.astype({"recording_id": "string", "stage": "string", "reason": "string"})
    except (ValueError, KeyError, OSError):
        return pd.DataFrame(columns=["recording_id", "stage", "reason"], dtype="string")


def read_included(study: Study) -> set[str]:
    """The recordings of the cohort, or none while there is no cohort that can be read."""
    path = study.path("cohort")
    if not path.exists() or is_tombstone(path):
        return set()
    try:
        return set(pd.read_parquet(path, columns=["recording_id"])["recording_id"])
    except (ValueError, KeyError, OSError):  # the report names the file among the damaged ones
        return set()
