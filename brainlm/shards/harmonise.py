"""Which recordings can have the repetition time that is asked for, and what becomes of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .timing import has_tr, n_resampled


@dataclass(frozen=True)
class Timing:
    """The config's section `timing`."""

    tr: float | None  # s, of all recordings; None: each keeps its own
    tolerance: float  # relative difference of a TR that is passed over
    other: str  # "resample" or "exclude" recordings of another TR


#: Every recording keeps its own TR.
OWN_TR = Timing(None, 0.01, "resample")


@dataclass(frozen=True)
class Times:
    """When a recording's samples were taken, and how many it has in the shards."""

    source_tr: float  # s, as recorded
    tr: float  # s, in the shards
    resampled: bool  # False: the stored samples as they are
    n_timepoints: int  # in the shards


def harmonise(
    source_tr: float,
    n_volumes: float,
    timing: Timing,
    *,
    n_stored: int | None,
    n_left: int | None,
    gaps: bool,
    min_volumes: int,
) -> tuple[Times, list[str]]:
    """A recording's times, and why it cannot have them (nothing: it can).

    `n_volumes` has the raw run, `n_left` of them scrubbing left (None: all), with or without `gaps`
    between them; `n_stored` are those of the parcel series (None: as many as there must be).
    Reasons name the rule's numbers, so that equal ones can be counted.
    """
    if not (math.isfinite(source_tr) and source_tr > 0):
        return Times(source_tr, source_tr, False, 0), [
            "its TR is unknown: mend RepetitionTime and onboard again"
        ]
    expected = n_left if n_left is not None else n_volumes
    n = int(expected) if n_stored is None else n_stored
    faults = []
    if n != expected:
        faults.append(
            "its parcel series has not as many volumes as the run (or as scrubbing left of it): "
            "delete it and rerun its parcellation"
        )
    tr = timing.tr
    if tr is None or has_tr(source_tr, tr, timing.tolerance):
        return Times(source_tr, tr or source_tr, False, n), faults
    times = Times(source_tr, tr, True, n_resampled(n, source_tr, tr))
    if timing.other == "exclude":
        faults.append(f"TR {source_tr:g} s is not the {tr:g} s of timing.tr")
    elif gaps:
        faults.append(
            f"TR {source_tr:g} s cannot be brought to the {tr:g} s of timing.tr, since scrubbing "
            "left volumes out: set denoise.scrub: interpolate"
        )
    elif times.n_timepoints < min_volumes:
        faults.append(f"fewer than {min_volumes} volumes at the {tr:g} s of timing.tr")
    return times, faults
