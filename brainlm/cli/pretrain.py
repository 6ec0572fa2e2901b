"""`brainlm pretrain`: train the masked autoencoder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._console import say, warn
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption
from ._training import RequeueOption, going_on_in_the_queue, keep_quiet, open_shards, set_up

if TYPE_CHECKING:
    from ..shards.reader import ShardReader

#: Share of the first weights in the running mean that is more than a training should end with.
_UNTRAINED = 0.01


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("pretrain")(pretrain)


def pretrain(
    study: StudyOption = HERE,
    params: ParamsOption = None,
    threads: ThreadsOption = 1,
    go_on_from: Annotated[
        Path | None,
        typer.Option(
            help="checkpoints of a training with other options, data or code, to go on from all "
            "the same: a folder below models/RUN/checkpoints; noted in the model's provenance"
        ),
    ] = None,
    requeue: RequeueOption = False,
) -> None:
    """Pretrain a masked autoencoder on the train split.

    Most of each window's tokens are hidden (pretrain.mask_ratio) and guessed from the rest.
    Checkpoints go to models/RUN/checkpoints; when killed, the same command goes on where it
    was and ends with the same bytes as an unbroken run (on the same kind of device and, on
    a CPU, with the same --threads). SIGTERM and SIGUSR1 make it save and stop. Changed
    options, data or code start afresh. Under torchrun, or srun with several tasks, the processes
    share the work. Writes models/RUN: weights, config, scaler, parcels, model card and
    metrics.jsonl.
    """
    from ..model.checkpoint import save_weights
    from ..model.config import ModelConfig
    from ..provenance import sha256_json
    from ..train import pretrain as training
    from ..train.checkpointing import Checkpoints
    from ..train.distributed import joined
    from ..train.lineage import inherit, inherited, note_made_of
    from ..train.runtime import describe, stop_signals
    from ..train.settings import PretrainSettings, read_settings
    from ._pretraining import made_of_all, save_around
    from ._progress import tell_steps
    from ._watching import watched

    run = StageRun("pretrain", study, params, software=("numpy", "safetensors", "torch"))
    reader = open_shards(run)
    config = ModelConfig.from_dict(run.params["model"])
    settings = read_settings(PretrainSettings, "pretrain", run.params["pretrain"])
    device = set_up(run, settings.device, threads, deterministic=settings.deterministic)
    machine = describe(device, threads)
    made_of = made_of_all(reader, run.params, run.code, machine)
    with (
        stop_signals(settings.stop_before_end_s) as stop,
        joined() as ranks,
        going_on_in_the_queue(requeue, ranks),
    ):
        checkpoints = Checkpoints.below(
            run.path("model").parent / "checkpoints",
            sha256_json(made_of)[:16],
            say if ranks.first else keep_quiet,
            settings.keep_checkpoints,
        )
        plan = training.make_plan(reader, config, settings)
        if ranks.first:
            _warn_of_short_recordings(reader, config.timepoints)
            _warn_of_an_untrained_mean(settings.ema_decay, plan.total_steps)
            if go_on_from is not None:
                inherit(checkpoints.folder, go_on_from, made_of)
            note_made_of(checkpoints.folder, made_of)
        with (
            watched(run, reader, plan, settings, device, ranks, checkpoints) as (trackers, look),
            tell_steps(
                plan, config, settings, device, ranks, checkpoints.folder, trackers
            ) as report,
        ):
            model = training.pretrain(
                reader,
                config,
                settings,
                seed=run.params["seed"],
                device=device,
                checkpoints=checkpoints,
                report=report,
                stop=stop,
                ranks=ranks,
                look=look,
            )
    if not ranks.first:
        return
    run.path("model").unlink(missing_ok=True)  # no older weights beside the new config.json
    save_around(run, reader, model, settings, checkpoints.log)
    with run.output("model_log", about=machine) as path:
        shutil.copyfile(checkpoints.log.path, path)
    lineage = inherited(checkpoints.folder)
    about = {**machine, "WentOnFrom": lineage} if lineage else machine
    with run.output("model", about=about) as path:
        save_weights(path, model)
    say(f"trained {settings.run}: {run.study.relative(run.path('model'))}")


def _warn_of_short_recordings(reader: ShardReader, window: int) -> None:
    from ..shards.sampler import too_short

    for split in ("train", "val"):
        if short := too_short(reader.lengths(split), window):
            warn(
                f"{len(short)} {split} recordings are shorter than the model's {window} volumes "
                f"and are not used, e.g. {short[0]}"
            )


def _warn_of_an_untrained_mean(decay: float, steps: int) -> None:
    """A running mean begins with random weights: in a short training they are most of it."""
    if (untrained := decay**steps) > _UNTRAINED:
        most = int(1e4 * _UNTRAINED ** (1 / steps)) / 1e4
        warn(
            f"pretrain.ema_decay is {decay:g}: of the mean of the weights, which this training "
            f"ends with, {untrained:.0%} are still the untrained ones after its {steps} steps; "
            f"{most:g} at most suits so few"
        )
