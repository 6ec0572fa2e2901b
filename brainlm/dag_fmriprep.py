"""What the rule of fMRIPrep knows: its jobs, what makes them stale, and what they need."""

from __future__ import annotations

import json
import math
from functools import cached_property
from pathlib import Path
from typing import Any

from .dag import Dag
from .errors import InputError
from .fmriprep.images import find_image
from .fmriprep.jobs import Job, job_of, jobs_of
from .layout import TEMPLATES
from .provenance import sha256_json

#: What a job is, to Snakemake.
JOB_REGEX = r"sub-[A-Za-z0-9+]+(?:_ses-[A-Za-z0-9+]+)?"

#: Columns of the recordings table that fMRIPrep's results follow from: the images' bytes, and what
#: it reads in their JSON files.
_CONTENT = (
    "recording_id",
    "bold_sha256",
    "t1w",
    "t1w_sha256",
    "tr",
    "slice_timing",
    "pe_direction",
    "total_readout_time",
    "fmap",
    "fmap_sha256",
    "fmap_about",
)

#: Memory of fMRIPrep besides series, MB: its documentation asks for 8 GB at least.
_BASE_MB = 12_000
#: Voxels of MNI152NLin6Asym:res-2, and how many series of that size a job holds at once.
_VOXELS, _COPIES = 91 * 109 * 91, 4
#: Time of a job, min: anatomy, each recording, and recon-all on top.
_ANATOMY_MIN, _RECORDING_MIN, _SURFACES_MIN = 240, 90, 900


class FmriprepJobs:
    """The jobs of fMRIPrep of a study."""

    def __init__(self, study: Dag, folder: Path):
        """Group the eligible recordings of `study`, which lies in `folder`, into jobs."""
        self.study = study
        self.folder = folder
        self.options = study.config.fmriprep
        self.jobs: dict[str, Job] = jobs_of(study.rows, self.options.level)

    @property
    def pattern(self) -> str:
        """The manifest of a job, with Snakemake's wildcard left in it."""
        return TEMPLATES["fmriprep_manifest"].format(job="{job}")

    def manifests(self) -> list[str]:
        """The manifest of every job."""
        return [self.pattern.format(job=name) for name in self.jobs]

    def manifest_of(self, wildcards: Any) -> str:
        """The manifest of the job that makes a recording."""
        return self.pattern.format(job=job_of(wildcards.recording, self.options.level))

    def raw(self, wildcards: Any) -> list[str]:
        """The raw files of a job, as the config names the dataset."""
        names: dict[str, None] = {}
        for row in self._rows(wildcards):
            for path in (row["bold"], row["t1w"], *json.loads(row["fmap"] or "[]")):
                if path:
                    names[str(self.study.config.bids_dir / path)] = None
        return list(names)

    def content(self, wildcards: Any) -> str:
        """A digest of what onboarding knows of the job's raw data, and of the image."""
        rows = [[row[column] for column in _CONTENT] for row in self._rows(wildcards)]
        return sha256_json([rows, self._image])[:16]

    @cached_property
    def _image(self) -> str | None:
        """The image's digest; a file of the user's own goes by its path, in the options."""
        return None if self.options.image else find_image("fmriprep", self.folder).digest

    def mem_mb(self, wildcards: Any) -> int:
        """Memory of a job, MB."""
        longest = max(row["n_volumes"] for row in self._rows(wildcards))
        return _BASE_MB + math.ceil(_COPIES * _VOXELS * 4 * longest / 1e6)

    def runtime(self, wildcards: Any) -> int:
        """Time of a job, min."""
        surfaces = _SURFACES_MIN if self.options.freesurfer else 0
        return _ANATOMY_MIN + surfaces + _RECORDING_MIN * len(self._rows(wildcards))

    def _rows(self, wildcards: Any) -> list[dict[str, Any]]:
        if wildcards.job not in self.jobs:
            raise InputError(f"{wildcards.job} is no job of fMRIPrep in this study")
        return [self.study.rows[name] for name in self.jobs[wildcards.job].recordings]
