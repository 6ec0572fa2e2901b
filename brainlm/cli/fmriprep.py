"""`brainlm fmriprep`: fMRIPrep in a container, on one subject or session."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    from ..errors import DataError
    from ..files import write_json
    from ..fmriprep.arguments import FILTER_NAME
    from ..fmriprep.jobs import SURFACES, check_anatomy
    from ..fmriprep.outcome import check_version, fmriprep_version, judge, missing_outputs
    from ..fmriprep.outputs import install, keep_evidence, remove_owned
    from ..fmriprep.process import remove, run_streaming, scratch, stopping_on_signals

    final = run.path("fmriprep_outputs")
    check_anatomy(run.job.name, run.rows, run.params["fmriprep"]["level"])
    run.check_raw()
    plan, filters = _plan(run, places, threads, mem_gb)
    remove(places.out)
    try:
        with stopping_on_signals(), scratch(places.work):
            for name in plan.fsaverage or ("",):
                (places.out / SURFACES / name if name else places.out).mkdir(
                    parents=True, exist_ok=True
                )
            if filters:
                write_json(places.work / FILTER_NAME, filters)
            say(shlex.join(plan.command))
            code, log = run_streaming(plan.command, say, plan.on_stop)
        error = judge(run.job, code, log, places.out)
        if error is None:
            check_version(version := fmriprep_version(places.out), plan.version)
            if absent := missing_outputs(run.job, places.out):
                error = DataError(
                    f"fMRIPrep ended well but made no {absent[0].partition(': ')[2]} of "
                    f"{absent[0].partition(': ')[0]} ({len(absent)} outputs are missing)",
                    fix=f"look at qc/fmriprep/{run.job.name}, or leave the recording out",
                )
        if error is not None:
            kept = keep_evidence(places.out, run.path("fmriprep_crashes"))
            if error.file is not None:
                error.file = str(kept.get(Path(error.file), error.file))
            if isinstance(error, DataError):
                remove_owned(run.job, final)
            raise error
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


def _plan(
    run: JobRun, places: Places, threads: int, mem_gb: float
) -> tuple[Plan, dict[str, dict[str, list[str]]]]:
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
