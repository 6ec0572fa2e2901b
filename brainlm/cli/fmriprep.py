"""`brainlm fmriprep`: fMRIPrep in a container, on one subject or session."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import BrainLMError, DataError
from ._console import say, warn
from ._job import JobRun, giving_up_together, open_job
from ._stage import (
    HERE,
    OnDataError,
    OnDataErrorOption,
    ParamsOption,
    StudyOption,
    ThreadsOption,
)

if TYPE_CHECKING:
    from ..fmriprep.plan import Places, Plan

JobArg = Annotated[str, typer.Argument(help="sub-01; sub-01_ses-1 if fmriprep.level is session")]
SessionOption = Annotated[
    str | None, typer.Option("--session", help="the session, if it is not named with the subject")
]
MemoryOption = Annotated[float, typer.Option("--mem-gb", help="memory of the job, GB", min=1)]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="check what is needed, print the command, run nothing")
]

#: As `--bids-filter-file` holds it.
Filters = dict[str, dict[str, list[str]]]

OUTPUTS = ("fmriprep_manifest",)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("fmriprep")(fmriprep)


def fmriprep(
    job: JobArg,
    session: SessionOption = None,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    on_data_error: OnDataErrorOption = OnDataError.stop,
    threads: ThreadsOption = 4,
    mem_gb: MemoryOption = 16.0,
    dry_run: DryRunOption = False,
) -> None:
    """Run fMRIPrep in a container on one subject (or session): engine fmriprep.

    Apptainer or Docker must be installed. The image is pinned by its digest. Before anything
    starts the licence of FreeSurfer, the templates and, for surfaces, fsaverage are looked for;
    `brainlm containers` brings them here. The job writes into a folder of its own, and its files
    are moved to derivatives/fmriprep when exit code, report and outputs say that all went well;
    the manifest in derivatives/fmriprep-jobs lists them. Scratch is removed however it ends.
    """
    run = open_job("fmriprep", f"{job}_{_with_key(session)}" if session else job, study, params)
    if dry_run:
        say(shlex.join(_plan(run, _places(run), threads, mem_gb)[0].command))
        return
    with giving_up_together(run, on_data_error, OUTPUTS), _alone(run):
        _run_job(run, _places(run), threads, mem_gb)


def _run_job(run: JobRun, places: Places, threads: int, mem_gb: float) -> None:
    """Run the container, judge its end, and put its files where they belong."""
    from ..fmriprep.jobs import check_anatomy
    from ..fmriprep.outcome import fmriprep_version
    from ..fmriprep.outputs import install
    from ..fmriprep.process import remove

    check_anatomy(run.job.name, run.rows, run.params["fmriprep"]["level"])
    run.check_raw()
    plan, filters = _plan(run, places, threads, mem_gb)
    final = run.path("fmriprep_outputs")
    remove(places.out)
    try:
        code, log = _run_container(plan, filters, places)
        if (error := _verdict(run, plan, places, code, log)) is not None:
            raise _with_evidence(run, places, error)
        version = fmriprep_version(places.out)
        files = install(run.job, places.out, final)
    finally:
        remove(places.out)
    remove(run.path("fmriprep_crashes"))
    run.write_manifest(
        "fmriprep_manifest",
        {
            "Job": run.job.name,
            "Recordings": list(run.job.recordings),
            "FmriprepVersion": version,
            "ImageDigest": plan.digest,
            "Runtime": plan.runtime,
            "Command": ["fmriprep", *plan.inside],
            "ExitCode": code,
            "Files": files,
        },
    )
    say(f"{run.job.name}: {len(files)} files in {run.study.relative(final)}")


def _run_container(plan: Plan, filters: Filters, places: Places) -> tuple[int, list[str]]:
    """Run the job's command in a scratch folder; its exit code and its last lines."""
    from ..files import write_json
    from ..fmriprep.arguments import FILTER_NAME
    from ..fmriprep.jobs import SURFACES
    from ..fmriprep.process import run_streaming, scratch
    from ..signals import stopping_on_signals

    again = "run it again; its container was ended and its scratch removed"
    with stopping_on_signals(fix=again), scratch(places.work):
        places.out.mkdir(parents=True)
        for name in plan.fsaverage:
            (places.out / SURFACES / name).mkdir(parents=True)
        if filters:
            write_json(places.work / FILTER_NAME, filters)
        say(shlex.join(plan.command))
        return run_streaming(plan.command, say, plan.on_stop)


def _verdict(
    run: JobRun, plan: Plan, places: Places, code: int, log: list[str]
) -> BrainLMError | None:
    """What is wrong with a run that has ended; None if its outputs may be used."""
    from ..fmriprep.outcome import judge, missing_outputs, wrong_version

    error = judge(run.job, code, log, places.out) or wrong_version(places.out, plan.version)
    if error is None and (absent := missing_outputs(run.job, places.out)):
        recording, _, kind = absent[0].partition(": ")
        return DataError(
            f"fMRIPrep ended well but made no {kind} of {recording} "
            f"({len(absent)} outputs are missing)",
            fix=f"look at qc/fmriprep/{run.job.name}, or leave the recording out",
        )
    return error


def _with_evidence(run: JobRun, places: Places, error: BrainLMError) -> BrainLMError:
    """Keep the reports and crash files of a failed run, and have its error name the copy.

    Bad data also take away what an earlier run made of them.
    """
    from ..fmriprep.outputs import keep_evidence, remove_owned

    kept = keep_evidence(places.out, run.path("fmriprep_crashes"))
    if error.file is not None:
        error.file = str(kept.get(Path(error.file), error.file))
    if isinstance(error, DataError):
        remove_owned(run.job, run.path("fmriprep_outputs"))
    return error


def _plan(run: JobRun, places: Places, threads: int, mem_gb: float) -> tuple[Plan, Filters]:
    """The job's command, and the filter that keeps ineligible runs out of it."""
    from ..fmriprep.jobs import bids_filter, lets_through
    from ..fmriprep.plan import plan_job

    filters = bids_filter(run.job.recordings, run.of_subject)
    for name in run.of_subject:
        mine = run.job.session is None or f"_ses-{run.job.session}_" in name
        if mine and name not in run.job.recordings and lets_through(filters, name):
            warn(f"{name} is not eligible, but fMRIPrep cannot be kept from reading it")
    plan = plan_job(
        run.job,
        run.params["fmriprep"],
        run.config.containers,
        places,
        threads=threads,
        mem_gb=mem_gb,
        seed=run.params["seed"],
        filtered=bool(filters),
    )
    return plan, filters


def _places(run: JobRun) -> Places:
    from ..fmriprep.plan import Places
    from ..fmriprep.process import scratch_folder

    root, name = run.study.root, run.job.name
    return Places(
        study=root,
        bids=run.bids_dir,
        out=run.path("fmriprep_outputs") / f".tmp-{name}",
        work=scratch_folder(name, root, run.config.containers.work_dir),
    )


@contextlib.contextmanager
def _alone(run: JobRun) -> Iterator[None]:
    """Hold the job's lock: two runs of one job would empty each other's folders."""
    from ..files import exclusive

    folder = run.path("fmriprep_manifest").parent
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / f".{run.job.name}.lock"
    with exclusive(lock, what=f"{run.job.name} is being processed already"):
        yield


def _with_key(session: str) -> str:
    return session if session.startswith("ses-") else f"ses-{session}"
