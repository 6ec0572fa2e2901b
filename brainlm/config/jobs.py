"""Options of how the work is cut into jobs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Section


class Jobs(Section):
    """How the work is cut into jobs: it changes no result."""

    # Their names stand in one command line, which may hold 128 KiB.
    recordings_per_job: Annotated[int, Field(ge=1, le=1000)] = Field(
        1,
        description="recordings that one job takes all the way to parcels, all of a subject "
        "together; 1: each stage of each recording is a job. The Slurm profile sets both of these, "
        "whatever stands here",
    )
    cores_per_job: Annotated[int, Field(ge=1)] = Field(
        4, description="recordings that such a job works on at a time, each on one core"
    )
    gpu_gres: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(:[A-Za-z0-9_.]+)?$")] | None = Field(
        None,
        description="how the cluster calls its GPUs (sinfo -o %G): gpu, gpu:a100, or gpu:1g.10gb "
        "for a part of one; jobs then ask for them by --gres; null: by --gpus",
    )
