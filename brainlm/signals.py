"""A process that is told to end, and those that it has started."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from .errors import ResourceError

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class Stopped(BaseException):
    """Somebody asked this process to end (Slurm, Ctrl-C)."""


@contextlib.contextmanager
def stopping_on_signals(fix: str) -> Iterator[None]:
    """Turn the signals that end a job into an exception, so that what was begun is cleaned up.

    The first one counts; those that follow would break off the cleaning. `fix`: what the user is
    told then.
    """
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def stop(number: int, frame: FrameType | None) -> None:
        for one in numbers:
            signal.signal(one, signal.SIG_IGN)
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except Stopped as stopped:
        name = signal.Signals(stopped.args[0]).name
        raise ResourceError(f"The job was stopped by {name}", fix=fix) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """In a new process: have Linux send it SIGTERM when the one that started it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
