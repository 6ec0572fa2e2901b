"""`brainlm finetune`: teach the pretrained model one label, or to forecast."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ._console import say
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption
from ._training import (
    RequeueOption,
    going_on_in_the_queue,
    keep_quiet,
    open_model,
    open_shards,
    set_up,
    tell_epochs,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ..model.checkpoint import LoadedModel
    from ..model.heads import LabelModel
    from ..model.label_unit import HeadCard
    from ..model.mae import MaskedAutoencoder
    from ..shards.reader import ShardReader
    from ..train.distributed import Ranks
    from ..train.settings import FinetuneSettings
    from ..train.tuning import Circumstances


#: What --task may say -> the kind of file that it makes.
_KINDS = {
    "label": "finetuned",
    "forecast": "forecaster",
    "forecast-untrained": "untrained_forecaster",
}


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
    task: Annotated[
        str,
        typer.Option(help="label (with --target), forecast, or forecast-untrained"),
    ] = "label",
    requeue: RequeueOption = False,
) -> None:
    """Fine-tune the pretrained model on one label (a column of participants.tsv), or to forecast.

    A head reads the encoder's output; what else learns says finetune.mode. Labels are brought to
    the scale of the train split, and recordings without the label are left out and counted. The
    epoch with the lowest validation loss is kept, and of several repeats the best; of each repeat
    its predictions of the test recordings, which evaluate-clinical scores. Writes
    models/RUN-TARGET. With --task forecast the network learns to guess the last
    finetune.forecast_timepoints of a window: models/RUN-forecast; forecast-untrained is the same
    from random weights, all of which learn whatever finetune.mode and finetune.layer_decay say, to
    see what pretraining brings: models/RUN-forecast-untrained. Can be killed at any moment, as
    pretrain: the same command goes on where it was. Under torchrun, or srun with several tasks,
    the processes share the work.
    """
    from ..errors import InputError
    from ..model.mask import generator
    from ..train.distributed import joined
    from ..train.intact import DataCheck
    from ..train.precision import autocast, choose_precision
    from ..train.repeats import repeat
    from ..train.runtime import describe, stop_signals
    from ..train.settings import read_finetune
    from ._finetuned_files import write_model
    from ._watching import watched_lesson

    if task not in _KINDS or (task == "label") != (target is not None):
        raise InputError("Give --target NAME, --task forecast or --task forecast-untrained")
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
    if task == "forecast-untrained":  # nothing of random weights is worth keeping
        settings = replace(settings, mode="full", layer_decay=1.0)
    reader = open_shards(run)
    device = set_up(run, run.params["pretrain"]["device"], threads, what="" if target else task)
    machine = describe(device, threads)
    pretrained = open_model(run, "model", reader)
    if task == "forecast-untrained":
        pretrained.autoencoder.initialize(generator(run.params["seed"], "weights"))
    precision = choose_precision(run.params["pretrain"]["precision"], device)
    with (
        stop_signals(run.params["pretrain"]["stop_before_end_s"]) as stop,
        joined() as ranks,
        going_on_in_the_queue(requeue, ranks),
        DataCheck(reader, ranks) as intact,
    ):
        around = _circumstances(run, task, target, machine, ranks)
        around = around._replace(stop=stop, precision=precision, intact=intact)
        lesson = (
            _label_lesson(target, reader, pretrained, settings, ranks, run.params["seed"])
            if target
            else _forecast_lesson(task, reader, pretrained, settings, device)
        )

        def once(
            seed: int, around: Circumstances
        ) -> tuple[LabelModel | MaskedAutoencoder, dict[str, Any]]:
            model = _start(run, pretrained, lesson.head).to(device)
            with watched_lesson(run, reader, settings, around, lesson) as watched:
                return model, lesson.learn(model, seed, watched)

        done = repeat(once, settings.repeats, run.params["seed"], around, lesson.ask)
    if not ranks.first:
        return
    with autocast(precision, device):
        scores = lesson.compare(done.model)
    write_model(run, reader, pretrained, settings, done, around, machine, lesson, scores)


class Lesson(NamedTuple):
    """What is learned: where it differs from another such thing."""

    kind: str  # of the model's file, a key of the layout
    told: str  # what the model can do now, in words
    head: HeadCard | None
    counts: dict[str, int]  # split -> recordings
    learn: Callable[[Any, int, Circumstances], dict[str, Any]]  # a network, by a seed
    ask: Callable[[Any], Any]  # what is kept of each repeat's network: test recordings' outputs
    compare: Callable[[Any], dict[str, float]]  # it with others, on the validation split


def _label_lesson(
    target: str,
    reader: ShardReader,
    pretrained: LoadedModel,
    settings: FinetuneSettings,
    ranks: Ranks,
    seed: int,
) -> Lesson:
    """One label, which some recordings may lack."""
    from ..train.finetune import finetune as train
    from ..train.finetune import predict_together
    from ..train.labelled import head_card, labelled_data

    wanted = settings.target(target)
    data = labelled_data(reader, wanted, pretrained.config.timepoints)
    if data.n_missing and ranks.first:
        say(f"{data.told_missing} have no {target} and are left out")

    def learn(model: LabelModel, seed: int, around: Circumstances) -> dict[str, Any]:
        return train(
            model,
            reader,
            data,
            settings,
            kind=wanted.kind,
            mask_ratio=settings.mask_ratio,
            seed=seed,
            around=around,
        )

    def ask(model: LabelModel) -> tuple[list[str], NDArray[np.float64]] | None:
        if settings.repeats == 1:
            return None
        return predict_together(
            model,
            reader,
            data.lengths["test"],
            mask_ratio=settings.mask_ratio,
            seed=seed,
            batch_size=settings.batch_size,
            columns=len(data.classes) or 1,
            ranks=ranks,
        )

    return Lesson(
        "finetuned",
        f"fine-tuned on {target}",
        head_card(wanted, settings, data),
        {split: len(data.lengths[split]) for split in ("train", "val")},
        learn,
        ask,
        lambda model: {},
    )


def _forecast_lesson(
    task: str,
    reader: ShardReader,
    pretrained: LoadedModel,
    settings: FinetuneSettings,
    device: torch.device,
) -> Lesson:
    """The end of a window, of all recordings."""
    from ..train.forecasting import compared, finetune_forecast, forecast_task

    def learn(model: MaskedAutoencoder, seed: int, around: Circumstances) -> dict[str, Any]:
        return finetune_forecast(model, reader, settings, seed=seed, around=around)

    def compare(model: MaskedAutoencoder) -> dict[str, float]:
        lesson = forecast_task(model, reader, settings)
        return compared(lesson, pretrained.autoencoder.to(device))

    return Lesson(
        _KINDS[task],
        "fine-tuned to forecast" if task == "forecast" else "trained to forecast from nothing",
        None,
        {split: len(reader.recordings(split)) for split in ("train", "val")},
        learn,
        lambda model: None,
        compare,
    )


def _start(
    run: StageRun, pretrained: LoadedModel, head: HeadCard | None
) -> LabelModel | MaskedAutoencoder:
    """A copy of the pretrained network, under a new head where one is wanted."""
    from ..model.checkpoint import build_model
    from ..model.mae import MaskedAutoencoder

    model = build_model(pretrained.config, pretrained.parcels, head.to_dict() if head else None)
    autoencoder = model if isinstance(model, MaskedAutoencoder) else model.autoencoder
    autoencoder.load_state_dict(pretrained.autoencoder.state_dict())
    # How the work is done is the pretraining's to say.
    autoencoder.set_attention(run.params["pretrain"]["attention"])
    autoencoder.checkpoint_blocks(run.params["pretrain"]["checkpoint_blocks"])
    return model


def _circumstances(
    run: StageRun, task: str, target: str | None, machine: dict[str, Any], ranks: Ranks
) -> Circumstances:
    """Checkpoints of this mixture of options, data, pretrained model and code."""
    from ..provenance import sha256_file, sha256_json
    from ..shards.reader import NORMALIZATION_NAME, PARCELS_NAME
    from ..train.checkpointing import Checkpoints
    from ..train.lineage import note_made_of
    from ..train.runtime import StopRequest
    from ..train.settings import deciding
    from ..train.tuning import Circumstances

    sections = {name: deciding(run.params[name]) for name in ("pretrain", "finetune")}
    for name in ("targets", "forecast"):  # what else is to be learned changes nothing here
        del sections["finetune"][name]
    asked = [one for one in run.params["finetune"]["targets"] if one["name"] == target]
    index = run.path("shards_index")
    made_of = {
        "task": task,
        "target": asked,
        "options": {**run.params, **sections},
        "sources": run.sources,
        "data": {
            name: sha256_file(index.with_name(name)) for name in (NORMALIZATION_NAME, PARCELS_NAME)
        },
        "code": run.code,
        "machine": machine,
    }
    checkpoints = Checkpoints.below(
        run.path(_KINDS[task]).parent / "checkpoints",
        sha256_json(made_of)[:16],
        say if ranks.first else keep_quiet,
    )
    if ranks.first:
        note_made_of(checkpoints.folder, made_of)
    return Circumstances(
        checkpoints,
        tell_epochs,
        StopRequest(),
        checkpoint_every=run.params["pretrain"]["checkpoint_every"],
        ranks=ranks,
    )
