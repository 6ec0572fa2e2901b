"""Before anything is submitted: would Slurm take the jobs of this run, and tell of their end?"""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from snakemake.common.tbdstring import TBDString
from snakemake.logging import logger

from ..errors import ResourceError
from .admission import Following, Request, first_account, problems, raise_all
from .ask import answer
from .site import find_site

#: From here on it is worth a word that recordings are not in batches.
_MANY_JOBS = 2000
#: Resources of a job that are options of sbatch under another name.
_OPTIONS = {
    "mem_mb": "--mem",
    "mem_mb_per_cpu": "--mem-per-cpu",
    "gres": "--gres",
    "constraint": "--constraint",
    "qos": "--qos",
    "nodes": "--nodes",
}
_STAND_IN = """\
#!/bin/sh
# Snakemake's Slurm plugin asks sacct for an account, and submits nothing where there is no sacct.
echo "sacct is not installed on this machine" >&2
exit 1
"""


def check(workflow: Any) -> None:
    """Refuse a run on Slurm whose jobs could not end; nothing on any other executor.

    Called with Snakemake's workflow when it knows its jobs and has submitted none.
    """
    if type(workflow.executor_settings).__module__ != "snakemake_executor_plugin_slurm":
        return
    site = find_site()
    if site is None:
        raise ResourceError(
            f"Slurm does not answer: {answer('sinfo', '--noheader').error or 'no sbatch here'}",
            fix="run the workflow on a login node, when `sinfo` lists the partitions there",
        )
    settings = workflow.executor_settings
    following = Following(
        settings.status_command or "sacct",
        settings.init_seconds_before_status_checks or 40,
        settings.array_jobs or "",
    )
    jobs = list(workflow.dag.needrun_jobs())
    places = partition_chooser(settings.partition_config)
    asked = requests(jobs, places, _of_all_jobs(settings))
    raise_all(problems(site, following, asked))
    told = without_batches(len(jobs), workflow.config)
    if told is not None:
        logger.warning(told)
    if shutil.which("sacct") is None:
        stand_in_for_sacct()


def without_batches(jobs: int, config: Mapping[str, Any]) -> str | None:
    """What to say of many jobs that take one stage of one recording each."""
    section = config.get("jobs") or {}
    if jobs < _MANY_JOBS or section.get("recordings_per_job", 1) > 1:
        return None
    return (
        f"{jobs} jobs, for recordings are not in batches (jobs.recordings_per_job is 1). The Slurm "
        "profile puts them there, but for runs with `--config`, which replaces its line: say "
        '--config "jobs={recordings_per_job: 25, cores_per_job: 4}" besides what you said.'
    )


def _of_all_jobs(settings: Any) -> tuple[str, ...]:
    """What the profile has every job ask for."""
    named = {"--qos": settings.qos, "--reservation": settings.reservation}
    return tuple(f"{option}={value}" for option, value in named.items() if value)


def requests(
    jobs: Iterable[Any], partition_of: Callable[[Any], str], further: tuple[str, ...] = ()
) -> Iterator[Request]:
    """What jobs ask for: of each rule that one that takes longest, and that with most memory.

    `further` are options that all of them have.
    """
    longest: dict[str, Any] = {}
    largest: dict[str, Any] = {}
    for job in jobs:
        if job.is_local:
            continue
        for chosen, resource in ((longest, "runtime"), (largest, "mem_mb")):
            rival = chosen.setdefault(job.name, job)
            if _number(job.resources.get(resource)) > _number(rival.resources.get(resource)):
                chosen[job.name] = job
    for name in longest:
        for job in dict.fromkeys((longest[name], largest[name])):
            yield request(job, partition_of(job), further)


def request(job: Any, partition: str, further: tuple[str, ...] = ()) -> Request:
    """What one job asks for, as the plugin will say it to sbatch."""
    from snakemake_executor_plugin_slurm.partitions import parse_gpu_requirements

    resources = job.resources
    gpus = int(_number(resources.get("gpu")))
    options = [
        f"{option}={resources.get(name)}"
        for name, option in _OPTIONS.items()
        if resources.get(name) not in (None, "")
        and not isinstance(resources.get(name), TBDString)  # known when the job's files are there
        and not (name == "mem_mb" and resources.get("mem_mb_per_cpu"))
    ]
    model = resources.get("gpu_model")
    if gpus or model:
        options.append(f"--gpus={model}:{gpus or 1}" if model else f"--gpus={gpus}")
    on_gpu = bool(gpus) or "gpu" in str(resources.get("gres", ""))
    if resources.get("cpus_per_task"):
        options.append(f"--cpus-per-task={resources.get('cpus_per_task')}")
    elif on_gpu and resources.get("cpus_per_gpu"):
        options.append(f"--cpus-per-gpu={resources.get('cpus_per_gpu')}")
    else:
        options.append(f"--cpus-per-task={job.threads}")
    return Request(
        rule=job.name,
        partition=partition,
        account=first_account(resources.get("slurm_account")),
        minutes=int(_number(resources.get("runtime"))),
        last_minutes=_last_minutes(job),
        gpus=parse_gpu_requirements(job)[0],  # by `gpu` or by `gres`
        # In the plugin's order: of an option that is said twice, sbatch takes the last.
        options=(*options, *further, *shlex.split(str(resources.get("slurm_extra") or ""))),
    )


def partition_chooser(table: Path | None) -> Callable[[Any], str]:
    """How the plugin finds the partition of a job: the job's own, else one of the table."""
    table = table or (
        Path(named) if (named := os.environ.get("SNAKEMAKE_SLURM_PARTITIONS")) else None
    )
    if table is None:
        return lambda job: str(job.resources.get("slurm_partition", ""))
    from snakemake_executor_plugin_slurm.partitions import get_best_partition, read_partition_file

    known = read_partition_file(table)

    def chosen(job: Any) -> str:
        given = job.resources.get("slurm_partition")
        return str(given or get_best_partition(known, job, _Silent()) or "")

    return chosen


def stand_in_for_sacct() -> None:
    """Put a `sacct` on PATH that knows nothing: without one, the plugin submits no job."""
    folder = Path(tempfile.mkdtemp(prefix="brainlm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = folder / "sacct"
    program.write_text(_STAND_IN)
    program.chmod(0o755)
    os.environ["PATH"] = f"{os.environ['PATH']}{os.pathsep}{folder}"


class _Silent:
    """A logger for the plugin's choice of partitions, which it will tell when it submits."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def _last_minutes(job: Any) -> int:
    """Minutes that a job asks for when it is tried for the last time."""
    attempt = 1 + (job.restart_times or 0)
    last = job.rule.expand_resources(job.wildcards_dict, job.input, attempt)
    return int(_number(last.get("runtime")))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
