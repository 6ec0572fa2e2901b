"""Numbers of things, as a sentence has them."""

from __future__ import annotations

from collections.abc import Callable

#: How a number of people or recordings is told.
Tell = Callable[[int], str]


def exactly(count: int) -> str:
    """As it is."""
    return f"{count:,}"


def counted(count: int, noun: str, tell: Tell = exactly) -> str:
    """`1 run`, `2 runs`, `12,000 runs`."""
    told = tell(count)
    return f"{told} {noun}{'' if told == '1' else 's'}"
