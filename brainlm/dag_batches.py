"""Recordings in batches: what one job does for many of them."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from .dag_memory import Memory
from .fmriprep.jobs import job_of
from .layout import TEMPLATES
from .provenance import sha256_json
from .stages import STAGES

#: Recordings whose quality figures one job draws: drawing one takes less than starting.
QC_BATCH = 50
#: Minutes that a recording takes from raw data to parcels on one core, at most on average: a slow
#: machine, 1,200 volumes and ICA.
_RECORDING_MIN = 45
#: What a batch's own workflow run may do: all that comes before the cohort, and the figures.
_STAGES_OF_RECORDINGS = (*list(STAGES)[: list(STAGES).index("cohort")], "qc-figure")
#: Keys of the config that rules look at, besides the sections of their stages.
_OF_ALL = {"name", "bids_dir", "engine", "seed", "eligibility", "keep_intermediates"}


class Batches(Memory):
    """The batches of a study; those of subjects that come in later are the last."""

    study: Path
    rows: dict[str, dict[str, Any]]
    reviewed: frozenset[str]
    only_batch: dict[str, Any] | None  # the one that this very workflow run is about

    @abstractmethod
    def pattern(self, kind: str) -> str:
        """The path of a kind of file, with Snakemake's wildcards left in it."""

    @abstractmethod
    def each(self, kind: str, names: Iterable[str] | None = None) -> list[str]:
        """The path of a kind of file for these recordings, or for every eligible one."""

    @abstractmethod
    def options(self, stage: str) -> str:
        """The stage's options as the JSON that its command gets."""

    @abstractmethod
    def code(self, stage: str) -> str:
        """The digest of the stage's source files."""

    @abstractmethod
    def classifier_content(self) -> str:
        """A digest of the files of the study that ica.classifier names; none: empty."""

    @property
    def batched(self) -> bool:
        """Whether one job takes many recordings from raw data to parcels."""
        return self.config.jobs.recordings_per_job > 1 and self.only_batch is None

    @cached_property
    def _batches(self) -> dict[str, list[str]]:
        """Number of the batch -> its recordings, all of a subject together.

        A subject's runs may share a T1w, which must not be worked on by two jobs at once.
        """
        most = self.config.jobs.recordings_per_job
        packed = pack_batches(self.rows, most if most > 1 else QC_BATCH)
        return {f"{number:04d}": names for number, names in enumerate(packed)}

    def _keep_only(self, number: str, recordings: list[str]) -> None:
        """Forget all recordings but those of one batch."""
        for name in recordings:
            self.row(name)
        self.rows = {name: self.rows[name] for name in recordings}
        self._batches = {number: recordings}

    def batches(self) -> list[str]:
        """Numbers of the batches."""
        return list(self._batches)

    def batch(self, wildcards: Any) -> list[str]:
        """The recordings of a batch."""
        return self._batches[wildcards.batch]

    def batch_sources(self, wildcards: Any) -> list[str]:
        """All raw files (or those of other pipelines) that a batch starts from."""
        found: dict[str, None] = {}
        for row in (self.rows[name] for name in self.batch(wildcards)):
            paths = [row["bold"], row["t1w"], *json.loads(row["fmap"] or "[]")]
            if row["kind"] is not None:
                paths = sorted(json.loads(row["ready"]).values())
            found |= dict.fromkeys(str(self.config.bids_dir / path) for path in paths if path)
        return list(found)

    def batch_reviews(self, wildcards: Any) -> list[str]:
        """Tables of components made by hand, of the batch's recordings."""
        asked = self.config.denoise.method == "aroma"
        names = [name for name in self.batch(wildcards) if asked and name in self.reviewed]
        return self.each("aroma_review", names)

    def batch_manifests(self, wildcards: Any) -> list[str]:
        """What says that fMRIPrep has written the files that a batch starts from."""
        if self.config.engine != "fmriprep":
            return []
        level = self.config.fmriprep.level
        jobs = dict.fromkeys(job_of(name, level) for name in self.batch(wildcards))
        return [TEMPLATES["fmriprep_manifest"].format(job=job) for job in jobs]

    @property
    def batch_config(self) -> str:
        """The config of a batch's own workflow run, as JSON: what its stages may read."""
        read = {part for name in _STAGES_OF_RECORDINGS for part in STAGES[name].sections} | _OF_ALL
        content = self.config.model_dump(mode="json", include=read)
        content["jobs"] = {"recordings_per_job": self.config.jobs.recordings_per_job}
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    def batch_content(self, wildcards: Any) -> str:
        """A digest of all that decides what a batch's files hold, and of those that were lost."""
        rows = [self.rows[name] for name in self.batch(wildcards)]
        stages = [self._stages_of_recordings, self.classifier_content()]
        return sha256_json([stages, rows, self._lost(wildcards)])[:16]

    def _lost(self, wildcards: Any) -> list[str]:
        """Files that the list of a batch stands for and that are not there any more.

        Snakemake knows of the list alone: without these a deleted series would not be made anew.
        """
        if not (self.study / self.pattern("batch").format(batch=wildcards.batch)).exists():
            return []
        names = self.batch(wildcards)
        paths = [path for kind in ("timeseries", "motion") for path in self.each(kind, names)]
        return [path for path in paths if not (self.study / path).exists()]

    @cached_property
    def _stages_of_recordings(self) -> list[list[str]]:
        return [[name, self.options(name), self.code(name)] for name in _STAGES_OF_RECORDINGS]

    def batch_mb(self, wildcards: Any) -> int:
        """Memory for as many of a batch's recordings as are worked on at a time, MB."""
        return self.mb_of_batch(self.batch(wildcards))

    def batch_minutes(self, wildcards: Any) -> int:
        """Time that a batch may take."""
        return minutes_of_batch(len(self.batch(wildcards)), self.config.jobs.cores_per_job)


def pack_batches(rows: Mapping[str, Mapping[str, Any]], most: int) -> list[list[str]]:
    """Recordings in batches of at most so many; those of later waves come last."""
    by_subject: dict[str, list[str]] = {}
    for name, row in sorted(rows.items(), key=lambda item: item[1]["wave"] or 0):
        by_subject.setdefault(row["subject"], []).append(name)
    return _pack(by_subject.values(), most)


def minutes_of_batch(recordings: int, cores: int) -> int:
    """Time that a batch of so many recordings may take."""
    return 30 + _RECORDING_MIN * math.ceil(recordings / min(cores, recordings))


def _pack(groups: Iterable[list[str]], most: int) -> list[list[str]]:
    """Groups in their order, put together while they are not more than `most` (but one is)."""
    packed: list[list[str]] = []
    for group in groups:
        if packed and len(packed[-1]) + len(group) <= most:
            packed[-1] += group
        else:
            packed.append(list(group))
    return packed
