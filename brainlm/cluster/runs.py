"""A run of the workflow looks after itself: what the last one left behind, and what it leaves.

A Snakemake that was killed leaves a lock that nobody holds, jobs in Slurm's queue that write on,
and half-made files. The same command, typed again, ends the jobs, waits until they are gone and
lifts the lock; Snakemake itself makes the half-made files anew (`rerun-incomplete`).

All this goes before Snakemake looks at any file, and stays until it has ended. Between parsing and
that there is no hook in a Snakefile, so `Workflow.execute` is wrapped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from snakemake.exceptions import LockException, WorkflowError
from snakemake.logging import logger

from ..errors import BrainLMError, ResourceError
from . import queue
from .alive import DEAD_AFTER_S, RUN_VARIABLE, Heart, Marker, Process, left_behind, markers, now
from .ask import OF_A_RULE
from .family import end
from .patience import be_patient

#: Until a cancelled job has ended: its time to save (KillWait of the cluster) and a slow epilogue.
_END_S = 600.0
_LOCKS = Path(".snakemake") / "locks"


class _Run:
    """The run of this process: its marker, once there is one."""

    def __init__(self) -> None:
        self.study = Path.cwd()
        self.marker: Marker | None = None


def guard(workflow: Any) -> _Run:
    """From now on `workflow.execute` cleans up before and after itself, but for dry runs."""
    run, execute = _Run(), workflow.execute

    def guarded(executor_plugin: Any, *args: Any, **kwargs: Any) -> Any:
        def go_on() -> Any:
            return execute(executor_plugin, *args, **kwargs)

        if executor_plugin.common_settings.dryrun_exec:
            return go_on()
        locks = workflow.execution_settings.lock  # not with --nolock
        with told_by_snakemake(), _watched(run, executor_plugin.name, alone=locks):
            return go_on()

    workflow.execute = guarded
    return run


def submitting(run: _Run, workflow: Any) -> None:
    """Note what this run's jobs are called, when Snakemake has drawn that name: at `onstart`.

    And look into the queue once more, where it is Slurm's: for a job that was just being submitted
    when its run was killed, and those of a run whose file is lost.
    """
    marker = run.marker
    if marker is None or marker.executor != "slurm":
        return
    alone = not _others(run.study, marker)[0]
    _end([job for job in queue.jobs() if alone and _is_of(job, run.study)])
    executor = workflow.scheduler._executor
    be_patient(executor)
    run.marker = marker.named(executor.run_uuid)
    run.marker.write(run.study)


@contextlib.contextmanager
def told_by_snakemake() -> Iterator[None]:
    """Our errors in Snakemake's way, without a traceback."""
    try:
        yield
    except BrainLMError as error:
        raise WorkflowError(str(error)) from None


@contextlib.contextmanager
def _watched(run: _Run, executor: str, alone: bool) -> Iterator[None]:
    """Clean up behind dead runs, be seen for as long as the block, leave nothing in the queue.

    Where the run is to be `alone`, another one that lives is refused. Snakemake's own lock is by
    the names of files: it does not see that a batch makes what a run without batches makes too.
    """
    marker = Marker(
        process=Process.this(),
        user=queue.me(),
        since=now(),
        executor=executor,
        slurm_job=os.environ.get("SLURM_JOB_ID"),
    )
    os.environ[RUN_VARIABLE] = marker.run
    try:
        marker.write(run.study)
    except OSError as error:
        raise ResourceError(
            f"This study cannot be written to: {error.strerror}",
            file=marker.path(run.study).parent,
            fix="run the workflow as the user who owns the study, on a disk with room",
        ) from None
    run.marker = marker
    heart = Heart(marker.path(run.study), _replaced)
    try:
        clean_up(run.study, marker)
        if alone:
            _refuse_company(run.study, marker)
        yield
    except LockException:
        _refuse_company(run.study, marker)
        raise
    except BaseException:
        heart.stop()
        _cancel_own(run)
        raise
    finally:
        heart.stop()
        if run.marker is not None:
            run.marker.path(run.study).unlink(missing_ok=True)


def clean_up(study: Path, mine: Marker) -> None:
    """End what dead runs of this study have left: processes, jobs in the queue, the lock."""
    living, dead = _others(study, mine)
    if not dead:
        return
    for one in dead:
        logger.warning(f"An earlier run was killed: {one}. Cleaning up behind it.")
        if one.executor not in ("local", "slurm"):
            logger.warning(
                f"Its jobs may still be in the queue of {one.executor}, which is not asked."
            )
        if one.process.is_of_this_machine:
            end(left_behind(one.run))
    _end(_orphans(study, dead, alone=not living))
    if not living:
        shutil.rmtree(study / _LOCKS, ignore_errors=True)
        (study / _LOCKS).mkdir(parents=True, exist_ok=True)
    for one in dead:
        one.path(study).unlink(missing_ok=True)


