"""`brainlm run-batch`: many recordings from raw data to parcels, as one job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._console import say
from ._stage import HERE, StudyOption, ThreadsOption

if TYPE_CHECKING:
    from ..dag import Dag

BatchArg = Annotated[str, typer.Argument(help="number of the batch, e.g. 0007")]
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
    batch: BatchArg,
    study: StudyOption = HERE,
    threads: ThreadsOption = 1,
    mem_mb: MegabytesOption = None,
    config: ConfigOption = None,
) -> None:
    """Take a batch of recordings all the way to parcels (the Slurm profile's jobs do this).

    Which recordings: as many as jobs.recordings_per_job says, all of a subject together. The same
    stages as without batches, by a Snakemake of its own, one recording on each core; what is done
    already is not done again. Writes the quality figures too, and at last jobs/batch-NUMBER.tsv:
    each recording and the hash of its parcel series, or that it was given up.
    """
    from ..config.files import read_content
    from ..dag import ONLY_BATCH, Dag
    from ..errors import ResourceError
    from ..files import write_text
    from ..layout import Study

    folder = Study(study.resolve())
    given = {**(json.loads(config) if config else {}), ONLY_BATCH: batch}
    code = _snakemake(folder.root, given, threads, mem_mb)
    if code:
        raise ResourceError(
            f"Not all recordings of batch {batch} could be worked on; the lines above say why",
            file=folder.root / "logs",
            fix="mend the cause and run the workflow again: it goes on where it stopped",
        )
    dag = Dag({**read_content(folder.path("config")), **given}, folder.root)
    write_text(folder.path("batch", batch=batch), _list(dag))
    say(f"batch {batch}: {len(dag.rows)} recordings")


def _snakemake(study: Path, given: dict[str, object], threads: int, mem_mb: int | None) -> int:
    """Run workflow/Batch.smk; the workflow that started this job holds the study's lock."""
    import subprocess
    import sys
    import tempfile

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
        return subprocess.run(command, check=False).returncode


def _list(dag: Dag) -> str:
    """One line for each recording of the batch."""
    from ..provenance import is_tombstone, sha256_file

    lines = ["recording_id\ttimeseries_sha256"]
    for name, path in zip(dag.rows, dag.each("timeseries"), strict=True):
        series = dag.study / path
        lines.append(f"{name}\t{'n/a' if is_tombstone(series) else sha256_file(series)}")
    return "\n".join(lines) + "\n"
