"""`brainlm finetune`: teach the pretrained model one label, or to forecast."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._console import say
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption

if TYPE_CHECKING:
    import torch

    from ..model.checkpoint import LoadedModel
    from ..model.heads import LabelModel
    from ..model.label_unit import HeadCard
    from ..model.mae import MaskedAutoencoder
    from ..shards.reader import ShardReader
    from ..train.repeats import Repeated
    from ..train.settings import FinetuneSettings
    from ..train.tuning import Circumstances


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("finetune")(finetune)


def finetune(
    target: Annotated[
        str | None, typer.Option("--target", help="name of one of finetune.targets, e.g. age")
    ] = None,
    study: StudyOption = HERE,
    params: ParamsOption = None,
    threads: ThreadsOption = 1,
    task: Annotated[str, typer.Option(help="label (with --target), or forecast")] = "label",
) -> None:
    """Fine-tune the pretrained model on one label (a column of participants.tsv), or to forecast.

    A head reads the encoder's output; what else learns says finetune.mode. Labels are brought to
    the scale of the train split, and recordings without the label are left out and counted. The
    epoch with the lowest validation loss is kept, and of several repeats the best. Writes
    models/RUN-TARGET. With --task forecast the network learns to guess the last
    finetune.forecast_timepoints of a window: models/RUN-forecast. Can be killed at any moment, as
    pretrain: the same command goes on where it was.
    """
    from ..errors import InputError
    from ..train.precision import choose_precision
    from ..train.runtime import describe, set_up, stop_signals
    from ..train.settings import read_finetune
    from ._training import open_model, open_shards

    if task not in ("label", "forecast") or (task == "label") != (target is not None):
        raise InputError("Give either --target NAME or --task forecast")
    run = StageRun(
        "finetune",
        study,
        params,
        software=("numpy", "safetensors", "torch"),
        extra_fields={"target": target} if target else {},
    )
    settings = read_finetune(run.params["finetune"])
    if target:
        settings.target(target)  # refused before anything is read
    reader = open_shards(run)
    device = set_up(run.params["pretrain"]["device"], threads)
    machine = describe(device, threads)
    pretrained = open_model(run, "model", reader)
    precision = choose_precision(run.params["pretrain"]["precision"], device)
    with stop_signals(run.params["pretrain"]["stop_before_end_s"]) as stop:
        around = _circumstances(run, target, machine)._replace(stop=stop, precision=precision)
        job = (run, reader, pretrained, settings, device, around, machine)
        if target:
            _finetune_label(target, *job)
        else:
            _finetune_forecast(*job)


def _finetune_label(
    target: str,
    run: StageRun,
    reader: ShardReader,
    pretrained: LoadedModel,
    settings: FinetuneSettings,
    device: torch.device,
    around: Circumstances,
    machine: dict[str, Any],
) -> None:
    from ..model.checkpoint import build_model
    from ..model.heads import LabelModel
    from ..train.finetune import finetune as train
    from ..train.labelled import head_card, labelled_data
    from ..train.repeats import repeat

    wanted = settings.target(target)
    data = labelled_data(reader, wanted, pretrained.config.timepoints)
    if data.n_missing:
        say(f"{data.n_missing} recordings have no {target} and are left out")
    head = head_card(wanted, settings, data)

    def once(seed: int, around: Circumstances) -> tuple[LabelModel, dict[str, Any]]:
        model = build_model(pretrained.config, pretrained.parcels, head.to_dict())
        assert isinstance(model, LabelModel)
        model.autoencoder.load_state_dict(pretrained.autoencoder.state_dict())
        _as_in_pretraining(run, model.autoencoder)
        row = train(
            model.to(device),
            reader,
            data,
            settings,
            kind=wanted.kind,
            mask_ratio=pretrained.card.mask_ratio,
            seed=seed,
            around=around,
        )
        return model, row

    done = repeat(once, settings.repeats, run.params["seed"], around)
    counts = {split: len(data.lengths[split]) for split in ("train", "val")}
    _write(run, "finetuned", reader, pretrained, done, around, counts, machine, head)
    say(f"fine-tuned on {target}: {run.study.relative(run.path('finetuned'))}")


def _finetune_forecast(
    run: StageRun,
    reader: ShardReader,
    pretrained: LoadedModel,
    settings: FinetuneSettings,
    device: torch.device,
    around: Circumstances,
    machine: dict[str, Any],
) -> None:
    from ..model.checkpoint import build_model
    from ..model.mae import MaskedAutoencoder
    from ..train.forecasting import finetune_forecast
    from ..train.repeats import repeat

    def once(seed: int, around: Circumstances) -> tuple[MaskedAutoencoder, dict[str, Any]]:
        model = build_model(pretrained.config, pretrained.parcels)
        assert isinstance(model, MaskedAutoencoder)
        model.load_state_dict(pretrained.autoencoder.state_dict())
        _as_in_pretraining(run, model)
        row = finetune_forecast(model.to(device), reader, settings, seed=seed, around=around)
        return model, row

    done = repeat(once, settings.repeats, run.params["seed"], around)
    counts = {split: len(reader.recordings(split)) for split in ("train", "val")}
    _write(run, "forecaster", reader, pretrained, done, around, counts, machine, None)
    say(f"fine-tuned to forecast: {run.study.relative(run.path('forecaster'))}")


def _as_in_pretraining(run: StageRun, model: MaskedAutoencoder) -> None:
    """How the work is done is the pretraining's to say."""
    model.set_attention(run.params["pretrain"]["attention"])
    model.checkpoint_blocks(run.params["pretrain"]["checkpoint_blocks"])


