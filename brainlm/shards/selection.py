"""Which finished recordings enter the cohort, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import pandas as pd

from ..errors import DataError
from .exclude_list import BY_HAND
from .harmonise import OWN_TR, Times, Timing, harmonise

_REASONS_TOLD = 5

#: What the cohort's table takes over of each finished recording.
_FACTS = (
    "recording_id",
    "mean_fd",
    "share_parcels",
    "censored",
    "timeseries",
    "timeseries_sha256",
)


@dataclass(frozen=True)
class Finished:
    """What the workflow left of one eligible recording."""

    recording_id: str
    failed_stage: str = ""  # the stage that gave it up; empty when it is whole
    failed_why: str = ""
    failed_file: str = ""  # relative to the study, where the fault lies in one
    failed_fix: str = ""
    mean_fd: float = float("nan")  # mm
    motion_known: bool = True  # else the rule on mean_fd does not apply
    share_parcels: float = float("nan")  # share of the parcels that have a series
    n_stored: int | None = None  # volumes of the parcel series
    n_left: int | None = None  # volumes left by scrubbing; None: as many as the raw run has
    gaps: bool = False  # scrubbing left volumes out between them
    censored: tuple[int, ...] = ()  # volumes of the series that scrubbing marked or filled in
    timeseries: str = ""  # relative to the study
    timeseries_sha256: str = ""


@dataclass(frozen=True)
class Quality:
    """The rules: the `quality` section of the config, and the shortest run of `eligibility`."""

    min_volumes: int
    max_mean_fd_mm: float
    min_parcels: float
    max_excluded: float


@dataclass(frozen=True)
class Selection:
    """The cohort, and what was left out of it."""

    included: pd.DataFrame  # the recordings table's rows + mean_fd, ..., tr, n_timepoints
    exclusions: pd.DataFrame  # recording_id, stage, reason, file, fix
    n_eligible: int
    n_by_hand: int = 0  # of the eligible ones, left out by a person

    @property
    def excluded_share(self) -> float:
        """Share of the eligible recordings that did not make it; who is out by hand apart."""
        asked = self.n_eligible - self.n_by_hand
        return 1 - len(self.included) / asked if asked else 0.0


def select(
    recordings: pd.DataFrame,
    finished: Mapping[str, Finished],
    quality: Quality,
    timing: Timing = OWN_TR,
    by_hand: Mapping[str, str] | None = None,
) -> Selection:
    """Apply the rules to the recordings table; `finished` holds each eligible recording.

    `by_hand` are those that a person left out, with the reason: whatever else is wrong with them.
    """
    eligible = recordings["eligible"].fillna(False).astype(bool)
    excluded = [
        (row.recording_id, "onboard", row.reason if isinstance(row.reason, str) else "", "", "")
        for row in recordings[~eligible].itertuples()
    ]
    kept, left_out_by_hand = [], by_hand or {}
    known = recordings.set_index("recording_id")[["tr", "n_volumes"]].astype("Float64")
    measured = known.to_numpy(float, na_value=float("nan"))
    for (tr, n_volumes), name, is_eligible in zip(measured, known.index, eligible, strict=True):
        if not is_eligible:
            continue
        if name in left_out_by_hand:
            excluded.append((name, BY_HAND, left_out_by_hand[name], "", ""))
            continue
        found = finished[name]
        if found.failed_stage:
            told = (found.failed_why, found.failed_file, found.failed_fix)
            excluded.append((name, found.failed_stage, *told))
            continue
        times, faults = harmonise(
            tr,
            n_volumes,
            timing,
            n_stored=found.n_stored,
            n_left=found.n_left,
            gaps=found.gaps,
            min_volumes=quality.min_volumes,
        )
        if reasons := [*_quality_reasons(found, quality), *faults]:
            excluded.append((name, "cohort", "; ".join(reasons), "", ""))
        else:
            kept.append({**_facts(found), **asdict(times)})
    facts = pd.DataFrame(kept, columns=[*_FACTS, *(item.name for item in fields(Times))])
    facts["recording_id"] = facts["recording_id"].astype(recordings["recording_id"].dtype)
    included = recordings.drop(columns="tr").merge(facts, on="recording_id")
    return Selection(
        included=included.sort_values("recording_id", ignore_index=True),
        exclusions=pd.DataFrame(
            sorted(excluded),
            columns=["recording_id", "stage", "reason", "file", "fix"],
            dtype="string",
        ).replace("", pd.NA),
        n_eligible=int(eligible.sum()),
        n_by_hand=sum(stage == BY_HAND for _, stage, *_ in excluded),
    )


def check_enough_is_left(selection: Selection, quality: Quality) -> None:
    """Fail loudly when a large part of the cohort is lost: that is rarely the data's fault."""
    if selection.n_eligible == 0:
        raise DataError(
            "No recording is eligible",
            fix="look at the column `reason` of onboarding/recordings.tsv",
        )
    share = selection.excluded_share
    if share <= quality.max_excluded and len(selection.included):
        return
    by_hand = int((selection.exclusions["stage"] == BY_HAND).sum())
    if by_hand and share <= quality.max_excluded:
        raise DataError(
            f"No recording is left in the cohort: {by_hand} are excluded by hand",
            fix="take some out of config/exclude.tsv",
        )
    lost = selection.exclusions[~selection.exclusions["stage"].isin(["onboard", BY_HAND])]
    counts = Counter(zip(lost["stage"], lost["reason"], strict=True))
    told = "; ".join(
        f"{count} x {stage}: {reason}"
        for (stage, reason), count in counts.most_common(_REASONS_TOLD)
    )
    raise DataError(
        f"{share:.0%} of {selection.n_eligible} eligible recordings are excluded, more than "
        f"quality.max_excluded = {quality.max_excluded:.0%} allows. Most frequent: {told}",
        fix="mend the cause (see qc/failures for single recordings), or change the quality rules",
    )


def _facts(found: Finished) -> dict[str, Any]:
    facts = {name: getattr(found, name) for name in _FACTS}
    return {**facts, "censored": list(found.censored)}


def _quality_reasons(found: Finished, quality: Quality) -> list[str]:
    """Why a whole recording is not good enough; the numbers in a reason are the rule's.

    They are not the recording's, so that equal reasons can be counted.
    """
    reasons = []
    if found.motion_known and not found.mean_fd <= quality.max_mean_fd_mm:
        reasons.append(f"mean FD above {quality.max_mean_fd_mm:g} mm")
    if not found.share_parcels >= quality.min_parcels:
        reasons.append(f"parcels with a series below {quality.min_parcels:.0%}")
    if found.n_left is not None and found.n_left < quality.min_volumes:
        reasons.append(f"scrubbing leaves {found.n_left} volumes, fewer than {quality.min_volumes}")
    return reasons
