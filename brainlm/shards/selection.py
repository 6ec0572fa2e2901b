"""Which finished recordings enter the cohort, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from ..errors import DataError

_REASONS_TOLD = 5


@dataclass(frozen=True)
class Finished:
    """What the workflow left of one eligible recording."""

    recording_id: str
    failed_stage: str = ""  # the stage that gave it up; empty when it is whole
    failed_why: str = ""
    mean_fd: float = float("nan")  # mm
    motion_known: bool = True  # else the rule on mean_fd does not apply
    share_parcels: float = float("nan")  # share of the parcels that have a series
    n_left: int | None = None  # volumes left by scrubbing; None: as many as the raw run has
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

    included: pd.DataFrame  # the recordings table's rows + n_timepoints, mean_fd, ...
    exclusions: pd.DataFrame  # recording_id, stage, reason
    n_eligible: int

    @property
    def excluded_share(self) -> float:
        """Share of the eligible recordings that did not make it."""
        return 1 - len(self.included) / self.n_eligible if self.n_eligible else 0.0


def select(
    recordings: pd.DataFrame, finished: Mapping[str, Finished], quality: Quality
) -> Selection:
    """Apply the rules to the recordings table; `finished` holds each eligible recording."""
    eligible = recordings["eligible"].fillna(False).astype(bool)
    excluded = [
        (row.recording_id, "onboard", row.reason if isinstance(row.reason, str) else "")
        for row in recordings[~eligible].itertuples()
    ]
    kept = []
    for recording_id in recordings.loc[eligible, "recording_id"]:
        found = finished[recording_id]
        if found.failed_stage:
            excluded.append((recording_id, found.failed_stage, found.failed_why))
        elif reasons := _quality_reasons(found, quality):
            excluded.append((recording_id, "cohort", "; ".join(reasons)))
        else:
            kept.append(found)
    facts = pd.DataFrame(
        [
            (
                f.recording_id,
                f.n_left,
                f.mean_fd,
                f.share_parcels,
                list(f.censored),
                f.timeseries,
                f.timeseries_sha256,
            )
            for f in kept
        ],
        columns=[
            "recording_id",
            "n_timepoints",
            "mean_fd",
            "share_parcels",
            "censored",
            "timeseries",
            "timeseries_sha256",
        ],
    )
    facts["recording_id"] = facts["recording_id"].astype(recordings["recording_id"].dtype)
    included = recordings.merge(facts, on="recording_id")
    included["n_timepoints"] = (
        included["n_timepoints"].astype("Int64").fillna(included["n_volumes"])
    )
    included["source_tr"], included["family"] = included["tr"], pd.Series(pd.NA, dtype="string")
    return Selection(
        included=included.sort_values("recording_id", ignore_index=True),
        exclusions=pd.DataFrame(
            sorted(excluded), columns=["recording_id", "stage", "reason"], dtype="string"
        ),
        n_eligible=int(eligible.sum()),
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
    lost = selection.exclusions[selection.exclusions["stage"] != "onboard"]
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
