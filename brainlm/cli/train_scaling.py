"""`brainlm train-scaling`: one point of the scaling curves, trained and scored."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._console import progress, say
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption
from ._training import RequeueOption, going_on_in_the_queue, keep_quiet, open_shards, set_up

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from ..evaluate.scaling import Point
    from ..model.mae import MaskedAutoencoder
    from ..shards.reader import ShardReader
    from ..train.checkpointing import TrainingLog
    from ..train.pretrain import Plan

    Trained = tuple[MaskedAutoencoder, TrainingLog, Plan]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("train-scaling")(train_scaling)


def train_scaling(
    point: Annotated[
        str, typer.Option("--point", help="SIZE-SHARE of the section scaling, e.g. tiny-0.25")
    ],
    study: StudyOption = HERE,
    params: ParamsOption = None,
    threads: ThreadsOption = 1,
    requeue: RequeueOption = False,
) -> None:
    """Pretrain one size on one share of the train subjects, and score it on the test split.

    All points take equally many steps with equally full batches, whatever their share; greater
    shares hold the subjects of smaller ones, and all are validated on the same windows. It can be
    killed and goes on as `brainlm pretrain`. Writes models/RUN-scale-POINT and
    evaluation/RUN/scaling/POINT.parquet; compare-scaling makes curves of them.
    """
    from ..train.runtime import describe
    from ..train.settings import PretrainSettings, read_settings
    from ._pretraining import save_around

    run = StageRun(
        "train-scaling",
        study,
        params,
        extra_fields={"point": point},
        software=("numpy", "pyarrow", "safetensors", "torch"),
    )
    _narrow(run, point)
    reader = open_shards(run)
    settings = read_settings(PretrainSettings, "pretrain", run.params["pretrain"])
    device = set_up(run, settings.device, threads, deterministic=settings.deterministic)
    machine = describe(device, threads)
    settings, part = _settings_and_subjects(run, settings, reader, point)
    trained = _train(run, reader, part, settings, device, machine, requeue)
    if trained is None:
        return
    model, log, plan = trained
    run.path("scaled_model").unlink(missing_ok=True)  # no older weights beside the new config.json
    save_around(run, reader, model, settings, log, kind="scaled_model", trained_on=part)
    with run.output("scaled_log", about=machine) as path:
        shutil.copyfile(log.path, path)
    _save_weights(run, model, machine)
    about = _about(run, point, model, part, plan, log)
    table = _score(run, model, reader, about.mask_ratio)
    with run.output("scaling_sums", about={**machine, "Point": asdict(about)}) as path:
        table.to_parquet(path, index=False)
    say(f"{point}: {about.n_train_subjects} train subjects, val_loss {about.val_loss:.4f}")


def _narrow(run: StageRun, point: str) -> None:
    """Let the run's options be those of the point alone: no other decides anything about it."""
    from ..config import scaling_points
    from ..errors import InputError

    points = scaling_points(run.params["scaling"])
    if point not in points:
        known = ", ".join(points) or "none: scaling.sizes is empty"
        raise InputError(
            f"There is no point {point} in the scaling curves (it has {known})",
            fix="name it as SIZE-SHARE, of scaling.sizes and scaling.shares in the config",
        )
    run.params["scaling"] = points[point]


def _settings_and_subjects(
    run: StageRun, settings: Any, reader: ShardReader, point: str
) -> tuple[Any, ShardReader]:
    """How to train the point, and the shards with its train subjects alone."""
    from ..evaluate.scaling_subjects import with_as_many_windows, with_share

    (size,), (share,) = run.params["scaling"]["sizes"], run.params["scaling"]["shares"]
    part = with_share(reader, share, run.params["seed"])
    window = size["model"]["timepoints"]
    settings = with_as_many_windows(settings, part, reader, window)
    if size["learning_rate"] is not None:
        settings = replace(settings, learning_rate=size["learning_rate"], base_learning_rate=None)
    return replace(settings, run=f"{settings.run}-scale-{point}"), part


