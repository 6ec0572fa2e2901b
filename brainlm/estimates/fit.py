"""Whether the jobs fit the partitions of a cluster, and the files the disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..cluster.site import Partition, Site
from ..config import Config
from ..config.strict_yaml import parse_yaml, read_yaml
from ..resources import share_dir


@dataclass(frozen=True)
class Asked:
    """The largest job of a kind."""

    what: str
    mem_mb: int
    minutes: float  # that it is expected to take, at most; nan: not known
    gpus: int = 0


def partition_fits(site: Site, jobs: list[Asked]) -> list[tuple[str, bool, str]]:
    """Each usable partition, whether all of these jobs that would go there fit, and why not."""
    return [_fit(one, jobs) for one in site.partitions if one.usable]


def _fit(one: Partition, jobs: list[Asked]) -> tuple[str, bool, str]:
    against, fitting = [], []
    for job in jobs:
        limit = one.max_minutes
        if job.gpus and not one.gpus:
            continue
        if not job.gpus and one.nodes and one.nodes == one.gpu_nodes:
            continue  # only nodes with GPUs: not for jobs that need none
        if one.mem_mb and job.mem_mb > one.mem_mb:
            against.append(
                f"{job.what} asks for {job.mem_mb / 1000:.1f} GB, its largest node has "
                f"{one.mem_mb / 1000:.1f}"
            )
        elif limit is not None and job.minutes > limit:
            against.append(f"{job.what} may take {job.minutes:.0f} minutes, its limit is {limit}")
        else:
            fitting.append(job.what)
    if against:
        return one.name, False, "; ".join(against)
    return one.name, bool(fitting), f"{', '.join(fitting)} fit" if fitting else "nothing for it"


def free_bytes(study: Path) -> int:
    """Free room on the disk of a study that may not be there yet."""
    there = study.resolve()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def cluster_config(config: Config, study: Path) -> Config:
    """The config as the study's Slurm profile has it, which sets how work is cut into jobs."""
    for folder in (study, share_dir()):
        path = folder / "config" / "profiles" / "slurm" / "config.yaml"
        if path.is_file():
            break
    else:
        return config
    said = _jobs_said(path)
    return config.model_copy(update={"jobs": config.jobs.model_copy(update=said)})


def _jobs_said(path: Path) -> dict[str, Any]:
    """What `config: ["jobs={...}"]` of a profile says; nothing where it says it another way."""
    try:
        lines = (read_yaml(path, "The profile", fix="mend the line named") or {}).get(
            "config"
        ) or []
        told = [line.removeprefix("jobs=") for line in lines if str(line).startswith("jobs=")]
        said = parse_yaml(told[-1]) if told else {}
    except (OSError, yaml.YAMLError, AttributeError):
        return {}
    numbers = ("recordings_per_job", "cores_per_job")
    return {key: said[key] for key in numbers if isinstance(said.get(key), int)}
