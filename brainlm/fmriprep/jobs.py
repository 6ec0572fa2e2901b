"""Jobs: which recordings one run of fMRIPrep makes, and what it needs to know of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DataError, InputError
from ..layout import entities_of, folder_of

#: Where FreeSurfer's subjects lie in fMRIPrep's output folder.
SURFACES = "sourcedata/freesurfer"

#: BIDS keys of a BOLD file by which PyBIDS can choose, and its names for them.
_PYBIDS = {
    "ses": "session",
    "task": "task",
    "acq": "acquisition",
    "ce": "ceagent",
    "rec": "reconstruction",
    "dir": "direction",
    "run": "run",
}


@dataclass(frozen=True)
class Job:
    """One run of fMRIPrep: a subject, or one session of a subject."""

    name: str  # sub-01 or sub-01_ses-1
    recordings: tuple[str, ...]  # the eligible ones

    @property
    def entities(self) -> dict[str, str]:
        """`{"sub": "01"}`, with `ses` for a session's job."""
        return entities_of(self.name)

    @property
    def subject(self) -> str:
        """The label after `sub-`."""
        return self.entities["sub"]

    @property
    def session(self) -> str | None:
        """The label after `ses-`, for a session's job."""
        return self.entities.get("ses")

    def owns(self, relative: str) -> bool:
        """Whether a file of fMRIPrep's output is of this job alone.

        Files of the whole dataset (`dataset_description.json`, `logs/CITATION.md`) are not, nor
        what the sessions of a subject have in common.
        """
        path = relative.removeprefix(f"{SURFACES}/")
        top, _, rest = path.partition("/")
        if self.session is None:
            return _starts(top, self.name)
        name = rest.rpartition("/")[2] or top
        return rest.startswith(f"ses-{self.session}/") or any(
            _starts(part, self.name) for part in (top, name)
        )


def job_of(recording: str, level: str) -> str:
    """The name of the job that makes a recording; `level` is the config's `fmriprep.level`."""
    folder = folder_of(recording)
    return folder.replace("/", "_") if level == "session" else folder.partition("/")[0]


def jobs_of(recordings: Iterable[str], level: str) -> dict[str, Job]:
    """All jobs by name, in the order of their first recordings."""
    members: dict[str, list[str]] = {}
    for recording in recordings:
        members.setdefault(job_of(recording, level), []).append(recording)
    return {name: Job(name, tuple(found)) for name, found in members.items()}


def rows_of(name: str, rows: Sequence[Mapping[str, Any]], level: str) -> list[Mapping[str, Any]]:
    """The eligible rows of the recordings table that a job makes; there must be some."""
    found = [row for row in rows if row["eligible"] and job_of(row["recording_id"], level) == name]
    if not found:
        raise InputError(
            f"No eligible recording belongs to the job {name}",
            fix=f"jobs are named {'sub-01_ses-1' if level == 'session' else 'sub-01'} here "
            f"(fmriprep.level: {level}); onboarding/recordings.tsv lists the recordings",
        )
    return found


def check_anatomy(name: str, rows: Sequence[Mapping[str, Any]], level: str) -> None:
    """Give a job up before it starts if fMRIPrep would miss a T1w in it."""
    images = {row["t1w"] for row in rows if row["t1w"]}
    if level == "session":
        folder = name.replace("_", "/")
        images = {image for image in images if str(image).startswith(f"{folder}/")}
    if not images:
        raise DataError(
            f"{name} has no T1w of its own, without which fMRIPrep does not run",
            fix="leave the subject out, or use the native engine, which can do without"
            + ("; or set fmriprep.level: subject" if level == "session" else ""),
        )


def bids_filter(
    chosen: Iterable[str], of_subject: Iterable[str]
) -> dict[str, dict[str, list[str]]]:
    """The filter by which fMRIPrep takes the `chosen` recordings and passes over others.

    A filter names values of each entity, so it takes in their whole product: an ineligible run
    whose every value some chosen run has too cannot be kept out. Entities that a chosen run
    lacks are left free, as are those that shut nothing out. Empty where nothing is to be shut out.
    """
    wanted = [entities_of(recording) for recording in chosen]
    others = [entities_of(recording) for recording in of_subject]
    bold: dict[str, list[str]] = {}
    for key, name in _PYBIDS.items():
        values = {entities.get(key) for entities in wanted}
        given = sorted(value for value in values if value is not None)
        if None in values or all(entities.get(key) in values for entities in others):
            continue
        bold[name] = given
    return {"bold": bold} if bold else {}


def lets_through(filters: Mapping[str, Mapping[str, list[str]]], recording: str) -> bool:
    """Whether a recording passes a filter made by `bids_filter`."""
    entities = entities_of(recording)
    names = {name: key for key, name in _PYBIDS.items()}
    bold = filters.get("bold", {})
    return all(entities.get(names[name]) in values for name, values in bold.items())


def _starts(name: str, job: str) -> bool:
    return name == job or name.startswith((f"{job}_", f"{job}."))
