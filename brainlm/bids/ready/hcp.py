"""Runs of the Human Connectome Project's layout (Glasser et al. 2013, NeuroImage 80:105).

    <subject>/MNINonLinear/Results/rfMRI_REST1_LR/
        rfMRI_REST1_LR_hp2000_clean.nii.gz               FIX (Young Adult to S1200)
        rfMRI_REST1_LR_hp0_clean_rclean_tclean.nii.gz    FIX, reclassified, temporal ICA (2025)
        rfMRI_REST1_LR.nii.gz                            minimally preprocessed
        rfMRI_REST1_LR_Atlas_MSMAll_hp2000_clean.dtseries.nii   the same on grayordinates
        brainmask_fs.2.nii.gz, Movement_Regressors.txt, Movement_RelativeRMS.txt

A folder is a run if its name ends in a phase-encoding direction: `tfMRI_WM` beside `tfMRI_WM_LR` is
a statistic of two runs, `rfMRI_REST` a chain of several.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from ...errors import InputError
from .run import ReadyRun

#: The volumes are in FSL's template.
SPACE = "MNI152NLin6Asym"
DENSE_SPACE = "fsLR"

_RESULTS = Path("MNINonLinear") / "Results"
_RUN = re.compile(r"^[rt]fMRI_(?P<task>[A-Za-z0-9]+)(_(?P<acq>7T))?_(?P<dir>LR|RL|AP|PA)$")
#: What a name says after the run's: the surface registration of a dense series, then what FIX and
#: its successors append (high-pass filter in s, components judged anew, temporal ICA). Others, such
#: as `_hp2000_clean_vn`, are no series.
_SERIES = re.compile(
    r"^(?P<atlas>_Atlas(?P<msmall>_MSMAll)?)?"
    r"(?P<clean>_hp(?P<hp>\d+)_clean(?P<again>_rclean)?(?P<temporal>_tclean)?)?$"
)
_END = {"volume": ".nii.gz", "dense": ".dtseries.nii"}
_MINIMAL = "HCP minimal preprocessing pipelines"


Kind = Literal["volume", "dense"]


def find_runs(root: Path, kind: Kind = "volume") -> list[ReadyRun]:
    """All resting and task runs below `root`, a folder of subjects, sorted by recording_id.

    Of several series of a run the one that only FIX has cleaned is taken, which is what BrainLM
    was made for; then those cleaned further; then the minimally preprocessed one. Dense series
    aligned by MSMAll go before those aligned by folding.
    """
    runs = []
    for subject in sorted(root.iterdir()) if root.is_dir() else ():
        results = subject / _RESULTS
        for folder in sorted(results.iterdir()) if results.is_dir() else ():
            if folder.is_dir() and (name := _RUN.match(folder.name)):
                runs.append(_run(root, subject.name, folder, name, kind))
    if not runs:
        raise InputError(
            "No run in HCP's layout is here",
            file=root,
            fix="give the folder that holds the subjects' folders, each with MNINonLinear/Results; "
            "unpack the packages (.zip) first",
        )
    return sorted(runs, key=lambda run: run.recording_id)


def _run(root: Path, subject: str, folder: Path, name: re.Match[str], kind: Kind) -> ReadyRun:
    """One run, with whatever of its files is there."""
    label = re.sub("[^A-Za-z0-9]", "", subject)
    notes, faults = [], []
    if label != subject:
        notes.append(f"the folder {subject} is taken as subject {label}")
    files: dict[str, Path] = {}
    by = dict.fromkeys(("motion", "distortion", "normalisation"), _MINIMAL)
    if found := _series(folder, kind):
        series, said = found[0]
        files["series"] = series
        if not series.stat().st_size:
            faults.append(f"{series.name} is empty (0 bytes)")
        if len(found) > 1:
            others = ", ".join(path.name for path, _ in found[1:])
            notes.append(f"{series.name} is used; also there: {others}")
        if said["clean"]:
            by["denoising"] = _cleaning(said)
        else:
            notes.append("minimally preprocessed only: nuisance has not been regressed out")
    else:
        faults.append(f"no {kind} series in {folder.name}, neither cleaned nor minimally processed")
    if kind == "volume":
        files |= _first(
            "mask", folder / "brainmask_fs.2.nii.gz", *sorted(folder.glob("brainmask_fs.*"))
        )
        if "mask" not in files:
            notes.append("no brain mask")
    files |= _first("motion", folder / "Movement_Regressors.txt")
    files |= _first("rms", folder / "Movement_RelativeRMS.txt")
    if "motion" not in files:
        notes.append("no motion parameters")
    return ReadyRun(
        recording_id=_identifier(label, name),
        layout="hcp",
        kind=kind,
        files={role: path.relative_to(root).as_posix() for role, path in files.items()},
        by=by,
        space=SPACE if kind == "volume" else DENSE_SPACE,
        cleaned="denoising" in by,
        faults=tuple(faults),
        notes=tuple(notes),
    )


def _identifier(subject: str, name: re.Match[str]) -> str:
    """`rfMRI_REST1_7T_PA` of subject 100610 -> `sub-100610_task-REST1_acq-7T_dir-PA`."""
    entities = {"sub": subject, "task": name["task"], "acq": name["acq"], "dir": name["dir"]}
    return "_".join(f"{key}-{value}" for key, value in entities.items() if value)


def _series(folder: Path, kind: Kind) -> list[tuple[Path, re.Match[str]]]:
    """The series of a run and what their names say, the one to be used first."""
    found = []
    for path in sorted(folder.glob(f"{folder.name}*{_END[kind]}")):
        said = _SERIES.match(path.name.removeprefix(folder.name).removesuffix(_END[kind]))
        if said and (said["atlas"] is not None) == (kind == "dense"):
            found.append((path, said))
    return sorted(found, key=lambda one: _rank(one[1]))


def _rank(said: re.Match[str]) -> tuple[bool, bool, bool]:
    """Cleaned before not, by FIX alone before more, MSMAll before folding."""
    more = said["again"] or said["temporal"]
    return said["clean"] is None, more is not None, said["msmall"] is None


def _cleaning(said: re.Match[str]) -> str:
    """Who cleaned the series, and how."""
    high_pass = f"high-pass {said['hp']} s" if int(said["hp"]) else "linear detrending"
    steps = [high_pass]
    if said["again"]:
        steps.append("components judged anew")
    if said["temporal"]:
        steps.append("temporal ICA")
    return f"FSL FIX ({', '.join(steps)})"


def _first(role: str, *paths: Path) -> dict[str, Path]:
    """The first of `paths` that exists, under its role."""
    return next(({role: path} for path in paths if path.is_file()), {})
