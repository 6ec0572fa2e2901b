"""A job's files: moved from its own folder into the study's, or kept as evidence of a failure."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ..provenance import sha256_file
from .jobs import SURFACES, Job
from .process import remove
from .report import find_crashes


def install(job: Job, made: Path, final: Path) -> dict[str, dict[str, Any]]:
    """Move a job's files from its folder `made` into `final`, where all jobs meet.

    Older files of the same job go first, so that none outlives a change of options. Each file
    is renamed into place, so no reader sees half of one; both folders must be on one disk.
    Returns size in bytes and SHA-256 of the job's own files by their path below `final`. What
    several jobs write alike (`dataset_description.json`) is moved too, but is not listed.
    """
    remove_owned(job, final)
    listed: dict[str, dict[str, Any]] = {}
    for source in _files(made):
        relative = _final_name(job, source.relative_to(made).as_posix())
        if job.owns(relative) and not source.is_symlink():
            listed[relative] = {"Size": source.stat().st_size, "SHA256": sha256_file(source)}
        target = final / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
    remove(made)
    return dict(sorted(listed.items()))


def remove_owned(job: Job, final: Path) -> None:
    """Remove what an earlier run of the same job left in `final`."""
    starts = [*final.glob(f"sub-{job.subject}*"), *(final / SURFACES).glob(f"sub-{job.subject}*")]
    for start in starts:
        for path in _files(start) if start.is_dir() else [start]:
            if job.owns(path.relative_to(final).as_posix()):
                path.unlink()


def keep_evidence(made: Path, folder: Path) -> dict[Path, Path]:
    """Copy reports and crash files of a failed job to `folder`; where each one went."""
    remove(folder)
    kept = {}
    reports = sorted(made.glob("*.html"))
    crashes = [crash.file for crash in find_crashes(made) if crash.file is not None]
    for source in [*reports, *crashes]:
        folder.mkdir(parents=True, exist_ok=True)
        kept[source] = folder / source.name
        shutil.copyfile(source, kept[source])
    return kept


def _files(folder: Path) -> list[Path]:
    """All files and links below a folder, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def _final_name(job: Job, relative: str) -> str:
    """The name of an output among those of all jobs: reports of a session name the session.

    fMRIPrep names them by the subject alone, so one session's would replace another's.
    """
    whole = f"sub-{job.subject}"
    if job.session is None or not relative.endswith(".html") or "/" in relative:
        return relative
    return relative if job.owns(relative) else relative.replace(whole, job.name, 1)
