"""What a study takes, all told."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import cached_property

from ..config import Config
from .fit import Asked
from .history import Took
from .models import FACTOR, FACTOR_MEASURED


@dataclass(frozen=True)
class StageTakes:
    """What a stage takes of all runs."""

    stage: str
    times: int  # that its command does its work
    cpu_h: float | None  # None: nobody has measured it
    kept: float  # bytes
    passing: float  # bytes, of all runs together
    mem_mb: int  # that the largest of its jobs asks for
    took: Took | None = None  # what earlier jobs of this study took


@dataclass(frozen=True)
class Estimate:
    """What a study takes."""

    runs: int
    subjects: int
    done: int  # runs that are in parcels already
    stages: tuple[StageTakes, ...]
    run_s: tuple[float, ...]  # seconds of one core of each run that is to be done, T1w included
    batches: tuple[tuple[float, int], ...]  # seconds (at its cores) and MB of each Slurm job
    cores_per_job: int
    cohort_s: float
    passing_of_a_run: float  # bytes, of the largest
    free: int  # bytes

    @cached_property
    def cpu_h(self) -> float:
        """Hours of one core, those of stages that nobody has measured left out."""
        return sum(stage.cpu_h or 0.0 for stage in self.stages)

    @property
    def left_h(self) -> float:
        """Those of runs that are not in parcels yet."""
        return (sum(self.run_s) + self.cohort_s) / 3600

    @property
    def kept(self) -> float:
        """Bytes in the end."""
        return sum(stage.kept for stage in self.stages)

    def passing(self, at_a_time: int) -> float:
        """Bytes that come and go, with so many runs worked on at a time."""
        return min(sum(stage.passing for stage in self.stages), self.passing_of_a_run * at_a_time)

    def needed(self, at_a_time: int) -> float:
        """Bytes that the disk still has to take."""
        left = 1 - self.done / self.runs if self.runs else 0.0
        return self.kept * left + self.passing(at_a_time)

    @property
    def factor(self) -> float:
        """By how much the time may be off either way."""
        known = sum(stage.cpu_h or 0.0 for stage in self.stages if stage.took is not None)
        return FACTOR_MEASURED if known > 0.8 * self.cpu_h > 0 else FACTOR

    def local_h(self, cores: int) -> float:
        """Hours on one machine with so many cores, each at one stage of a run."""
        longest = max(self.run_s, default=0.0)
        return (max(longest, sum(self.run_s) / cores) + self.cohort_s) / 3600

    def cluster_h(self, jobs: int) -> float:
        """Hours with so many jobs at a time, once they start: waiting in the queue comes on top."""
        ends = [0.0] * max(1, jobs)
        for seconds, _ in self.batches:  # each starts where one ends first
            heapq.heapreplace(ends, ends[0] + seconds)
        return (max(ends) + self.cohort_s) / 3600

    def asked(self, config: Config, mem_mb: int) -> list[Asked]:
        """The largest jobs of a cluster: a batch of recordings, and a training (`mem_mb`)."""
        longest = max((seconds for seconds, _ in self.batches), default=0.0) * self.factor / 60
        most = max((mb for _, mb in self.batches), default=0)
        gpus = 0 if config.pretrain.device == "cpu" else 1
        return [
            Asked("a batch of recordings", most, longest),
            Asked("a training", mem_mb, float("nan"), gpus),
        ]
