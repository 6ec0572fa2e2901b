"""Which recordings are done again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ..errors import InputError

#: Round and round over these; recordings that are in no split come last.
_ORDER = ("train", "val", "test", "")


def draw(splits: Mapping[str, str], count: int, seed: int) -> list[str]:
    """`count` of the recordings (id -> split), as evenly over the splits as they last.

    Who is drawn hangs on the seed and the names alone: more recordings leave an earlier draw in
    place, but for those that come before them.
    """
    waiting = {
        split: sorted((name for name, own in splits.items() if own == split), key=_lot(seed))
        for split in _ORDER
    }
    drawn: list[str] = []
    while len(drawn) < count and any(waiting.values()):
        for names in waiting.values():
            if names and len(drawn) < count:
                drawn.append(names.pop(0))
    return drawn


def _lot(seed: int) -> Callable[[str], str]:
    return lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def check_known(names: Iterable[str], known: Iterable[str], table: Path) -> None:
    """Refuse recordings that the study has not finished."""
    missing = sorted(set(names) - set(known))
    if missing:
        raise InputError(
            f"{missing[0]} has not been finished in this study, so there is nothing to compare",
            file=table,
            fix="name a recording of the cohort (cohort/recordings.parquet), or leave "
            "--recording out",
        )
