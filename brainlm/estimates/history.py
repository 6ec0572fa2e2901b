"""What the stages took in earlier runs of this study, from Snakemake's benchmark files."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ..layout import folder_of
from ..recordings import anat_id_of

#: Files read of each stage, at most, and looked for.
_READ, _LOOKED_FOR = 100, 2000
#: Fewer than this tell too little.
_FEWEST = 3


@dataclass(frozen=True)
class Took:
    """What a stage took in earlier jobs."""

    factor: float  # seconds taken over seconds expected, the median
    jobs: int  # that this is known from
    peak_mb: float | None  # largest memory; None: all ended before it was looked at


def read_history(
    study: Path,
    stage: str,
    rows: Mapping[str, Mapping[str, Any]],
    expected: Callable[[str], float],
) -> Took | None:
    """What `stage` took in this study; None where fewer than three jobs of it are on record.

    `expected` gives the seconds that were expected for a recording. A job of many recordings
    (`run-batch`) leaves these files for each stage of each, too.
    """
    folder = study / "benchmarks" / stage
    if not folder.is_dir():
        return None
    factors, peaks = [], []
    for name in _some(rows):
        told = _read(folder / _file_of(stage, name, rows[name]))
        if told is None or not expected(name):
            continue
        factors.append(told[0] / expected(name))
        peaks += [told[1]] if told[1] is not None else []
        if len(factors) == _READ:
            break
    if len(factors) < _FEWEST:
        return None
    return Took(median(factors), len(factors), max(peaks, default=None))


def _file_of(stage: str, name: str, row: Mapping[str, Any]) -> str:
    if stage == "normalize-anat":
        name = anat_id_of(row["t1w"]) if row["t1w"] else "none"
    return f"{folder_of(name)}/{name}.tsv" if name != "none" else name


def _some(names: Iterable[str]) -> list[str]:
    """Names from all over the study, the same ones each time."""
    ordered = sorted(names)
    return random.Random(0).sample(ordered, min(len(ordered), _LOOKED_FOR))


def _read(path: Path) -> tuple[float, float | None] | None:
    """Seconds and largest memory (MB) of a job; None where the file is not there or not whole."""
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            row = next(csv.DictReader(handle, delimiter="\t"))
        seconds = float(row["s"])
        peak = None if row["max_rss"] in ("NA", "-") else float(row["max_rss"])
    except (OSError, StopIteration, KeyError, TypeError, ValueError):
        return None
    return seconds, peak