def _train(
    run: StageRun,
    reader: ShardReader,
    part: ShardReader,
    settings: Any,
    device: torch.device,
    machine: dict[str, Any],
    requeue: bool,
) -> Trained | None:
    """The model, its log and what it went through; None on all processes but the first."""
    from ..model.config import ModelConfig
    from ..provenance import sha256_json
    from ..stages import code_digest, module_digest
    from ..train import pretrain as training
    from ..train.checkpointing import Checkpoints
    from ..train.distributed import joined
    from ..train.lineage import note_made_of
    from ..train.runtime import stop_signals
    from ._pretraining import made_of_all
    from ._progress import tell_steps
    from ._watching import tracked

    config = ModelConfig.from_dict(run.params["scaling"]["sizes"][0]["model"])
    wanted = run.params["pretrain"]
    # On everybody, so that each share takes as many steps.
    whole = replace(settings, windows_per_recording=wanted["windows_per_recording"])
    budget = run.params["scaling"]["steps"] or training.make_plan(reader, config, whole).total_steps
    options = {name: run.params[name] for name in ("scaling", "pretrain", "seed")}
    # What is scored afterwards, and how, is no reason to train anew.
    code = code_digest("pretrain") + module_digest("brainlm.evaluate.scaling_subjects")
    made_of = made_of_all(reader, options, code, machine)
    with (
        stop_signals(settings.stop_before_end_s) as stop,
        joined() as ranks,
        going_on_in_the_queue(requeue, ranks),
    ):
        checkpoints = Checkpoints.below(
            run.path("scaled_model").parent / "checkpoints",
            sha256_json(made_of)[:16],
            say if ranks.first else keep_quiet,
            settings.keep_checkpoints,
        )
        plan = training.make_plan(part, config, settings, budget)
        if ranks.first:
            note_made_of(checkpoints.folder, made_of)
        with (
            tracked(run, checkpoints.folder, settings.run, first=ranks.first) as trackers,
            tell_steps(
                plan, config, settings, device, ranks, checkpoints.folder, trackers
            ) as report,
        ):
            model = training.pretrain(
                part,
                config,
                settings,
                seed=run.params["seed"],
                device=device,
                checkpoints=checkpoints,
                report=report,
                stop=stop,
                ranks=ranks,
                budget=budget,
            )
    return (model, checkpoints.log, plan) if ranks.first else None


def _save_weights(run: StageRun, model: MaskedAutoencoder, machine: dict[str, Any]) -> None:
    from ..model.checkpoint import save_weights

    with run.output("scaled_model", about=machine) as path:
        save_weights(path, model)


def _about(
    run: StageRun,
    point: str,
    model: MaskedAutoencoder,
    part: ShardReader,
    plan: Plan,
    log: TrainingLog,
) -> Point:
    from ..evaluate.scaling import Point, tokens_of

    (size,), (share,) = run.params["scaling"]["sizes"], run.params["scaling"]["shares"]
    losses = [row["val_loss"] for row in log.rows() if "val_loss" in row]
    train = part.recordings("train")
    epochs, left = divmod(plan.total_steps, plan.steps_per_epoch)
    return Point(
        point=point,
        size=size["name"],
        share=share,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        timepoints=model.config.timepoints,
        tokens=tokens_of(model.config),
        mask_ratio=run.params["evaluate"]["mask_ratio"],
        n_train_subjects=int(train["subject"].nunique()),
        n_train_recordings=len(train),
        steps=plan.total_steps,
        windows=epochs * plan.windows_per_epoch + left * run.params["pretrain"]["batch_size"],
        val_loss=losses[-1],
        lowest_val_loss=min(losses),
    )


def _score(
    run: StageRun, model: MaskedAutoencoder, reader: ShardReader, mask_ratio: float
) -> pd.DataFrame:
    """Sums by subject, on the windows and with the masks of evaluate-reconstruction."""
    from ..evaluate.hiding import Condition
    from ..evaluate.reconstruction import scored_windows, tally_conditions

    main = Condition("random", mask_ratio)
    tallies = tally_conditions(
        model,
        reader,
        scored_windows(reader, model.config.timepoints),
        [main],
        seed=run.params["seed"],
        batch_size=run.params["pretrain"]["batch_size"],
        tick=lambda items, total: progress(items, "masked windows", total),
    )
    return tallies[main].table()
