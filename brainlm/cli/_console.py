"""What the commands print: progress on a terminal, plain lines in a log."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sized
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")

_hushed: ContextVar[bool] = ContextVar("hushed", default=False)


@contextlib.contextmanager
def hushed(really: bool = True) -> Iterator[None]:
    """Print nothing but errors for as long as the block."""
    before = _hushed.set(really)
    try:
        yield
    finally:
        _hushed.reset(before)


def say(message: str) -> None:
    """Print one line to the terminal or the log at once."""
    if not _hushed.get():
        print(message, flush=True)


def warn(message: str) -> None:
    """Print one line of warning."""
    if not _hushed.get():
        print(f"Warning: {message}", file=sys.stderr, flush=True)


def progress(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Iterate with a progress bar on a terminal, or a line at each tenth in a log."""
    if _hushed.get():
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(items, description=what, total=total, console=Console(stderr=True))
        return
    step = max(1, (total or 0) // 10)
    for count, item in enumerate(items, start=1):
        yield item
        if total and (count % step == 0 or count == total):
            print(f"{what}: {count}/{total}", file=sys.stderr, flush=True)
