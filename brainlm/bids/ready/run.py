"""What is known of a run that another pipeline has brought part of the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: volume: a 4-D image; dense: CIFTI dense series; parcels: a table with a column per parcel.
Kind = Literal["volume", "dense", "parcels"]


@dataclass(frozen=True)
class ReadyRun:
    """A run as a pipeline left it, with the files that serve to go on from there.

    `files` names them by role, relative to the dataset: `series` (the 4-D image, the dense
    series or the table of parcels), and where they are there `mask`, `confounds` (a table in
    fMRIPrep's names), `motion` (the layout's own file of motion parameters), `mixing` and
    `components` (courses of independent components, and which are noise), `warp` (the way to the
    standard space) and `coverage` (of parcels).
    """

    recording_id: str  # sub-01_ses-1_task-rest_run-1
    layout: str  # the module's name: fmriprep, xcpd, hcp, ukb, tables
    kind: Kind
    files: Mapping[str, str]
    by: Mapping[str, str]  # step -> who did it: {"motion": "fMRIPrep 24.1.0"}
    space: str | None = None  # template that the series lies in; None: its own, `warp` leads on
    cleaned: bool = False  # nuisance has been regressed out already
    tr: float | None = None  # s, as the layout says; None: see the header
    faults: tuple[str, ...] = ()  # why it cannot be used
    notes: tuple[str, ...] = field(default=())  # what was chosen or assumed
