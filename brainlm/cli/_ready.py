"""The files of another pipeline that belong to a recording, wherever they were found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._stage import RecordingRun

if TYPE_CHECKING:
    import pandas as pd

    from ..bids.ready.run import ReadyRun


@dataclass(frozen=True)
class Ready:
    """What a recording starts from, by role (see `brainlm.bids.ready.run.ReadyRun`)."""

    root: Path
    files: Mapping[str, str]  # relative to root, or absolute
    fingerprints: Mapping[str, str]
    by: Mapping[str, str]  # step -> who did it
    layout: str
    kind: str
    space: str | None
    cleaned: bool

    def path(self, role: str) -> Path | None:
        """The file of that role, if there is one."""
        return self.root / self.files[role] if role in self.files else None


def ready_of(run: RecordingRun) -> Ready:
    """The recording's files: as onboarding listed them, or as fMRIPrep has just written them."""
    from ..errors import InputError

    recording = run.recording
    if recording.layout is not None:
        return Ready(
            run.bids_dir,
            recording.ready,
            recording.ready_sha256,
            recording.ready_about["by"],
            recording.layout,
            str(recording.kind),
            recording.ready_about["space"],
            recording.ready_about["cleaned"],
        )
    if run.params["engine"] == "fmriprep":
        return _of_fmriprep(run)
    raise InputError(
        f"{recording.id} is a raw run: there is nothing of another pipeline to take over",
        file=run.study.path("recordings"),
        fix="engine: native preprocesses raw runs; for derivatives onboard their folder",
    )


def take(run: RecordingRun, ready: Ready, role: str) -> Path | None:
    """The file of that role, noted as a source and the same as when it was onboarded."""
    path = ready.path(role)
    if path is None:
        return None
    if not ready.fingerprints:
        return run.source(path)
    from ..errors import DataError
    from ..provenance import still_is

    fingerprint = ready.fingerprints.get(role, "")
    relative = ready.files[role]
    try:
        same = not fingerprint or still_is(path, fingerprint)
    except FileNotFoundError:
        raise DataError("The file is not there", file=path, fix="restore it") from None
    if not same:
        raise DataError(
            "The file has changed since it was onboarded (or made by fMRIPrep)",
            file=path,
            fix="run `brainlm onboard` again, then the workflow",
        )
    name = f"bids::{relative}"
    if Path(relative).is_absolute():
        name = f"elsewhere::{path.name}"
    elif path.is_relative_to(run.study.root):
        name = run.study.relative(path)
    run.sources[name] = fingerprint or "not hashed"
    return path


def about_of(ready: Ready) -> dict[str, Any]:
    """What a sidecar says of where the data come from; `ica` says whose components it took."""
    by = {step: who for step, who in sorted(ready.by.items()) if step != "components"}
    about: dict[str, Any] = {"Layout": ready.layout, "ProcessedBy": by}
    if ready.space is not None:
        about["SpaceOfSource"] = ready.space
    return about


def motion_of(
    run: RecordingRun, ready: Ready, confounds: pd.DataFrame | None, n_volumes: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The motion table, a row for each volume that was acquired, and what its sidecar says.

    `n_volumes` is the series' length; a pipeline that censors leaves fewer than were acquired.
    """
    from ..bids.ready.motion import read_motion
    from ..preproc.adopted_tables import motion_from_confounds, unknown_motion
    from ..preproc.censored import kept_volumes

    about: dict[str, Any] = {**about_of(ready), "MotionKnown": True}
    radius = run.params["motion"]["fd_radius_mm"]
    if confounds is not None:
        return motion_from_confounds(confounds, radius), about
    path = take(run, ready, "motion")
    outliers = take(run, ready, "outliers")
    kept: list[int] | None = None
    gone: list[int] = []
    n_acquired = n_volumes
    if outliers is not None:
        kept, gone, n_acquired = kept_volumes(outliers, n_volumes)
    if kept is not None:
        about |= {"Scrubbing": "censor", "KeptVolumes": kept, "CensoredVolumes": gone}
    elif gone:  # filled in, so that no statistic may count them
        about |= {"Scrubbing": "mark", "CensoredVolumes": gone}
    if path is None:
        return unknown_motion(n_acquired), about | {"MotionKnown": False}
    rms = take(run, ready, "rms")
    return read_motion(path, n_acquired, rms=rms, radius_mm=radius), about


def _of_fmriprep(run: RecordingRun) -> Ready:
    """What fMRIPrep wrote for this raw run in the study, as the job's manifest lists it."""
    from ..bids.ready.choice import Wanted
    from ..bids.ready.fmriprep import find_runs
    from ..errors import DataError, UpstreamError
    from ..files import read_json
    from ..fmriprep.jobs import job_of
    from ..layout import entities_of
    from ..provenance import is_tombstone

    recording, space = run.recording, run.params["space"]
    job = job_of(recording.id, run.params["fmriprep"]["level"])
    manifest = run.source(run.path("fmriprep_manifest", job=job))
    if is_tombstone(manifest):
        raise UpstreamError(f"fMRIPrep gave up on {job}", file=manifest)
    root = run.path("fmriprep_outputs")
    any_space = run.params["derivatives"]["space_ok"]
    wanted = Wanted(space["template"], space["resolution_mm"], any_space=any_space)
    runs = find_runs(root, wanted, subject=f"sub-{recording.entities['sub']}")
    found: ReadyRun | None = next((r for r in runs if r.recording_id == recording.id), None)
    if found is None or found.faults:
        why = "; ".join(found.faults) if found else "there is no preprocessed series of it"
        raise DataError(
            f"fMRIPrep left nothing to go on with for this run: {why}",
            file=root,
            fix=f"look into derivatives/fmriprep/sub-{recording.entities['sub']}.html",
        )
    content = read_json(manifest)
    if content["Entities"] != entities_of(job):
        raise DataError(
            f"This list of fMRIPrep's files is of {content['Entities']}, not of {job}",
            file=manifest,
            fix=f"delete it and rerun `brainlm fmriprep {job}`",
        )
    listed = content["Files"]
    prints = {role: listed[path]["SHA256"] for role, path in found.files.items() if path in listed}
    return Ready(root, found.files, prints, found.by, "fmriprep", found.kind, found.space, False)