def _circumstances(run: StageRun, target: str | None, machine: dict[str, Any]) -> Circumstances:
    """Checkpoints of this mixture of options, data, pretrained model and code."""
    from ..provenance import sha256_file, sha256_json
    from ..shards.reader import NORMALIZATION_NAME, PARCELS_NAME
    from ..train.checkpointing import Checkpoints
    from ..train.lineage import note_made_of
    from ..train.runtime import StopRequest
    from ..train.settings import deciding
    from ..train.tuning import Circumstances
    from ._training import tell_epochs

    options = run.params["pretrain"]
    index = run.path("shards_index")
    made_of = {
        "target": target,
        "options": {
            **run.params,
            "pretrain": deciding(options),
        },
        "sources": run.sources,
        "data": {
            name: sha256_file(index.with_name(name)) for name in (NORMALIZATION_NAME, PARCELS_NAME)
        },
        "code": run.code,
        "machine": machine,
    }
    kind = "finetuned" if target else "forecaster"
    checkpoints = Checkpoints.below(
        run.path(kind).parent / "checkpoints", sha256_json(made_of)[:16], say
    )
    note_made_of(checkpoints.folder, made_of)
    return Circumstances(
        checkpoints,
        tell_epochs,
        StopRequest(),
        checkpoint_every=options["checkpoint_every"],
    )


def _write(
    run: StageRun,
    kind: str,
    reader: ShardReader,
    pretrained: LoadedModel,
    done: Repeated[Any],
    around: Circumstances,
    counts: dict[str, int],
    machine: dict[str, Any],
    head: HeadCard | None,
) -> None:
    """The model's folder."""
    from ..files import write_text
    from ..model.card import model_card
    from ..model.checkpoint import ModelCard, save_surroundings, save_weights
    from ..shards.fingerprint import split_sha256
    from ..train.repeats import all_rows

    path, summary = run.path(kind), done.summary()
    card = head.to_dict() if head else None
    training = {key: value for key, value in run.params["finetune"].items() if key != "targets"}
    readme = model_card(
        path.parent.name,
        pretrained.config,
        n_parameters=sum(parameter.numel() for parameter in done.model.parameters()),
        counts=counts,
        training={
            **training,
            "label": head.name if head else None,
            "seed": run.params["seed"],
        },
        results={key: value for key, value in summary.items() if value is not None},
        head=card,
        released=pretrained.card.released,
    )
    path.unlink(missing_ok=True)  # no older weights beside the new config.json
    save_surroundings(
        path.parent,
        config=pretrained.config,
        card=ModelCard(
            pretrained.card.mask_ratio, split_sha256(reader.table), card, pretrained.card.released
        ),
        data_folder=reader.folder,
        readme=readme,
    )
    rows = all_rows(around, summary["repeats"])
    write_text(
        path.with_name("metrics.jsonl"),
        "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows),
    )
    about = {**machine, "Repeats": summary} | ({"Head": card} if card else {})
    with run.output(kind, about=about) as temporary:
        save_weights(temporary, done.model)
    if summary["repeats"] > 1:
        say(
            f"validation loss over {summary['repeats']} repeats: {summary['val_loss_mean']:.4f} "
            f"(SD {summary['val_loss_sd']:.4f}); the best is kept"
        )
