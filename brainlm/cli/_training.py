"""What the commands around a model share: reading its inputs, telling its progress."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._console import say, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import torch

    from ..model.checkpoint import LoadedModel
    from ..shards.reader import ShardReader
    from ..train.distributed import Ranks
    from ..train.runtime import InterruptedTrainingError, StopRequest
    from ..train.tuning import Circumstances
    from ._stage import StageRun

TargetOption = Annotated[
    str, typer.Option("--target", help="name of one of finetune.targets, e.g. age")
]

RequeueOption = Annotated[
    bool,
    typer.Option(
        "--requeue",
        help="a Slurm job that Snakemake submitted, and that is told to stop or near its time "
        "limit, goes back into the queue, where it waits to go on",
    ),
]


@contextlib.contextmanager
def going_on_in_the_queue(wanted: bool, ranks: Ranks | None = None) -> Iterator[None]:
    """Put the Slurm job back into the queue when a training in the block was told to stop.

    The error goes on: where the job cannot be put back, it fails, for Snakemake to start it anew.
    `ranks`: the processes of the training, where there may be several.
    """
    from ..cluster.own_job import name_of
    from ..train.runtime import InterruptedTrainingError

    try:
        yield
    except InterruptedTrainingError as stopped:
        job = name_of(os.environ)
        if wanted and job is not None:
            if ranks is None or ranks.first:
                _put_back(job, stopped)
            if ranks is not None:
                ranks.from_first(0)  # the first must not be ended by another's end before
        raise


def _put_back(job: str, stopped: InterruptedTrainingError) -> None:
    """Do it, and tell; Slurm ends the processes of the job at once."""
    from ..cluster.own_job import put_back

    if stopped.hardly_begun:
        warn(
            f"Job {job} is not put back into the queue: its time limit leaves no time to train. "
            "Raise `runtime` of this rule (set-resources in the profile), or lower "
            "pretrain.stop_before_end_s"
        )
        return
    say(f"Stopped after step {stopped.step}; job {job} goes back into the queue, to go on there")
    if reason := put_back(job, stopped.folder / "requeued.json", stopped.step):
        warn(f"Job {job} could not be put back into the queue: {reason}")


def set_up(
    run: StageRun, device: str, threads: int, *, deterministic: bool = True, what: str = ""
) -> torch.device:
    """Choose the device, and keep in a log below logs/machines on what it all runs.

    `what`: tells runs of a stage apart where the fields of file names do not.
    """
    from ..train import runtime
    from ..train.distributed import ranks_of
    from ..train.machine import note_machine

    chosen = runtime.set_up(device, threads, deterministic=deterministic)
    ranks = ranks_of(os.environ)
    if ranks.first:
        named = [run.fields[key] for key in ("target", "method", "point") if key in run.fields]
        job = "-".join([run.name, *([what] if what else named)])
        log = run.path("machine_log", job=job)
        note_machine(log, stage=run.name, device=chosen.type, processes=ranks.world)
    return chosen


def open_shards(run: StageRun) -> ShardReader:
    """The study's shards, noted as a source by their index (which holds each tensor's hash)."""
    from ..shards.reader import ShardReader

    return ShardReader(run.input("shards_index"))


def open_model(run: StageRun, kind: str, reader: ShardReader, **fields: str) -> LoadedModel:
    """A trained model of the study, refused when it saw other splits or another scaling."""
    from ..errors import DataError
    from ..model.checkpoint import load_model
    from ..provenance import sha256_file
    from ..shards.fingerprint import check_same_split
    from ..shards.reader import NORMALIZATION_NAME, PARCELS_NAME

    path = run.input(kind, **fields)
    loaded = load_model(path.parent)
    if loaded.card.split_sha256 is not None:
        check_same_split(reader.table, loaded.card.split_sha256, path)
    for name in (NORMALIZATION_NAME, PARCELS_NAME):
        if sha256_file(path.parent / name) != sha256_file(reader.folder / name):
            raise DataError(
                f"The model was trained with another {name} than the present shards",
                file=path.parent / name,
                fix="train it again on the present shards",
            )
    return loaded


def keep_quiet(message: str) -> None:
    """For the processes that are not the first."""


def window_of(run: StageRun, reader: ShardReader) -> int:
    """Time points of a window: the released model's, or as the config says."""
    if run.params["released"]["source"]:
        return open_model(run, "model", reader).config.timepoints
    return int(run.params["model"]["timepoints"])


def trials(
    run: StageRun,
    section: str,
    folder: Path,
    learned: tuple[Any, ...],
    machine: dict[str, Any],
    stop: StopRequest,
) -> Callable[[str], Circumstances]:
    """The circumstances of each setting, by its name, of a network that is trained from nothing.

    Its checkpoints lie below `folder`, told apart by all that decides them: what is `learned`, the
    options of `section` but for the methods, data, code, machine.
    """
    from ..provenance import sha256_json
    from ..train.checkpointing import Checkpoints
    from ..train.tuning import Circumstances

    options = {name: value for name, value in run.params[section].items() if name != "methods"}
    made_of = [*learned, options, run.params["seed"], run.sources, run.code, machine]
    fingerprint = sha256_json(made_of)[:16]

    def around(name: str) -> Circumstances:
        say(f"{folder.name}, {name.replace('-', ' ')}")
        checkpoints = Checkpoints.below(folder / name, fingerprint, say)
        every = run.params["pretrain"]["checkpoint_every"]
        return Circumstances(checkpoints, tell_epochs, stop, checkpoint_every=every)

    return around


def tell_epochs(row: dict[str, Any]) -> None:
    """Print one line for each validation; how R2 is spread over parcels is left to the log."""
    if "val_loss" in row:
        numbers = ", ".join(
            f"{name} {value:.4f}"
            for name, value in row.items()
            if isinstance(value, float) and "_parcel_" not in name
        )
        say(f"epoch {row['epoch']}: {numbers}")


def write_metrics(run: StageRun, kind: str, metrics: dict[str, Any], **fields: str) -> Path:
    """Write metrics.json; a JSON file carries its provenance in itself instead of a sidecar."""
    from ..provenance import software_versions, write_sidecar

    path = run.path(kind, **fields)
    write_sidecar(
        path,
        stage=run.name,
        code_digest=run.code,
        entities=run.entities,
        sources=run.sources,
        parameters=run.params,
        software=software_versions(run.software),
        fields=metrics,
    )
    return path


def headline(metrics: dict[str, Any], name: str) -> str:
    """One score with its interval, as a line for the log."""
    score = metrics["metrics"][name]
    if score["value"] is None:
        return f"{name} n/a ({score['reason']})"
    if score["ci_low"] is None:
        return f"{name} {score['value']:.3f} ({score['reason']})"
    return f"{name} {score['value']:.3f} [{score['ci_low']:.3f}, {score['ci_high']:.3f}]"
