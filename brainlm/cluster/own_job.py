"""The Slurm job that this process is part of: its time left, and its way back into the queue.

Snakemake's executor takes most of Slurm's variables away from its jobs, the time limit among them;
Slurm itself is asked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from ..files import read_json, write_json
from .ask import OF_A_RULE, Answer, answer

#: Seconds that Slurm has for an answer.
_PATIENCE_S = 30.0
#: As squeue tells a time: [days-][[hours:]minutes:]seconds.
_DURATION = re.compile(r"(?:(\d+)-)?(?:(?:(\d+):)?(\d+):)?(\d+)")


def name_of(environment: Mapping[str, str]) -> str | None:
    """The job as Slurm's commands take it; None outside of a job.

    The number of an array's task may stand for the whole array.
    """
    array, task = (environment.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID")


def seconds_left(environment: Mapping[str, str]) -> float:
    """Seconds until the job's time limit; infinite where there is none, or nobody tells.

    A job that is over by the clock of this machine is not believed to be.
    """
    job = name_of(environment)
    if job is None:
        return math.inf
    left = seconds_of(_ask("squeue", "--noheader", "--jobs", job, "--format", "%L").text)
    return left if left > 0 else math.inf


def seconds_of(told: str) -> float:
    """A time as squeue tells it, in seconds; infinite for UNLIMITED and other words."""
    match = _DURATION.fullmatch(told.strip())
    if match is None:
        return math.inf
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def put_back(job: str, notes: Path, step: int) -> str | None:
    """Put the `job` back into the queue; None, or the reason why it is not there now.

    In `notes` stands how often that was tried, and the `step` that the training had come to: where
    that is no further than it was the time before, the job would go round for ever. A job that
    does not run any more was cancelled, or Slurm has put it back already: it is left as it is, and
    so is one in which somebody runs a whole workflow: those of Snakemake's executor are told by
    their comment.
    """
    before = read_json(notes) if notes.exists() else {"times": 0, "step": -1}
    write_json(notes, {"times": before["times"] + 1, "step": step})
    if step <= before["step"]:
        return f"it was at step {before['step']} the time before, and has come no further"
    told = _ask("squeue", "--noheader", "--jobs", job, "--format", "%T %k")
    if not told.ok:
        return told.error
    state, _, comment = told.text.strip().partition(" ")
    if state != "RUNNING":
        return f"its state is {state or 'not known to squeue'}"
    if not comment.startswith(OF_A_RULE):
        return "it was not submitted by Snakemake for a rule"
    back = _ask("scontrol", "requeue", job)
    return None if back.ok else back.error


def _ask(*command: str) -> Answer:
    return answer(*command, timeout=_PATIENCE_S)
