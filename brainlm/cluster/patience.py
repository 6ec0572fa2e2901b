"""Patience, which Snakemake's Slurm executor lacks while Slurm's controller is away for minutes.

That happens in the weeks that a large study takes. `sbatch` gives up after some seconds; Snakemake
takes that for a failure of the job, and soon all tries that `retries` allows are used up. When the
executor asks in vain how its jobs are, it forgets them, and waits for ever.

Methods of the executor are replaced for that. Where another version has none of that name, nothing
is replaced, and a warning says what the run has to do without.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from snakemake.logging import logger

from .ask import answer

_PAUSE_S = 10.0


def be_patient(executor: Any) -> None:
    """Give Snakemake's Slurm executor all the patience that it can be given."""
    for gift in (wait_for_controller, remember_jobs):
        try:
            gift(executor)
        except AttributeError as error:
            logger.warning(
                f"Another Slurm plugin of Snakemake than brainlm knows ({error}): this run may "
                "suffer if Slurm's controller is away for a while. requirements.lock names the "
                "version that is known."
            )


def remember_jobs(executor: Any) -> None:
    """Have the executor keep the jobs of which it could not find out how they are."""
    check, told = executor.check_active_jobs, set()
    report_success, report_error = executor.report_job_success, executor.report_job_error

    def noting(report: Callable[..., None]) -> Callable[..., None]:
        def noted(job: Any, *args: Any, **kwargs: Any) -> None:
            told.add(id(job))
            report(job, *args, **kwargs)

        return noted

    async def check_and_keep(active: Sequence[Any]) -> AsyncIterator[Any]:
        jobs = list(active)
        told.clear()
        async for job in check(jobs):
            told.add(id(job))
            yield job
        forgotten = [job for job in jobs if id(job) not in told]
        if forgotten:
            logger.warning(
                f"Slurm did not say how {len(forgotten)} jobs are. It will be asked again."
            )
        for job in forgotten:
            yield job

    executor.report_job_success = noting(report_success)
    executor.report_job_error = noting(report_error)
    executor.check_active_jobs = check_and_keep


def wait_for_controller(executor: Any, pause_s: float = _PAUSE_S) -> None:
    """Have Snakemake's Slurm executor submit only while the controller is there.

    After Ctrl-C nothing is submitted any more: the executor itself would still submit what waits.
    """
    cancelled, cancel, submit = threading.Event(), executor.cancel, executor.run_job

    def submit_when_it_is_there(job: Any) -> None:
        told = False
        while not cancelled.is_set() and _is_away():
            if not told:
                logger.warning("Slurm's controller is away: jobs are submitted when it is back.")
            told = True
            cancelled.wait(pause_s)
        if not cancelled.is_set():
            submit(job)

    def cancel_all() -> None:
        cancelled.set()
        cancel()

    executor.run_job = submit_when_it_is_there
    executor.cancel = cancel_all


def _is_away() -> bool:
    """Whether Slurm says that no controller is up; who cannot ask finds out by submitting."""
    told = answer("scontrol", "ping").text
    return " is DOWN" in told and " is UP" not in told
