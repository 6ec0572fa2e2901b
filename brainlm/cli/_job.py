"""The frame around a command that makes several recordings at once: a job of fMRIPrep."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, NotMadeError
from ._console import say
from ._stage import OnDataError, StageRun

if TYPE_CHECKING:
    from ..fmriprep.jobs import Job


class JobRun(StageRun):
    """A run of a stage on all recordings of one job."""

    job: Job
    rows: list[Mapping[str, Any]]  # of the recordings table, the job's eligible ones
    of_subject: list[str]  # all recordings of its subject, eligible or not

    def check_raw(self) -> None:
        """Note the raw files as sources; refuse those that changed since onboarding."""
        import json

        for row in self.rows:
            self.raw_source(row["bold"], row["bold_sha256"])
            if row["t1w"]:
                self.raw_source(row["t1w"], row["t1w_sha256"])
            maps = zip(
                json.loads(row["fmap"] or "[]"), json.loads(row["fmap_sha256"] or "[]"), strict=True
            )
            for path, fingerprint in maps:
                self.raw_source(path, fingerprint)

    def write_manifest(self, kind: str, fields: Mapping[str, Any]) -> Path:
        """Write a file of JSON that is its own sidecar: `fields`, and what made them."""
        from ..provenance import software_versions, write_sidecar

        path = self.path(kind)
        write_sidecar(
            path,
            stage=self.name,
            code_digest=self.code,
            entities=self.entities,
            sources=self.sources,
            parameters=self.params,
            software=software_versions(self.software),
            fields=fields,
        )
        return path


def open_job(name: str, job: str, study: Path, params: str | None) -> JobRun:
    """A job and its recordings, looked up in the table of recordings."""
    from ..fmriprep.jobs import Job, rows_of
    from ..recordings import read_rows

    run = JobRun(name, study, params)
    table = read_rows(run.study.path("recordings"))
    run.rows = rows_of(job, table, run.params["fmriprep"]["level"])
    run.job = Job(job, tuple(row["recording_id"] for row in run.rows))
    subject = {row["subject"] for row in run.rows}
    run.of_subject = [row["recording_id"] for row in table if row["subject"] in subject]
    run.entities = run.job.entities
    run.fields["job"] = job
    return run


@contextlib.contextmanager
def giving_up_together(
    run: JobRun, on_data_error: OnDataError, outputs: tuple[str, ...]
) -> Iterator[None]:
    """Record bad data as a failure of every recording of the job, with empty outputs."""
    for recording in run.job.recordings:
        run.forget_failure(recording)
    try:
        yield
    except DataError as error:
        if on_data_error is OnDataError.stop or isinstance(error, NotMadeError):
            raise
        for recording in run.job.recordings:
            run.give_up(recording, error, outputs)
        say(f"{run.job.name} is given up at {run.name}: {error}")
