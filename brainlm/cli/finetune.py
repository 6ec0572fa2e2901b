"""`brainlm finetune`: teach the pretrained model one label."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._console import say
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption

if TYPE_CHECKING:
    from ..model.checkpoint import ModelCard
    from ..model.heads import LabelModel
    from ..shards.reader import ShardReader
    from ..train.finetune import LabelledData
    from ..train.settings import FinetuneSettings, TargetSettings

TargetOption = Annotated[
    str, typer.Option("--target", help="name of one of finetune.targets, e.g. age")
]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("finetune")(finetune)


def finetune(
    target: TargetOption,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    threads: ThreadsOption = 1,
) -> None:
    """Fine-tune the pretrained model on one label (a column of participants.tsv).

    A three-layer head reads the mean of the encoder's output tokens; the encoder learns
    too, unless finetune.freeze_encoder. Labels are z-scored with the mean and SD of the train split
    (two classes are weighed alike); recordings without the label are left out and counted.
    The epoch with the lowest validation loss is kept. Writes models/RUN-TARGET.
    """
    from ..files import write_text
    from ..model.checkpoint import build_model, save_weights
    from ..model.heads import LabelModel
    from ..train import finetune as training
    from ..train.runtime import describe, set_up
    from ..train.settings import read_finetune
    from ._training import open_model, open_shards, tell_epochs

    run = StageRun(
        "finetune",
        study,
        params,
        software=("numpy", "safetensors", "torch"),
        extra_fields={"target": target},
    )
    settings = read_finetune(run.params["finetune"])
    wanted = settings.target(target)
    reader = open_shards(run)
    device = set_up(run.params["pretrain"]["device"], threads)
    pretrained = open_model(run, "model", reader)
    data = training.labelled_data(reader, wanted, pretrained.config.timepoints)
    if data.n_missing:
        say(f"{data.n_missing} recordings have no {target} and are left out")

    head = _head(wanted, settings, data)
    model = build_model(pretrained.config, pretrained.parcels, head)
    assert isinstance(model, LabelModel)
    model.autoencoder.load_state_dict(pretrained.autoencoder.state_dict())
    rows: list[dict[str, Any]] = []

    def report(row: dict[str, Any]) -> None:
        rows.append(row)
        tell_epochs(row)

    training.finetune(
        model.to(device),
        reader,
        data,
        settings,
        kind=wanted.kind,
        mask_ratio=pretrained.card.mask_ratio,
        seed=run.params["seed"],
        report=report,
    )
    machine = describe(device, threads)
    run.path("finetuned").unlink(missing_ok=True)  # no older weights beside the new config.json
    _save_surroundings(run, reader, model, head, data, rows, pretrained.card)
    write_text(
        run.path("finetuned").with_name("metrics.jsonl"),
        "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows),
    )
    with run.output("finetuned", about={**machine, "Head": head}) as path:
        save_weights(path, model)
    say(f"fine-tuned on {target}: {run.study.relative(run.path('finetuned'))}")


def _head(wanted: TargetSettings, settings: FinetuneSettings, data: LabelledData) -> dict[str, Any]:
    """What config.json must say for the head's output to become a label again."""
    return {
        "name": wanted.name,
        "kind": wanted.kind,
        "positive": wanted.positive,
        "mean": data.scale.mean,
        "sd": data.scale.sd,
        "dropout": settings.dropout,
    }


def _save_surroundings(
    run: StageRun,
    reader: ShardReader,
    model: LabelModel,
    head: dict[str, Any],
    data: LabelledData,
    rows: list[dict[str, Any]],
    pretrained: ModelCard,
) -> None:
    from ..model.card import model_card
    from ..model.checkpoint import ModelCard, save_surroundings
    from ..shards.fingerprint import split_sha256

    config = model.autoencoder.config
    best = [row for row in rows if row["best"]][-1]
    training = {key: value for key, value in run.params["finetune"].items() if key != "targets"}
    readme = model_card(
        f"{run.fields['run']}-{head['name']}",
        config,
        n_parameters=sum(parameter.numel() for parameter in model.parameters()),
        counts={split: len(data.lengths[split]) for split in ("train", "val")},
        training={**training, "label": head["name"], "seed": run.params["seed"]},
        results={"epoch": best["epoch"], "val_loss": best["val_loss"]},
        head=head,
        released=pretrained.released,
    )
    save_surroundings(
        run.path("finetuned").parent,
        config=config,
        card=ModelCard(
            pretrained.mask_ratio, split_sha256(reader.table), head, pretrained.released
        ),
        data_folder=reader.folder,
        readme=readme,
    )
