"""Which window of which recording comes when: decided by (seed, epoch, recording) alone.

Any process that asks for an epoch gets the same stream, so a resumed run, or one of many
ranks, needs no state but the number of the epoch and of the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from ..errors import DataError
from .splits import uniform_of

Item = TypeVar("Item")


class Window(NamedTuple):
    """A stretch of one recording."""

    recording_id: str
    start: int


def too_short(lengths: Mapping[str, int], window: int) -> list[str]:
    """Recordings that hold no whole window, by name."""
    return sorted(name for name, length in lengths.items() if length < window)


def random_windows(
    lengths: Mapping[str, int], *, window: int, seed: int, epoch: int, per_recording: int
) -> list[Window]:
    """The windows of one epoch, in their order; recordings that are too short are left out.

    `lengths` maps recording_id to time points.
    """
    drawn = []
    for name, length in lengths.items():
        for number in range(per_recording if length >= window else 0):
            place = (seed, epoch, name, number)
            start = int(uniform_of("start", *place) * (length - window + 1))
            drawn.append((uniform_of("order", *place), Window(name, start)))
    return [window for _, window in sorted(drawn)]


def even_windows(lengths: Mapping[str, int], window: int) -> list[Window]:
    """Fixed windows for validation and test: as many as fit, evenly spread over the recording.

    One window stands in the middle; more reach from the first to the last time point.
    """
    windows = []
    for name in sorted(lengths):
        slack, count = lengths[name] - window, lengths[name] // window
        for number in range(count):
            start = slack // 2 if count == 1 else round(number * slack / (count - 1))
            windows.append(Window(name, start))
    return windows


def batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Cut windows (or what is made of them) into batches; the last one may be smaller."""
    return [items[first : first + size] for first in range(0, len(items), size)]


def check_any_window(lengths: Mapping[str, int], window: int, split: str) -> None:
    """Refuse a split in which no recording is long enough."""
    if len(too_short(lengths, window)) == len(lengths):
        raise DataError(
            f"No recording of the {split} split has the model's {window} time points",
            fix="raise eligibility.min_volumes to the window's length or choose another split.salt",
        )