def _others(study: Path, mine: Marker) -> tuple[list[Marker], list[Marker]]:
    """The other runs of this study: those that live, and those that are surely dead."""
    living: list[Marker] = []
    dead: list[Marker] = []
    for one in markers(study):
        if one.run != mine.run:
            with contextlib.suppress(FileNotFoundError):
                (living if _lives(one, study, mine) else dead).append(one)
    return living, dead


def _lives(one: Marker, study: Path, mine: Marker) -> bool:
    """Whether a run is there still, as far as can be known from here."""
    if one.process.is_of_this_machine and not one.process.is_hidden:
        return one.process.lives
    if one.age(study, mine) > DEAD_AFTER_S:
        return False
    if one.slurm_job is None:
        return True
    if one.slurm_job == mine.slurm_job:  # Slurm has put it back, and started it on another node
        return False
    # Of somebody else's jobs many clusters tell nothing.
    if one.user != queue.me() or not queue.available():
        return True
    return queue.holds(one.slurm_job)


def _is_of(job: queue.Job, study: Path) -> bool:
    """Whether the workflow has submitted this job for this study."""
    return job.comment.startswith(OF_A_RULE) and os.path.realpath(job.folder) == os.path.realpath(
        study
    )


def _orphans(study: Path, dead: Sequence[Marker], alone: bool) -> list[queue.Job]:
    """Jobs of dead runs; where no other run lives, all that the workflow has submitted here."""
    submitted = [one for one in dead if one.executor == "slurm"]
    if not submitted:
        return []
    names = {one.slurm_name for one in submitted} - {None}
    if not queue.available():
        raise ResourceError(
            "A killed run may have left jobs in Slurm's queue, and Slurm's commands are not here",
            file=submitted[0].path(study),
            fix="run the workflow on a login node of the cluster; or there type "
            f"`scancel --name {','.join(sorted(filter(None, names)))}`, and delete this file",
        )
    me = queue.me()
    jobs = queue.jobs(also_of={one.user for one in submitted} - {me})
    found = [job for job in jobs if job.name in names or (alone and _is_of(job, study))]
    foreign = [job for job in found if job.name in names and job.user != me]
    if foreign:
        raise ResourceError(
            f"A killed run of {foreign[0].user} has left jobs in the queue, and only that user "
            f"may cancel them: {_some([job.id for job in foreign])}",
            file=submitted[0].path(study),
            fix=f"ask for `scancel --name {foreign[0].name}`, or wait until they have ended",
        )
    return found


def _end(jobs: Sequence[queue.Job]) -> None:
    """Cancel jobs and wait until they are gone."""
    if not jobs:
        return
    ids = [job.id for job in jobs]
    logger.warning(f"Cancelling {len(ids)} jobs of an earlier run: {_some(ids)}.")
    queue.cancel(ids)
    left = queue.wait_for_end(ids, _END_S)
    if left:
        raise ResourceError(
            f"{len(left)} jobs of an earlier run do not end: {_some(left)}",
            fix=f"wait until `squeue -j {','.join(left[:5])}` shows them no more (a node may be "
            "gone: ask your cluster's staff), then type the same command again",
        )


def _some(ids: Sequence[str]) -> str:
    """Some of many numbers."""
    return ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")


def _cancel_own(run: _Run) -> None:
    """After an end before time: cancel what Snakemake did not, such as jobs just submitted.

    Where Slurm does not answer, the marker stays, and the next run does it.
    """
    if run.marker is None or run.marker.slurm_name is None:
        return
    name = run.marker.slurm_name
    try:
        queue.cancel([job.id for job in queue.jobs() if job.name == name])
    except BrainLMError as error:
        logger.warning(
            f"Jobs of this run may still be in the queue. {error}\n"
            f"The next run cancels them; or type: scancel --name {name}"
        )
        run.marker = None


def _replaced() -> None:
    """Another run took this one for dead: end, as at Ctrl-C."""
    logger.error(
        "Another run took this one for dead, since it gave no sign of life for "
        f"{DEAD_AFTER_S:g} s: this one ends"
    )
    os.kill(os.getpid(), signal.SIGINT)


def _refuse_company(study: Path, mine: Marker) -> None:
    """Refuse to work beside a run that lives, and say who that is."""
    living, _ = _others(study, mine)
    if not living:
        return
    lines = [f"Another Snakemake works on this study: {one}" for one in living]
    fix = "wait until it has ended, or end it there (Ctrl-C, or `kill -INT` its process)"
    far = [one for one in living if not one.process.is_of_this_machine]
    if far:
        age = max(one.age(study, mine) for one in far)
        fix += (
            f". Its last sign of life is {age:.0f} s old: if that machine is gone, "
            f"type the same command again in {max(0.0, DEAD_AFTER_S - age):.0f} s"
        )
    raise ResourceError("\n".join(lines), file=study, fix=fix)
