"""Repetition time and slice times: read, repaired where the repair is certain, and told."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

#: Differences below this (s) are rounding, not disagreement.
_ROUNDING_S = 1.5e-3


def repetition_time(
    metadata: dict[str, Any], header_tr: float | None, tr_min: float, tr_max: float
) -> tuple[float | None, list[str], list[str]]:
    """TR in s (None if unknown), faults and notes.

    The JSON sidecar's RepetitionTime counts; the NIfTI header's is only compared, since
    many converters leave a placeholder there. A value that is believable only in ms is
    taken as ms.
    """
    faults: list[str] = []
    notes: list[str] = []
    stated = metadata.get("RepetitionTime")
    if stated is None:
        hint = f" (the NIfTI header says {header_tr:g} s)" if header_tr else ""
        return None, [f"no RepetitionTime in the JSON sidecars{hint}"], notes
    if not is_number(stated) or stated <= 0:
        return None, [f"RepetitionTime is {stated!r}, not a positive number of seconds"], notes
    tr = float(stated)
    if tr > tr_max and tr_min <= tr / 1000 <= tr_max:
        notes.append(f"RepetitionTime {tr:g} taken as ms: {tr / 1000:g} s")
        tr /= 1000
    if not tr_min <= tr <= tr_max:
        faults.append(f"RepetitionTime {tr:g} s is not between {tr_min:g} and {tr_max:g} s")
    if header_tr is not None and abs(header_tr - tr) > _ROUNDING_S:
        in_ms = abs(header_tr / 1000 - tr) <= _ROUNDING_S
        what = "in ms under the unit s" if in_ms else "another TR; the JSON's is used"
        notes.append(f"the NIfTI header says {header_tr:g} s, the JSON {tr:g} s: {what}")
    excitation = metadata.get("RepetitionTimeExcitation")
    if is_number(excitation) and excitation > tr + _ROUNDING_S:
        notes.append(
            f"RepetitionTimeExcitation ({excitation:g} s) is longer than RepetitionTime "
            f"({tr:g} s): one of them is probably wrong"
        )
    return tr, faults, notes


def slice_times(
    metadata: dict[str, Any], n_slices: int, tr: float | None
) -> tuple[list[float] | None, list[str]]:
    """Acquisition time of each slice along +k in s (None if unknown), and notes.

    SliceEncodingDirection `k-` means that the list begins at the last slice (BIDS).
    """
    stated = metadata.get("SliceTiming")
    if stated is None:
        return None, []
    if not isinstance(stated, list) or not all(is_number(t) and t >= 0 for t in stated):
        return None, ["SliceTiming left out: not a list of times"]
    direction = metadata.get("SliceEncodingDirection", "k")
    if direction not in ("k", "k-"):
        return None, [f"SliceTiming left out: slices along {direction!r} are not supported"]
    if len(stated) != n_slices:
        return None, [f"SliceTiming left out: {len(stated)} times for {n_slices} slices"]
    times, notes = [float(t) for t in stated], []
    if tr is not None and max(times) > tr:
        if not 10 * tr < max(times) <= 1000 * tr:
            return None, [f"SliceTiming left out: {max(times):g} s is later than the TR, {tr:g} s"]
        times = [t / 1000 for t in times]
        notes.append("SliceTiming taken as ms")
    if direction == "k-":
        times.reverse()
    return times, notes


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a JSON value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
