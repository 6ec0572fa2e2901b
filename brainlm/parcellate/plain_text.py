"""Large text tables of plain numbers, fast; the careful reader of `ready_files` takes the others.

The compiled reader needs half a second to start, in which the careful one reads some twenty
megabytes. So it is used from that much text on: in one file, or in all that a process reads, as in
onboarding. Both give the same numbers to the last bit.
"""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: What stands for a number that is missing, in lower case.
MISSING = frozenset({"", "n/a", "na", "nan", "null"})
#: Bytes of text from which on compiled code pays.
PAYS_FROM = 20_000_000
#: Cells that Python may judge; anything else (quotes, control characters, other alphabets) might
#: mean something to the careful reader.
_HARMLESS = re.compile(r"[A-Za-z0-9+\-./ ]*")
_BOM = b"\xef\xbb\xbf"

_bytes_read = 0


class PlainTable(NamedTuple):
    """Numbers, and the words of the first line if it holds any that is none."""

    values: NDArray[np.float64]  # (rows, columns)
    head: list[str] | None


def read_plain(path: Path) -> PlainTable | None:
    """Read a table of plain numbers below names or nothing; None if it is not, or not worth it."""
    global _bytes_read
    with path.open("rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        _bytes_read += size
        if _bytes_read < PAYS_FROM:
            return None
        begin, first = _first_line(handle)
        if first is None:
            return None
        text = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    return _parsed(text, begin, first)


def is_number(cell: str) -> bool:
    """Whether a cell says a number, or that it has none."""
    if cell.lower() in MISSING:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _first_line(handle: BinaryIO) -> tuple[int, str | None]:
    """Where the first line that is not blank begins, and its text; None if it is not plain."""
    begin = len(_BOM) if handle.read(len(_BOM)) == _BOM else 0
    handle.seek(begin)
    for line in handle:
        if line.strip():
            text = line.rstrip(b"\r\n")
            plain = text.isascii() and not any(mark in text for mark in b'"\r\v\f\x1c\x1d\x1e')
            return begin, text.decode("ascii") if plain else None
        begin += len(line)
    return begin, None


def _parsed(text: mmap.mmap, begin: int, first: str) -> PlainTable | None:
    """The table from byte `begin` on, where the line `first` stands."""
    from .decimals import numbers_in

    mark = next((mark for mark in "\t,;" if mark in first), " ")
    cells = first.split() if mark == " " else [cell.strip() for cell in first.split(mark)]
    head = None if all(is_number(cell) for cell in cells) else cells
    found = numbers_in(text, begin + (len(first) if head else 0), mark, len(cells))
    if found is None:
        return None
    values, unsure = found
    empty = sum(not word for _, word in unsure)
    if empty >= len(cells) or (empty and mark == " "):
        return None  # perhaps a line that is blank but for its marks, or a space at a line's end
    for cell, word in unsure:
        if not (_HARMLESS.fullmatch(word) and is_number(word)):
            return None
        values.flat[cell] = np.nan if word.lower() in MISSING else float(word)
    return PlainTable(values, head)
