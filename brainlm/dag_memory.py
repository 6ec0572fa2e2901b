"""How much memory the jobs of the workflow ask for."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from .config import Config

#: Volume of the template's brain.
_BRAIN_MM3 = 1.9e6
#: Memory of an imaging stage besides the run's series (float32), MB; 250 to 400 were measured.
_BASE_MB = 1000
_LEAST_MB = 3000  # registration of a T1w


class Memory(ABC):
    """Memory of jobs, from the size of the recordings and the options."""

    config: Config

    @abstractmethod
    def row(self, recording: str) -> dict[str, Any]:
        """The row of the recordings table of an eligible recording."""

    def raw_mb(self, wildcards: Any) -> int:
        """Memory for a stage that holds a raw run whole, MB."""
        voxels = math.prod(json.loads(self.row(wildcards.recording)["shape"]))
        return self._series_mb(voxels, wildcards)

    def brain_mb(self, wildcards: Any, copies: int) -> int:
        """Memory for a stage that holds the brain of a normalised run so many times, MB."""
        voxels = copies * _BRAIN_MM3 / self.config.space.resolution_mm**3
        return self._series_mb(voxels, wildcards)

    def straight_mb(self, wildcards: Any) -> int:
        """Memory for a stage that takes a run straight into parcels, MB.

        The search for components holds the brain three times, whichever stage does it.
        """
        return self.brain_mb(wildcards, 3 if self.config.denoise.method == "aroma" else 1) + 500

    def parcellate_mb(self, wildcards: Any) -> int:
        """Memory of parcellate, MB: two estimators hold the labelled voxels, the others stream."""
        holds = self.config.parcellate.estimator in ("median", "eigenvariate")
        return self.brain_mb(wildcards, 1) if holds else _BASE_MB

    def recording_mb(self, name: str) -> int:
        """Memory of the hungriest stage of a recording, MB."""
        about = Named(name)
        raw = self.raw_mb(about) if self.row(name)["kind"] is None else 0
        return max(_LEAST_MB, raw, self.brain_mb(about, 2), self.straight_mb(about))

    def mb_of_batch(self, names: Sequence[str]) -> int:
        """Memory for as many of a batch's recordings as are worked on at a time, MB."""
        at_a_time = min(self.config.jobs.cores_per_job, len(names))
        return max(map(self.recording_mb, names)) * at_a_time

    def _series_mb(self, voxels: float, wildcards: Any) -> int:
        return _BASE_MB + math.ceil(voxels * self.row(wildcards.recording)["n_volumes"] * 4 / 1e6)


class Named:
    """A recording, as rules name it to the functions that they call."""

    def __init__(self, recording: str):
        self.recording = recording
