"""Asking Slurm: which of our jobs are in the queue, and ending them.

Every question has a time limit. A controller that does not answer is an error with a cause, never
an empty queue: who took one for the other would start jobs twice.
"""

from __future__ import annotations

import os
import pwd
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import ResourceError
from .ask import answer

#: What is done here must not be cut short: `scancel` of many jobs takes its time.
_TIMEOUT_S = 120.0
_BETWEEN = "\x1f"  # no name, path or comment holds it
_FIELDS = ("%i", "%j", "%T", "%Z", "%k", "%u")
_IDS_PER_CALL = 500  # a command line has its limits


@dataclass(frozen=True)
class Job:
    """A job that waits, runs or is ending."""

    id: str  # of an array's tasks that wait still: 17_[3-9]
    name: str  # what Snakemake gave to all jobs of one of its runs
    state: str
    folder: str  # where it was submitted: the study
    comment: str  # rule_NAME_wildcards_VALUES
    user: str


def me() -> str:
    """The user, by the name that Slurm knows: whoever was logged in first does not matter."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container that knows no names
        return os.environ.get("USER") or str(os.getuid())


def available() -> bool:
    """Whether Slurm's commands are on this machine."""
    return all(shutil.which(command) for command in ("squeue", "scancel"))


def ask(*command: str, timeout: float = _TIMEOUT_S) -> str:
    """The output of one of Slurm's commands; `ResourceError` when it does not succeed."""
    told = answer(*command, timeout=timeout)
    if told.ok:
        return told.text
    if not told.installed:
        raise ResourceError(
            told.error,
            fix="run the workflow where Slurm's commands are: on a login node of the cluster",
        )
    raise ResourceError(
        f"Slurm was asked in vain (`{command[0]}`): {told.error}",
        fix=f"try again when `{command[0]}` answers on this machine; your cluster's staff may know "
        "why it does not",
    )


def jobs(also_of: Iterable[str] = ()) -> list[Job]:
    """All jobs that have not ended, of this user and of the users `also_of`."""
    users = ",".join([str(os.getuid()), *sorted(also_of)])
    text = ask(*("squeue", "--noheader", f"--user={users}", "--format", _BETWEEN.join(_FIELDS)))
    rows = (line.split(_BETWEEN) for line in text.splitlines())
    return [Job(*(field.strip() for field in row)) for row in rows if len(row) == len(_FIELDS)]


def holds(number: str) -> bool:
    """Whether a job of this user, or an array's task, of this SLURM_JOB_ID has not ended."""
    return number in ask("squeue", "--noheader", f"--user={os.getuid()}", "--format=%A").split()


def cancel(ids: Sequence[str]) -> None:
    """Tell jobs to end: SIGTERM, and after the cluster's KillWait SIGKILL. Ended ones are fine."""
    for start in range(0, len(ids), _IDS_PER_CALL):
        # `--quiet` is about jobs that ended meanwhile.
        ask("scancel", "--quiet", *ids[start : start + _IDS_PER_CALL])


def wait_for_end(ids: Iterable[str], seconds: float, pause: float = 1.0) -> list[str]:
    """Wait until none of these jobs is in the queue; returns those that still are at the end."""
    wanted = {_whole(one) for one in ids}
    end = time.monotonic() + seconds
    while True:
        left = [job.id for job in jobs() if _whole(job.id) in wanted]
        if not left or time.monotonic() > end:
            return left
        time.sleep(pause)
        pause = min(2 * pause, 10.0)


def _whole(job_id: str) -> str:
    """The number of the array that a task belongs to; of another job, its own."""
    return job_id.partition("_")[0]
