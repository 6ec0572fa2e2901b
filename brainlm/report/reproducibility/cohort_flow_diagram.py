"""The flow as boxes: the stops below each other, what left beside them, the splits in a row."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field

from .cohort_flow_steps import Told

WIDTH = 1000
_MAIN, _GAP = 320, 50  # width of the first column, and what is between it and the second
_LINE, _PAD, _TALL, _SPACE = 18, 14, 62, 30
_CHARACTERS = 74  # of a reason in one line


@dataclass(frozen=True)
class Box:
    """A box with its lines of text: (x, y, class, words)."""

    x: int
    y: int
    width: int
    height: int
    kind: str
    lines: list[tuple[int, int, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Diagram:
    """Boxes and the arrows between them (SVG paths)."""

    boxes: list[Box]
    arrows: list[str]
    height: int


def draw(told: Told) -> Diagram:
    """Place everything, top to bottom."""
    boxes: list[Box] = []
    arrows: list[str] = []
    middle, y = _MAIN // 2, 4
    for place, (title, number, people, out) in enumerate(told.steps):
        if place:
            below = y + _side_height(out) + _SPACE if out else y + _SPACE
            if out:
                boxes.append(_side(out, y + _SPACE // 2))
                half = y + _SPACE // 2 + boxes[-1].height // 2
                arrows.append(f"M{middle},{half} H{_MAIN + _GAP - 6}")
            arrows.append(f"M{middle},{y} V{below - 6}")
            y = below
        boxes.append(_main(0, y, _MAIN, number, title, people))
        y += _TALL
    if told.splits:
        width = (WIDTH - 2 * _SPACE) // 3
        lane = y + _SPACE // 2
        for place, split in enumerate(told.splits):
            x = place * (width + _SPACE)
            arrows.append(f"M{middle},{y} V{lane} H{x + width // 2} V{y + _SPACE - 6}")
            people = split["people"]
            if people and split["minutes"] != "not told":
                people += f", {split['minutes']} min"
            boxes.append(_main(x, y + _SPACE, width, split["recordings"], split["name"], people))
        y += _SPACE + _TALL
    return Diagram(boxes, arrows, y + 4)


def _main(x: int, y: int, width: int, number: str, title: str, people: str) -> Box:
    lines = [(x + _PAD, y + 27, "number", number)]
    # The number's width in the page's font is not known: titles stand below it, not beside.
    lines.append((x + _PAD, y + 48, "title", f"{title}{'  ·  ' + people if people else ''}"))
    return Box(x, y, width, _TALL, "main", lines)


def _rows(out: list[tuple[str, str]]) -> list[tuple[str, str]]:
    rows = []
    for number, reason in out:
        first, *more = textwrap.wrap(reason, _CHARACTERS) or [""]
        rows += [(number, first), *(("", line) for line in more[:2])]
    return rows


def _side_height(out: list[tuple[str, str]]) -> int:
    return len(_rows(out)) * _LINE + _PAD


def _side(out: list[tuple[str, str]], y: int) -> Box:
    x = _MAIN + _GAP
    lines = []
    for place, (number, words) in enumerate(_rows(out)):
        line = y + _PAD // 2 + 13 + place * _LINE
        lines += [(x + 66, line, "count", number), (x + 76, line, "reason", words)]
    return Box(x, y, WIDTH - x, _side_height(out), "side", lines)
