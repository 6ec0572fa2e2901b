"""Submitting jobs while Slurm's controller is away: later.

`sbatch` gives up after some seconds. Snakemake takes that for a failure of the job, tries it as
often as `retries` says, and has soon used up all tries of all jobs that are ready. Restarts of a
controller take minutes, and happen in the weeks that a large study takes.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from typing import Any

from snakemake.logging import logger

_PAUSE_S = 10.0
_TIMEOUT_S = 60.0


def wait_for_controller(executor: Any, pause_s: float = _PAUSE_S) -> None:
    """Have Snakemake's Slurm executor submit only while the controller is there.

    After Ctrl-C nothing is submitted any more: the executor itself would still submit what waits.
    """
    cancelled, cancel = threading.Event(), executor.cancel

    def patient(submit: Callable[[Any], None]) -> Callable[[Any], None]:
        def submit_when_it_is_there(jobs: Any) -> None:
            told = False
            while not cancelled.is_set() and _is_away():
                if not told:
                    logger.warning(
                        "Slurm's controller is away: jobs are submitted when it is back."
                    )
                told = True
                cancelled.wait(pause_s)
            if not cancelled.is_set():
                submit(jobs)

        return submit_when_it_is_there

    def cancel_all() -> None:
        cancelled.set()
        cancel()

    executor.run_job = patient(executor.run_job)
    executor.run_array_jobs = patient(executor.run_array_jobs)
    executor.cancel = cancel_all


def _is_away() -> bool:
    """Whether Slurm says that no controller is up; who cannot ask finds out by submitting."""
    command = ("scontrol", "ping")
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return " is DOWN" in done.stdout and " is UP" not in done.stdout
