"""Resting-state runs of UK Biobank (Alfaro-Almagro et al. 2018, NeuroImage 166:400).

    1234567_20227_2_0.zip                      bulk field 20227 of instance 2, the first imaging
    1234567_20227_2_0/fMRI/rfMRI.ica/          unpacked with `unzip -d 1234567_20227_2_0`
        filtered_func_data_clean.nii.gz        motion corrected, high-passed, cleaned by FIX
        mask.nii.gz
        reg/example_func2standard_warp.nii.gz  the way to MNI152, read by preproc/fnirt.py
        mc/prefiltered_func_data_mcf.par       motion, with ..._mcf_rel.rms

Folders called by the participant alone (`1234567/fMRI/...`) or without the field
(`1234567_2_0/fMRI/...`) are read too. Runs lie in their own space.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from ...errors import InputError
from .run import ReadyRun

#: Where the warps lead.
SPACE = "MNI152NLin6Asym"

_FOLDER = re.compile(r"^(?P<eid>\d+)(_20227)?(_(?P<instance>\d)_(?P<array>\d+))?$")
_ICA = Path("fMRI") / "rfMRI.ica"
_PIPELINE = "UK Biobank brain imaging pipeline"
_BY = {
    "motion": f"{_PIPELINE} (FSL MCFLIRT)",
    "distortion": f"{_PIPELINE} (gradient and EPI unwarping)",
    "filter": f"{_PIPELINE} (FSL, Gaussian-weighted line of sigma 50 s)",
    "denoising": f"{_PIPELINE} (FSL MELODIC and FIX)",
}
#: Files of a run by role, below `rfMRI.ica`.
_FILES = {
    "series": "filtered_func_data_clean.nii.gz",
    "warp": "reg/example_func2standard_warp.nii.gz",
    "mask": "mask.nii.gz",
    "motion": "mc/prefiltered_func_data_mcf.par",
    "rms": "mc/prefiltered_func_data_mcf_rel.rms",
}
_NEEDED = {
    "series": "the cleaned run",
    "warp": "the way to the standard space",
}


def find_runs(root: Path) -> list[ReadyRun]:
    """All resting-state runs below `root`, unpacked or not, sorted by recording_id.

    What is still packed, marked unusable by UK Biobank or lacks a file comes with a fault.
    """
    runs: dict[str, ReadyRun] = {}
    entries = sorted(root.iterdir()) if root.is_dir() else []
    for entry in entries:
        name = _FOLDER.match(entry.name)
        if entry.is_dir() and name and (entry / "fMRI").is_dir():
            run = _run(root, entry, name)
            if run.recording_id in runs:
                run = _twice(runs[run.recording_id], entry.name)
            runs[run.recording_id] = run
    for entry in entries:
        name = _FOLDER.match(entry.stem)
        if entry.suffix == ".zip" and "_20227_" in entry.name and name:
            runs.setdefault(_identifier(name), _packed(entry, name))
    if not runs:
        raise InputError(
            "No run in UK Biobank's layout is here",
            file=root,
            fix="give the folder that holds EID_20227_2_0/fMRI/rfMRI.ica, or the .zip files",
        )
    return [runs[key] for key in sorted(runs)]


def _run(root: Path, folder: Path, name: re.Match[str]) -> ReadyRun:
    """An unpacked run, with whatever of its files is there."""
    files = {
        role: (folder / _ICA / path).relative_to(root).as_posix()
        for role, path in _FILES.items()
        if (folder / _ICA / path).is_file()
    }
    faults, notes = [], []
    if not (folder / _ICA).is_dir() and (folder / "fMRI" / "unusable").exists():
        faults.append("UK Biobank calls this run unusable (fMRI/unusable)")
    else:
        faults += [
            f"{what} is missing: {_ICA.as_posix()}/{_FILES[role]}"
            for role, what in _NEEDED.items()
            if role not in files
        ]
    faults += [
        f"{path} is empty (0 bytes)" for path in files.values() if not (root / path).stat().st_size
    ]
    notes += [f"no {role} file" for role in ("mask", "motion") if role not in files]
    if name["instance"] is None:
        notes.append("the folder does not say at which visit the run was made")
    return ReadyRun(
        recording_id=_identifier(name),
        layout="ukb",
        kind="volume",
        files=files,
        by=_BY,
        cleaned=True,
        faults=tuple(faults),
        notes=tuple(notes),
    )


def _packed(archive: Path, name: re.Match[str]) -> ReadyRun:
    """A run that is still in its zip file."""
    fault = f"{archive.name} is not unpacked: `unzip -q {archive.name} -d {archive.stem}`"
    return ReadyRun(
        recording_id=_identifier(name),
        layout="ukb",
        kind="volume",
        files={},
        by=_BY,
        cleaned=True,
        faults=(fault,),
    )


def _twice(run: ReadyRun, folder: str) -> ReadyRun:
    """The run with a fault: another folder holds it too."""
    fault = f"a second folder holds this run: {folder}"
    return replace(run, faults=(*run.faults, fault))


def _identifier(name: re.Match[str]) -> str:
    """`1234567_20227_2_0` -> `sub-1234567_ses-2_task-rest`; a second run at a visit is numbered."""
    session = f"_ses-{name['instance']}" if name["instance"] else ""
    again = f"_run-{int(name['array']) + 1}" if int(name["array"] or 0) else ""
    return f"sub-{name['eid']}{session}_task-rest{again}"


def identifier_of(stem: str) -> str | None:
    """The recording that a file called `1234567_20227_2_0` is of; None for other names."""
    name = _FOLDER.match(stem)
    return _identifier(name) if name and "_20227_" in stem else None
