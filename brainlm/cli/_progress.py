"""A training as it goes: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ._console import say
from ._training import tell_epochs

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from ..model.config import ModelConfig
    from ..train.distributed import Ranks
    from ..train.pretrain import Plan
    from ..train.settings import PretrainSettings
    from ..train.speed import Speed
    from ..train.tracking.trackers import Trackers

#: Seconds between the lines of a log.
_EVERY = 30.0


@contextlib.contextmanager
def tell_steps(
    plan: Plan,
    config: ModelConfig,
    settings: PretrainSettings,
    device: torch.device,
    ranks: Ranks,
    folder: Path,
    trackers: Trackers,
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield what takes the rows of the log. Speeds go to timings.jsonl in `folder`."""
    from ..train.precision import choose_precision
    from ..train.speed import Speedometer, peak_of, training_flops

    half = choose_precision(settings.precision, device) != "float32"
    meter = Speedometer(
        plan.total_steps,
        plan.windows_per_epoch / plan.steps_per_epoch,
        training_flops(config, plan.asking),
        peak_of(device, ranks.world) if half else None,
    )
    with _bar(plan.total_steps) if sys.stderr.isatty() else _lines() as tell:

        def report(row: dict[str, Any]) -> None:
            trackers.row(row)
            if "loss" not in row:
                tell_epochs(row)
                return
            speed = meter.note(row["step"])
            if tell(row["step"], step_line(row, plan.total_steps, speed)) and speed:
                with (folder / "timings.jsonl").open("a", encoding="utf-8") as handle:
                    handle.write(json.dumps({"step": row["step"], **speed._asdict()}) + "\n")
                shown = {"recordings_per_s": speed.recordings_per_s, "mfu": speed.utilisation}
                known = {name: value for name, value in shown.items() if value is not None}
                trackers.speed(row["step"], known)

        yield report


def step_line(row: dict[str, Any], total: int, speed: Speed | None) -> str:
    """A step in words."""
    words = [
        f"step {row['step']}/{total}",
        f"loss {row['loss']:.4f}",
        f"lr {row['lr']:.2e}",
        f"grad norm {row['grad_norm']:.3f}",
    ]
    if speed is not None:
        words.append(f"{speed.recordings_per_s:.1f} recordings/s")
        if speed.utilisation is not None:
            words.append(f"MFU {speed.utilisation:.0%}")
        words.append(f"{duration(speed.seconds_left)} left")
    return ", ".join(words)


def duration(seconds: float) -> str:
    """Two units at most, e.g. 2 h 05 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02d} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


@contextlib.contextmanager
def _lines() -> Iterator[Callable[[int, str], bool]]:
    """A line of the first step that has a speed, then one each half minute."""
    told: list[float] = []

    def tell(step: int, text: str) -> bool:
        now = time.monotonic()
        if told and now - told[-1] < _EVERY:
            return False
        told.append(now)
        say(text)
        return True

    yield tell


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[int, str], bool]]:
    """A bar that fills up, with the last step's numbers behind it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(bar_width=20), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)

        def tell(step: int, text: str) -> bool:
            bar.update(task, completed=step, description=text)
            return step % 100 == 0

        yield tell
