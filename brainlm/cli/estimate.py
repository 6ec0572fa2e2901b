"""`brainlm estimate`: what a study will take, before anyone submits a job."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from ..wording import counted
from ._console import say, warn
from ._stage import HERE, StudyOption

if TYPE_CHECKING:
    from pathlib import Path

    from ..config import Config
    from ..estimates.takes import Estimate


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("estimate")(estimate)


def estimate(
    study: StudyOption = HERE,
    jobs: Annotated[
        list[int] | None,
        typer.Option(help="jobs of a cluster at a time, to tell the time for; may be repeated"),
    ] = None,
    cores: Annotated[
        int | None, typer.Option(help="cores of this machine; left out: all of them", min=1)
    ] = None,
) -> None:
    """Tell what a study will take: CPU-hours, disk, memory, time, and which partitions fit.

    One line for each stage: how often its command works, its CPU-hours, what it leaves on the disk,
    what it writes and the workflow deletes again, and the memory that its largest job asks for.
    Edit the config and ask again: nothing is written. Times are those of a model fitted to measured
    runs; once three jobs of a stage have run in this study, those of its own earlier jobs.

    How long a training takes is for your GPU to say; here stands what it computes.
    """
    from ..bids.onboarded import check_onboarded
    from ..cluster.site import find_site
    from ..config import load_config
    from ..errors import InputError
    from ..estimates import text
    from ..estimates.fit import cluster_config
    from ..estimates.training import training_of
    from ..layout import Study

    place = Study(study.resolve())
    config = load_config(place.path("config"))
    try:
        check_onboarded(config, place.root)
    except InputError as error:
        warn(str(error))
    found = estimate_of(config, place.root)
    machine = cores or usable_cores()
    say(
        f"{config.name}: {counted(found.runs, 'recording')} of {counted(found.subjects, 'subject')}"
    )
    for line in text.table(found):
        say(line)
    told = text.whole(found, machine, tuple(jobs) if jobs else text.JOBS)
    told += text.partitions(found, find_site(), cluster_config(config, place.root))
    for line in [*told, *text.training(training_of(config, found.runs))]:
        say(line)


def estimate_of(config: Config, study: Path) -> Estimate:
    """What the recordings table of a study comes to."""
    from ..atlas.registry import find_atlas
    from ..errors import InputError
    from ..estimates.plan import estimate
    from ..layout import Study
    from ..recordings import read_rows

    path = Study(study).path("recordings")
    rows = read_rows(path)
    if not any(row["eligible"] for row in rows):
        raise InputError(
            f"None of the {len(rows)} recordings of this study is eligible",
            file=path.with_suffix(".tsv"),
            fix="its column `reason` says why; mend the data or the config, onboard again",
        )
    return estimate(config, rows, study, find_atlas(config.atlas.name).n_labels)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
