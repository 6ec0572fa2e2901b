"""`brainlm run-batch`: many recordings from raw data to parcels, as one job."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ..wording import counted
from ._console import say
from ._stage import HERE, StudyOption, ThreadsOption

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..layout import Study

RecordingsArg = Annotated[
    list[str],
    typer.Argument(help="recording_ids; those that share a T1w must not be in two batches at once"),
]
BatchOption = Annotated[str, typer.Option(help="number of the batch, which names its files")]
ConfigOption = Annotated[
    str | None,
    typer.Option(help="JSON of config sections that differ from those of the study's config"),
]
MegabytesOption = Annotated[
    int | None, typer.Option("--mem-mb", help="memory that its recordings may use in all", min=1)
]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("run-batch")(run_batch)


def run_batch(
    recording_ids: RecordingsArg,
    batch: BatchOption = "0000",
    study: StudyOption = HERE,
    threads: ThreadsOption = 1,
    mem_mb: MegabytesOption = None,
    config: ConfigOption = None,
) -> None:
    """Take recordings all the way to parcels, in one job (the Slurm profile's jobs do this).

    The same stages as without batches, by a Snakemake of its own, one recording on each core; what
    is done already is not done again. Writes the quality figures too, and at last
    jobs/batch-NUMBER.tsv: each recording and the hash of its parcel series, or n/a where it was
    given up.
    """
    from ..config.files import parse_config, read_content
    from ..errors import ResourceError
    from ..files import write_text
    from ..layout import ONLY_BATCH, Study

    folder = Study(study.resolve())
    given = json.loads(config) if config else {}
    content = {**read_content(folder.path("config")), **given}
    labels = parse_config(content, source=folder.path("config")).labels
    _check_own(folder.path("batch", batch=batch), recording_ids)
    about = {ONLY_BATCH: {"number": batch, "recordings": recording_ids}}
    if work_on_batch(folder.root, {**given, **about}, threads, mem_mb):
        raise ResourceError(
            f"Not all recordings of batch {batch} could be worked on; the lines above say why",
            file=folder.root / "logs",
            fix="mend the cause and run the workflow again: it goes on where it stopped",
        )
    write_text(folder.path("batch", batch=batch), _list(folder, recording_ids, labels))
    say(f"batch {batch}: {counted(len(recording_ids), 'recording')}")


def _check_own(path: Path, recording_ids: list[str]) -> None:
    """Refuse to write over the list of a batch of other recordings, which stands for their series.

    The workflow's own jobs find no list: Snakemake takes away what a job is to make.
    """
    from ..errors import InputError

    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    if [line.partition("\t")[0] for line in lines] != recording_ids:
        raise InputError(
            "This batch is of other recordings",
            file=path,
            fix="give --batch a number that is free",
        )


def work_on_batch(
    study: Path,
    given: dict[str, object],
    threads: int,
    mem_mb: int | None = None,
    files: Sequence[str] = (),
) -> int:
    """Run workflow/Batch.smk; the workflow that started this job holds the study's lock.

    `files`: what is wanted, instead of all that belongs to a batch.
    """
    import sys
    import tempfile

    from ..cluster.family import run_with_family
    from ..resources import share_dir

    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(given, file)
        file.flush()
        command = [sys.executable, "-m", "snakemake", "--directory", str(study)]
        command += ["--snakefile", str(share_dir() / "workflow" / "Batch.smk")]
        command += ["--configfile", file.name, "--cores", str(threads)]
        command += ["--resources", f"mem_mb={mem_mb}"] if mem_mb else []
        command += ["--nolock", "--rerun-incomplete", "--keep-going", "--show-failed-logs"]
        command += ["--quiet", "rules", "--workflow-profile", "none", "--profile", "none"]
        command += ["--", *files] if files else []
        return run_with_family(command)


def _list(study: Study, recording_ids: list[str], labels: dict[str, str]) -> str:
    """One line for each recording of the batch."""
    from ..layout import folder_of
    from ..provenance import is_tombstone, sha256_file

    lines = ["recording_id\ttimeseries_sha256"]
    for name in recording_ids:
        path = study.path("timeseries", recording=name, folder=folder_of(name), **labels)
        lines.append(f"{name}\t{'n/a' if is_tombstone(path) else sha256_file(path)}")
    return "\n".join(lines) + "\n"
