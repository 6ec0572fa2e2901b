"""What the commands around a model share: reading its inputs, telling its progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._console import say

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..model.checkpoint import LoadedModel
    from ..shards.reader import ShardReader
    from ..train.runtime import StopRequest
    from ..train.tuning import Circumstances
    from ._stage import StageRun

TargetOption = Annotated[
    str, typer.Option("--target", help="name of one of finetune.targets, e.g. age")
]


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
