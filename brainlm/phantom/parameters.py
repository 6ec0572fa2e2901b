"""What a phantom dataset is made of: its parameters, its subjects, scans and random streams."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import InputError

#: The space in which anatomy and parcels are drawn.
SPACE = "MNI152NLin2009aSym"
#: Where the truth stands, below the dataset.
TRUTH = "derivatives/phantom-truth"

#: kind of corruption -> what is wrong with the further subject that it adds.
CORRUPTIONS: dict[str, str] = {
    "missing-tr": "no RepetitionTime in the JSON, and 0 in the NIfTI header",
    "tr-in-ms": "RepetitionTime in milliseconds in the JSON; the header is right",
    "truncated-gz": "the BOLD .nii.gz ends at 60% of its bytes",
    "nan-volumes": "three volumes of the BOLD (float32) are NaN",
    "wrong-affine": "the BOLD lies 200 mm to the right of the T1w (sform and qform)",
    "flipped-left-right": "the BOLD data are mirrored along x, the affine says nothing of it",
    "too-short": "20 volumes",
    "duplicate-id": "two rows of participants.tsv with other ages, and the BOLD both as .nii "
    "and as .nii.gz",
    "empty-t1w": "the T1w file has 0 bytes",
    "uneven-runs": "two runs; the second has 12 volumes more and a TR 1.25 times as long",
}

#: Which field maps the subjects of a distorted phantom have.
FIELDMAPS = ("alternate", "phasediff", "pepolar", "none")


@dataclass(frozen=True)
class Parameters:
    """Everything that decides the bytes of a phantom dataset."""

    subjects: int = 8
    seed: int = 1
    volumes: int = 220
    tr: float = 2.0  # s
    voxel_mm: float = 4.0  # of the BOLD
    t1w_mm: float = 2.0
    sites: int = 2
    two_runs: int = 1  # so many subjects have two runs: sub-02, sub-05, ...
    two_sessions: int = 1  # so many have two sessions: sub-03, sub-06, ...
    motion_mm: float = 1.0  # scale of head motion; 0 is a head that holds still
    deform_mm: float = 2.5  # RMS length of the nonlinear deformation in the brain
    signal_percent: float = 2.0  # SD of the parcel signals at mean traits, % of baseline
    noise: float = 1.0  # scale of thermal, coloured, drift and physiological noise
    artefacts: bool = True  # spikes, slice dropouts and the head-edge component
    skull: bool = False  # a simple skull and scalp around the brain
    distortion_mm: float = 0.0  # largest shift by susceptibility in the brain; 0: none
    fieldmaps: str = "alternate"  # kind of field map of each subject, where there is distortion
    atlas: str = "A424approx"
    corrupt: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be generated, in the words of the command line."""
        at_least = {
            "subjects": 1,
            "seed": 0,
            "volumes": 10,
            "tr": 0.1,
            "voxel_mm": 1.5,
            "t1w_mm": 0.5,
            "sites": 1,
            "two_runs": 0,
            "two_sessions": 0,
            "motion_mm": 0,
            "deform_mm": 0,
            "signal_percent": 0,
            "noise": 0,
            "distortion_mm": 0,
        }
        for name, least in at_least.items():
            value = getattr(self, name)
            if not np.isfinite(value) or value < least:
                raise InputError(
                    f"--{name.replace('_', '-')} is {value}", fix=f"give at least {least}"
                )
        if self.fieldmaps not in FIELDMAPS:
            raise InputError(
                f"There is no kind of field map {self.fieldmaps!r}",
                fix=f"choose of {', '.join(FIELDMAPS)}",
            )
        for kind in self.corrupt:
            if kind not in CORRUPTIONS:
                raise InputError(
                    f"There is no corruption {kind!r}", fix=f"choose of {', '.join(CORRUPTIONS)}"
                )
        if len(set(self.corrupt)) != len(self.corrupt):
            raise InputError("--corrupt names a kind twice", fix="give each kind once")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types; what makes no difference without distortion is left out then."""
        content = {**asdict(self), "corrupt": list(self.corrupt)}
        if not self.distortion_mm:
            del content["distortion_mm"], content["fieldmaps"]
        return content


@dataclass(frozen=True)
class Session:
    """One visit of a subject: a T1w, and the head as it lies in the scanner that day."""

    subject: str
    session: str | None
    site: int

    @property
    def id(self) -> str:
        """`sub-03_ses-1`."""
        return f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")


@dataclass(frozen=True)
class Run:
    """One BOLD run of a session."""

    session: Session
    run: str | None
    volumes: int
    tr: float

    @property
    def id(self) -> str:
        """The recording's identifier: `sub-03_ses-1_task-rest`."""
        return f"{self.session.id}_task-rest" + (f"_run-{self.run}" if self.run else "")


def subject_label(number: int, parameters: Parameters) -> str:
    """`01` of 1; as many digits as the largest needs, at least two."""
    total = parameters.subjects + len(parameters.corrupt)
    return str(number).zfill(max(2, len(str(total))))


def corrupted_subjects(parameters: Parameters) -> dict[str, str]:
    """Map each kind to the label of the further subject that has this fault."""
    first = parameters.subjects + 1
    return {kind: subject_label(first + k, parameters) for k, kind in enumerate(parameters.corrupt)}


def plan_runs(parameters: Parameters) -> list[Run]:
    """Every run, in order.

    Each `--corrupt` kind adds one subject after the healthy ones, so that the healthy
    subjects' files do not depend on it.
    """
    faults = {label: kind for kind, label in corrupted_subjects(parameters).items()}
    runs: list[Run] = []
    for number in range(1, parameters.subjects + len(parameters.corrupt) + 1):
        label = subject_label(number, parameters)
        fault = faults.get(label)
        turn, place = divmod(number - 1, 3)
        revisits = fault is None and place == 2 and turn < parameters.two_sessions
        repeats = fault is None and place == 1 and turn < parameters.two_runs
        sessions = ("1", "2") if revisits else (None,)
        numbers = ("1", "2") if repeats or fault == "uneven-runs" else (None,)
        for name in sessions:
            session = Session(label, name, (number - 1) % parameters.sites)
            for run in numbers:
                uneven = fault == "uneven-runs" and run == "2"
                volumes = 20 if fault == "too-short" else parameters.volumes + 12 * uneven
                tr = round(parameters.tr * 1.25, 6) if uneven else parameters.tr
                runs.append(Run(session, run, volumes, tr))
    return runs


def site_name(site: int) -> str:
    """`A` of 0, `B` of 1, ..."""
    letters = ""
    site += 1
    while site:
        site, rest = divmod(site - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def stream(seed: int, *names: str) -> np.random.Generator:
    """An independent random stream for each name, whatever the order of drawing."""
    digest = hashlib.sha256("/".join([str(seed), *names]).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype="<u4"))
