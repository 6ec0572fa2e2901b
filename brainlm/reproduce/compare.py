"""How far two files of the same kind are from each other."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import DataError
from ..provenance import is_tombstone, sha256_file
from .tolerances import Tolerance

Values = Mapping[str, NDArray]


class Verdict(StrEnum):
    """What came of a file that was made again."""

    bitwise = "bitwise"
    within = "within tolerance"
    told = "told, not judged"
    beyond = "beyond tolerance"
    not_made = "not made again"
    not_kept = "not kept in the study"


#: Verdicts that make a rerun fail.
BAD = (Verdict.beyond, Verdict.not_made)


@dataclass(frozen=True)
class Distance:
    """Of two sets of values that have the same names and shapes."""

    max_abs: float
    relative: float  # max_abs in standard deviations of the recorded values, the worst column's
    correlation: float | None  # the smallest; None: nothing varies

    @classmethod
    def between(cls, recorded: Values, again: Values) -> Distance | str:
        """The distance; or in words, why there is none."""
        if list(recorded) != list(again):
            return "other columns or tensors"
        largest = relative = 0.0
        smallest: float | None = None
        for name, before in recorded.items():
            after = again[name]
            if before.shape != after.shape:
                return f"{name}: shape {after.shape}, recorded {before.shape}"
            if before.dtype.kind not in "fiub" or after.dtype.kind not in "fiub":
                if not np.array_equal(before.astype(str), after.astype(str)):
                    return f"{name}: other texts"
                continue
            x, y = (part.astype(np.float64).ravel() for part in (before, after))
            known = np.isfinite(x)
            if not np.array_equal(known, np.isfinite(y)):
                return f"{name}: values are missing in other places"
            x, y = x[known], y[known]
            if not len(x):
                continue
            apart, spread = float(np.abs(x - y).max()), float(x.std())
            largest = max(largest, apart)
            relative = max(relative, apart / (spread or float(np.abs(x).max()) or 1.0))
            if spread and y.std():
                # Of equal series it is 1 by definition, whatever rounding makes of it.
                r = float(np.corrcoef(x, y)[0, 1]) if apart else 1.0
                smallest = r if smallest is None else min(smallest, r)
        return cls(largest, relative, smallest)

    def verdict(self, tolerance: Tolerance) -> Verdict:
        """Whether it is near enough."""
        if tolerance.relative is None:
            return Verdict.told
        near = self.relative <= tolerance.relative
        alike = self.correlation is None or self.correlation >= tolerance.correlation
        return Verdict.within if near and alike else Verdict.beyond


@dataclass(frozen=True)
class Compared:
    """A file, or what stands in one, and how it came out."""

    stage: str
    what: str  # path relative to the study, with `#part` for a part of a file
    verdict: Verdict
    distance: Distance | None = None
    note: str = ""

    def as_json(self) -> dict[str, object]:
        """For reports/reproduce.json."""
        found: dict[str, object] = {
            "stage": self.stage,
            "what": self.what,
            "verdict": str(self.verdict),
            "note": self.note,
        }
        if self.distance is not None:
            found |= {
                "max_abs": self.distance.max_abs,
                "max_relative": self.distance.relative,
                "min_correlation": self.distance.correlation,
            }
        return found


def judge(
    stage: str, what: str, distance: Distance | str, tolerance: Tolerance, note: str = ""
) -> Compared:
    """`distance` is of values that are not the same bytes."""
    if isinstance(distance, str):
        verdict = Verdict.told if tolerance.relative is None else Verdict.beyond
        return Compared(stage, what, verdict, note=f"{note}; {distance}" if note else distance)
    return Compared(stage, what, distance.verdict(tolerance), distance, note)


def compare_files(
    stage: str, what: str, recorded: Path, again: Path, tolerance: Tolerance
) -> Compared:
    """Two files of the same kind: their bytes, and where these differ, their values."""
    if not recorded.exists():
        return Compared(stage, what, Verdict.not_kept)
    if not again.exists():
        return Compared(stage, what, Verdict.not_made)
    given_up = is_tombstone(again)
    if given_up != is_tombstone(recorded):
        note = "was given up now, and not before" if given_up else "was given up before, not now"
        return Compared(stage, what, Verdict.beyond, note=note)
    if sha256_file(recorded) == sha256_file(again):
        return Compared(stage, what, Verdict.bitwise)
    try:
        distance = Distance.between(read_values(recorded), read_values(again))
    except (DataError, OSError, ValueError) as error:
        distance = f"cannot be read: {str(error).splitlines()[0]}"
    return judge(stage, what, distance, tolerance)


def read_values(path: Path) -> dict[str, NDArray]:
    """All numbers in a file, by column or tensor."""
    name = path.name
    if name.endswith(".nii.gz"):
        from ..images import read_image

        image = read_image(path)
        return {"affine": image.affine, "image": np.asarray(image.data)}
    if name.endswith(".tsv"):
        return _columns(pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=False))
    if name.endswith(".parquet"):
        return _columns(pd.read_parquet(path))
    if name.endswith(".safetensors"):
        from ..shards.tensorfile import load_tensors

        return dict(load_tensors(path)[0])
    if name.endswith(".txt"):
        return {"parameters": _numbers(path.read_text(encoding="utf-8"))}
    if name.endswith(".json"):
        return {"text": np.array([json.dumps(json.loads(path.read_text(encoding="utf-8")))])}
    raise ValueError("this kind of file has no numbers to compare")


def _columns(table: pd.DataFrame) -> dict[str, NDArray]:
    return {str(name): table[name].to_numpy() for name in table.columns}


def _numbers(text: str) -> NDArray[np.float64]:
    """The numbers of an ITK transform, in their order."""
    found = []
    for word in text.split():
        try:
            found.append(float(word))
        except ValueError:
            continue
    return np.array([number for number in found if math.isfinite(number)])
