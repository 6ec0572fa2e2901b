"""Who watches a training: trackers, and pictures of it in models/RUN/figures.

Nothing of this decides the result, and whatever fails of it is told and passed over.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._console import say, warn

if TYPE_CHECKING:
    import torch

    from ..config import Tracking
    from ..shards.reader import ShardReader
    from ..train.checkpointing import Checkpoints
    from ..train.distributed import Ranks
    from ..train.pretrain import Plan
    from ..train.settings import FinetuneSettings, PretrainSettings
    from ..train.tracking.trackers import Tracker, Trackers
    from ..train.tuning import Circumstances
    from ..train.validation import Look
    from ._stage import StageRun
    from .finetune import Lesson

#: Seconds that trackers have to finish: at the end, and when the job is being taken away.
_AT_THE_END, _INTERRUPTED = 300.0, 20.0


@contextlib.contextmanager
def watched(
    run: StageRun,
    reader: ShardReader,
    plan: Plan,
    settings: PretrainSettings,
    device: torch.device,
    ranks: Ranks,
    checkpoints: Checkpoints,
) -> Iterator[tuple[Trackers, Look | None]]:
    """A pretraining: whom to tell, and what draws its validations."""
    from ._training_figures import Gallery, pretraining_figures

    with tracked(run, checkpoints.folder, settings.run, first=ranks.first) as trackers:
        gallery = Gallery(
            checkpoints.folder / "figures",
            trackers,
            first=ranks.first,
            shown=run.path("model").parent / "figures",
        )
        yield (
            trackers,
            pretraining_figures(
                gallery,
                reader,
                plan,
                settings,
                seed=run.params["seed"],
                device=device,
                most=tracking_of(run).figures,
            ),
        )
        gallery.show()


@contextlib.contextmanager
def watched_lesson(
    run: StageRun,
    reader: ShardReader,
    settings: FinetuneSettings,
    around: Circumstances,
    lesson: Lesson,
) -> Iterator[Circumstances]:
    """A fine-tuning, or one of its repeats: the same circumstances with somebody watching."""
    from ._training_figures import Gallery
    from ._tuning_figures import TuningFigures

    checkpoints, first = around.checkpoints, around.ranks.first
    model = run.path(lesson.kind).parent
    repeat = checkpoints.folder.name if settings.repeats > 1 else ""
    name = f"{model.name} {repeat}".strip()
    with tracked(run, checkpoints.folder, name, first=first) as trackers:

        def report(row: dict[str, Any]) -> None:
            trackers.row(row)
            around.report(row)

        gallery = Gallery(model / "figures" / repeat, trackers, first=first)
        most = tracking_of(run).figures
        figures = TuningFigures(
            gallery,
            reader,
            checkpoints.log,
            settings,
            lesson.head,
            precision=around.precision,
            most=most,
        )
        onlookers = (figures.look, figures.look_at_kept) if most else (None, None)
        yield around._replace(report=report, look=onlookers[0], look_at_kept=onlookers[1])


@contextlib.contextmanager
def tracked(run: StageRun, folder: Path, name: str, *, first: bool) -> Iterator[Trackers]:
    """Within the block there are the trackers that the config asks for: none but on the first.

    `folder` holds the checkpoints of the training, `name` is what it is called.
    """
    from ..train.tracking.trackers import Trackers

    trackers = Trackers(
        _wanted(run, tracking_of(run), folder, name) if first else [],
        folder / "metrics.jsonl",
        warn,
    )
    patience = _INTERRUPTED
    try:
        yield trackers
        patience = _AT_THE_END
    finally:
        trackers.close(patience)


def tracking_of(run: StageRun) -> Tracking:
    """Section `tracking`: of the study's config, not of --params, which decide the result."""
    from ..config import Tracking

    return run.config.tracking if run.study.path("config").exists() else Tracking()


def _wanted(run: StageRun, options: Tracking, folder: Path, name: str) -> list[Tracker]:
    from ..train.tracking.mlflow_run import MlflowRun
    from ..train.tracking.notes import Notes
    from ..train.tracking.tensorboard import TensorBoard
    from ..train.tracking.wandb_run import WandbRun

    notes, about = Notes(folder), flat(run.params)
    found: list[Tracker] = []
    if options.tensorboard and _installed("tensorboard", "no event files are written"):
        found.append(TensorBoard(folder / "tensorboard", notes))
    if options.wandb and _installed("wandb", "W&B is told nothing"):
        found.append(WandbRun(options.wandb, name, about, folder, notes, offline=options.offline))
    if options.mlflow and _installed("mlflow", "MLflow is told nothing"):
        store = mlflow_store(options.mlflow, run.study.root, folder, offline=options.offline)
        found.append(MlflowRun(store, run.config.name, name, about, notes))
    return found


def mlflow_store(wanted: str, study: Path, folder: Path, *, offline: bool) -> str:
    """The store as MLflow is told of it; offline, a server's place is taken by a local store."""
    from ..train.tracking.mlflow_run import is_address

    if not is_address(wanted):
        return str(study / wanted)
    local = wanted.startswith(("sqlite:", "file:"))
    return str(folder / "mlflow") if offline and not local else wanted


def _installed(package: str, so: str) -> bool:
    if importlib.util.find_spec(package) is not None:
        return True
    say(f"The package {package} is not installed: {so} (pip install {package})")
    return False


def flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options as one level, `pretrain.epochs`: numbers and words alone."""
    found: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, bool | int | float | str):
            found[prefix + name] = value
    return found
