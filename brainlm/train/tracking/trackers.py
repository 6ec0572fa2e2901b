"""Trackers at work beside a training: told in a thread, never waited for, left when they fail."""

from __future__ import annotations

import json
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

#: Seconds between the times at which trackers are asked to make what they were told durable.
_FLUSH_S = 5.0
#: Things to tell that may wait for a slow tracker; what comes on top is left out.
_MOST_WAITING = 100_000


class Tracker(Protocol):
    """One that is told of a training. All is called in one thread, `start` first."""

    name: str

    def start(self, step: int) -> int:
        """Begin, or go on, before `step`; return the last step of which it has been told all."""

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Take numbers of a step; a step may have several such."""

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Take a picture."""

    def flush(self, told: int) -> None:
        """Make what it was told durable; all of step `told` has been."""

    def close(self, told: int) -> None:
        """Make everything durable: there is nothing more to tell."""


class _Told(NamedTuple):
    """Something to tell all trackers."""

    step: int
    values: Mapping[str, float]
    picture: tuple[str, bytes] | None = None


class Trackers:
    """Several trackers of one training."""

    def __init__(self, trackers: Sequence[Tracker], log: Path, warn: Callable[[str], None]):
        """`log` is the training's metrics.jsonl, from which they are told what they lack."""
        self._trackers, self._log, self._warn = list(trackers), log, warn
        self._waiting: queue.Queue[_Told | None] = queue.Queue(_MOST_WAITING)
        self._had: dict[str, int] = {}  # tracker -> last step that it need not be told again
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._begun, self._complained = False, False

    def row(self, row: Mapping[str, Any]) -> None:
        """Tell of a row of the log."""
        self._tell(_Told(row["step"], named(row)))

    def speed(self, step: int, values: Mapping[str, float]) -> None:
        """Tell how fast it goes, which is not in the log."""
        self._tell(_Told(step, {f"speed/{name}": value for name, value in values.items()}))

    def figure(self, name: str, step: int, png: bytes) -> None:
        """Show a picture; without news of this training there is nobody to show it to."""
        if self._begun:
            self._tell(_Told(step, {}, (name, png)))

    def close(self, patience: float) -> None:
        """Wait for the trackers to be done, so many seconds at most."""
        if not self._begun:
            return
        until = time.monotonic() + patience
        try:
            self._waiting.put(None, timeout=patience)
        except queue.Full:
            pass
        else:
            self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            names = " and ".join(tracker.name for tracker in self._trackers)
            self._warn(f"{names} took longer than {patience:.0f} s to finish and was left")

    def _tell(self, told: _Told) -> None:
        if not self._trackers:
            return
        if not self._begun:
            self._begun = True
            self._thread.start()
        try:
            self._waiting.put_nowait(told)
        except queue.Full:
            if not self._complained:
                self._complained = True
                self._warn("Trackers are too slow: some of what happens is not told to them")

    def _work(self) -> None:
        """What the thread does."""
        last, durable = 0, time.monotonic()
        while (told := self._waiting.get()) is not None:
            if not last:
                self._start(told.step)
            last = told.step
            self._each(partial(self._pass_on, told))
            if told.picture is not None or time.monotonic() - durable >= _FLUSH_S:
                # Pictures come last of a step; else more rows of it may come.
                self._each(partial(_flush, last - (told.picture is None)))
                durable = time.monotonic()
        self._each(lambda tracker: tracker.close(last))

    def _start(self, step: int) -> None:
        """Begin before `step`; tell what a tracker lacks of the steps before."""

        def start(tracker: Tracker) -> None:
            had = self._had[tracker.name] = tracker.start(step)
            for row in rows_between(self._log, had, step):
                tracker.values(row["step"], named(row))

        self._each(start)

    def _pass_on(self, told: _Told, tracker: Tracker) -> None:
        if told.step <= self._had[tracker.name]:
            return
        if told.values:
            tracker.values(told.step, told.values)
        if told.picture is not None:
            tracker.picture(told.step, *told.picture)

    def _each(self, action: Callable[[Tracker], None]) -> None:
        """Have each tracker do it; one that fails is left."""
        for tracker in tuple(self._trackers):
            try:
                action(tracker)
            except (Exception, SystemExit) as error:
                self._trackers.remove(tracker)
                why = str(error).strip().partition("\n")[0]
                self._warn(
                    f"{tracker.name} is told no more ({type(error).__name__}: {why}); "
                    "the training goes on"
                )


def _flush(told: int, tracker: Tracker) -> None:
    tracker.flush(told)


def named(row: Mapping[str, Any]) -> dict[str, float]:
    """A row of the log as trackers show it: train/loss, val/r2, val/site/NAME/r2; no nulls."""
    if "by" in row:
        group = re.sub(r"[^\w. -]", "_", row["group"])
        prefix = f"{row['split']}/{row['by']}/{group}/"
    else:
        prefix = "" if "val_loss" in row else "train/"
    return {
        prefix + re.sub("^val_", "val/", name): float(value)
        for name, value in row.items()
        if name not in ("step", "epoch") and isinstance(value, int | float)
    }


def rows_between(log: Path, after: int, before: int) -> Iterator[dict[str, Any]]:
    """The rows of a log of the steps in between; it may be growing."""
    if after + 1 >= before or not log.exists():
        return
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["step"] >= before:
                return
            if row["step"] > after:
                yield row
