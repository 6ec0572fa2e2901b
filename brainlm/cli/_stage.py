"""What every stage's command does around its computation.

It takes the parameters from the rule (`--params`) or from the study's config, verifies the
inputs, writes outputs with their sidecars, and turns data that cannot be used into a
recorded failure, so that the rest of the cohort goes on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DataError, NotMadeError, UpstreamError
from ._console import say

if TYPE_CHECKING:
    from ..config import Config
    from ..recordings import Recording


class OnDataError(StrEnum):
    """What to do when a recording cannot be used."""

    stop = "stop"
    record = "record"


RecordingArg = Annotated[str, typer.Argument(help="recording_id, e.g. sub-01_task-rest_run-1")]
AnatArg = Annotated[str, typer.Argument(help="T1w identifier (anat_id), e.g. sub-01_ses-1")]
StudyOption = Annotated[Path, typer.Option("--study", help="the study folder")]
ParamsOption = Annotated[
    str | None,
    typer.Option("--params", help="JSON of the stage's options; default: the study's config"),
]
OnDataErrorOption = Annotated[
    OnDataError,
    typer.Option(
        help="stop: exit 3. record: write the reason to qc/failures and empty outputs, exit 0, "
        "so that the rest of the cohort goes on (the workflow uses this)"
    ),
]
ThreadsOption = Annotated[int, typer.Option("--threads", help="CPU threads to use", min=1)]
MemoryOption = Annotated[
    float | None,
    typer.Option(
        "--mem-gb", help="memory to keep within; what is larger goes to a file in $TMPDIR", min=0
    ),
]

HERE = Path()

#: Keys of `TEMPLATES` that a stage makes; which ones may depend on its parameters.
Outputs = tuple[str, ...] | Callable[[Mapping[str, Any]], tuple[str, ...]]


class StageRun:
    """One run of a stage: its parameters, paths, inputs seen and outputs written."""

    def __init__(
        self,
        name: str,
        study_dir: Path,
        params: str | None,
        *,
        software: tuple[str, ...] = (),
        extra_fields: Mapping[str, str] | None = None,
    ):
        """Prepare; `software` names the packages whose versions go into the sidecars."""
        from ..layout import Study
        from ..stages import code_digest, parse_params, stage_params

        self.name = name
        self.study = Study(study_dir.resolve())
        self.params = (
            stage_params(name, self.config) if params is None else parse_params(name, params)
        )
        self.code = code_digest(name)
        self.software = software
        self.sources: dict[str, str] = {}
        self.entities: dict[str, str] = {}
        self.fields: dict[str, str] = {**self._labels(), **(extra_fields or {})}

    @cached_property
    def config(self) -> Config:
        """The study's config file."""
        from ..config import load_config

        return load_config(self.study.path("config"))

    @property
    def bids_dir(self) -> Path:
        """The BIDS dataset."""
        return self.config.resolve_bids_dir(self.study.root)

    def _labels(self) -> dict[str, str]:
        """The parts of file names that the parameters decide (as `Config.labels`)."""
        labels = {}
        if "space" in self.params:
            labels["space"] = self.params["space"]["template"]
            labels["res"] = f"{self.params['space']['resolution_mm']:g}".replace(".", "p")
        if "atlas" in self.params:
            labels["atlas"] = self.params["atlas"]["name"]
        if "parcellate" in self.params:
            labels["estimator"] = self.params["parcellate"]["estimator"]
        if "pretrain" in self.params:
            labels["run"] = self.params["pretrain"]["run"]
        return labels

    def path(self, kind: str, **fields: str) -> Path:
        """Path of one kind of file of this recording, cohort or model."""
        return self.study.path(kind, **{**self.fields, **fields})

    def input(self, kind: str, **fields: str) -> Path:
        """Path of an input of the same recording, verified; its hash goes into the sidecars."""
        from ..provenance import check_input, sha256_file

        path = self.path(kind, **fields)
        check_input(path, self.entities)
        self.sources[self.study.relative(path)] = sha256_file(path)
        return path

    def source(self, path: Path) -> Path:
        """Note any other file of the study as a source, by its hash."""
        from ..errors import InputError
        from ..provenance import sha256_file

        if not path.exists():
            raise InputError(
                f"{path.name} does not exist yet",
                file=path,
                fix="run the stage that makes it, or let Snakemake do so",
            )
        self.sources[self.study.relative(path)] = sha256_file(path)
        return path

    def template(self) -> str:
        """The name of the study's template, its files noted as sources; or how to get them."""
        from ..templates import template_sources

        name: str = self.params["space"]["template"]
        self.sources |= template_sources(name)
        return name

    def raw_source(self, relative: str, fingerprint: str | None) -> None:
        """Note a file of the BIDS dataset as a source, by the fingerprint that onboarding took.

        A file that has changed since is refused: its TR, length and T1w would be another's.
        """
        from ..provenance import still_is

        path = self.bids_dir / relative
        if fingerprint and not still_is(path, fingerprint):
            raise DataError(
                "The raw file has changed since it was onboarded",
                file=path,
                fix="run `brainlm onboard` again, then the workflow",
            )
        self.sources[f"bids::{relative}"] = fingerprint or "not hashed"

    @contextlib.contextmanager
    def output(
        self, kind: str, *, about: Mapping[str, Any] | None = None, **fields: str
    ) -> Iterator[Path]:
        """Yield a temporary path to write to; then the sidecar and the data get their names.

        `about` holds further sidecar fields; it may be filled inside the block.
        """
        from ..files import atomic_path
        from ..provenance import software_versions, write_sidecar

        final = self.path(kind, **fields)
        with atomic_path(final) as temporary:
            yield temporary
            write_sidecar(
                final,
                stage=self.name,
                code_digest=self.code,
                entities=self.entities,
                sources=self.sources,
                parameters=self.params,
                software=software_versions(self.software),
                fields=about,
                # Whose data it is matters where they are somebody's.
                written=temporary if self.entities else None,
            )

    def give_up(self, identifier: str, error: DataError, outputs: tuple[str, ...]) -> None:
        """Record why `identifier` cannot be used, and leave empty files as its outputs."""
        from ..files import write_json
        from ..provenance import sidecar_path

        ledger = self.study.path("failure", recording=identifier)
        if not (isinstance(error, UpstreamError) and ledger.exists()):
            file = error.file
            if file is not None:
                with contextlib.suppress(ValueError):
                    file = os.path.relpath(file, self.study.root)
            write_json(
                ledger,
                {
                    "recording_id": identifier,
                    "stage": self.name,
                    "what": error.what,
                    "file": file,
                    "fix": error.fix,
                },
            )
        for kind in outputs:
            path = self.path(kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            sidecar_path(path).unlink(missing_ok=True)
            path.write_bytes(b"")

    def forget_failure(self, identifier: str) -> None:
        """Drop an earlier failure of this same stage: it is being tried anew."""
        from ..files import read_json

        ledger = self.study.path("failure", recording=identifier)
        with contextlib.suppress(FileNotFoundError):
            if read_json(ledger)["stage"] == self.name:
                ledger.unlink()

    def outgrow_failure(self, identifier: str) -> None:
        """Drop a failure of an earlier stage: this one found all that it needs whole.

        What gave up is then not asked for any more (its option is off, or the T1w is gone), so
        nothing else would take its entry back.
        """
        from ..files import read_json
        from ..stages import STAGES

        earlier = list(STAGES)[: list(STAGES).index(self.name)]
        ledger = self.study.path("failure", recording=identifier)
        with contextlib.suppress(FileNotFoundError):
            if read_json(ledger)["stage"] in earlier:
                ledger.unlink()


class RecordingRun(StageRun):
    """A run of a stage on one recording."""

    recording: Recording

    def input_of_anat(self, kind: str) -> Path:
        """An input that belongs to the run's T1w, not to the run: verified by its entities."""
        from ..layout import entities_of
        from ..provenance import check_input

        assert self.recording.anat_id is not None
        path = self.path(kind)
        check_input(path, entities_of(self.recording.anat_id))
        return self.source(path)


@contextlib.contextmanager
def recording_stage(
    name: str,
    recording_id: str,
    study_dir: Path,
    params: str | None,
    on_data_error: OnDataError,
    *,
    outputs: Outputs,
    software: tuple[str, ...] = (),
) -> Iterator[RecordingRun]:
    """Run the block as stage `name` of one recording; `outputs` are keys of `TEMPLATES`."""
    from ..recordings import load_recording

    run = RecordingRun(name, study_dir, params, software=software)
    run.recording = load_recording(run.study.path("recordings"), recording_id, run.bids_dir)
    run.fields |= run.recording.wildcards
    run.entities = run.recording.entities
    with _giving_up_cleanly(run, recording_id, on_data_error, outputs):
        yield run


@contextlib.contextmanager
def anat_stage(
    name: str,
    anat_id: str,
    study_dir: Path,
    params: str | None,
    on_data_error: OnDataError,
    *,
    outputs: Outputs,
    software: tuple[str, ...] = (),
) -> Iterator[RecordingRun]:
    """Run the block as stage `name` of one T1w image, done once for all runs it serves."""
    from ..layout import entities_of
    from ..recordings import load_recording_of_anat

    run = RecordingRun(name, study_dir, params, software=software)
    run.recording = load_recording_of_anat(run.study.path("recordings"), anat_id, run.bids_dir)
    run.fields |= run.recording.wildcards
    run.entities = entities_of(anat_id)
    with _giving_up_cleanly(run, anat_id, on_data_error, outputs):
        yield run


@contextlib.contextmanager
def _giving_up_cleanly(
    run: StageRun, identifier: str, on_data_error: OnDataError, outputs: Outputs
) -> Iterator[None]:
    run.forget_failure(identifier)
    try:
        yield
        run.outgrow_failure(identifier)
    except DataError as error:
        if on_data_error is OnDataError.stop or isinstance(error, NotMadeError):
            raise
        run.give_up(identifier, error, outputs(run.params) if callable(outputs) else outputs)
        say(f"{identifier} is given up at {run.name}: {error}")
