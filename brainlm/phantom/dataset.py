"""Writing a phantom as a BIDS dataset, with its truth in `derivatives/phantom-truth`."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import InputError
from ..files import atomic_path, read_json, write_json
from ..geometry import Array, write_itk_affines
from ..images import Image, write_image
from . import anatomy, distortion, network, scanner, scene
from .corrupt import corrupt
from .descriptions import (
    bold_sidecar,
    measured_effects,
    t1w_sidecar,
    write_descriptions,
    write_tsv,
)
from .fieldmaps import field_map_kind, write_field_map, write_field_truth
from .motion import motion_table
from .parameters import (
    CORRUPTIONS,
    SPACE,
    TRUTH,
    Parameters,
    Run,
    Session,
    corrupted_subjects,
    plan_runs,
    stream,
)
from .traits import Traits, draw_traits, traits_of

#: recording -> trait -> marker, of the BOLD run just made; empty for a T1w.
Markers = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Job:
    """What a worker needs to make any part of the dataset."""

    out: Path
    parameters: Parameters
    table: pd.DataFrame  # of the atlas
    labels: Image  # parcels on a template grid
    traits: pd.DataFrame  # of the subjects


Scan = tuple[Callable[[Job, Any], Markers], Job, Run | Session]


def is_complete(out: Path, parameters: Parameters, *, force: bool) -> bool:
    """Whether `out` already holds this very phantom; else make sure that we may write there.

    What an interrupted run left is removed, and so is another phantom with `force`.
    Anything that is not a phantom is never touched.
    """
    mark = out / TRUTH / "phantom.json"
    ours = (out / TRUTH / "dataset_description.json").exists()
    if out.exists() and not ours and any(out.iterdir()):
        raise InputError(
            "This folder is not empty and does not hold a phantom",
            file=out,
            fix="name a new or empty folder; nothing was changed",
        )
    if mark.exists() and not force:
        if read_json(mark)["parameters"] == parameters.to_json():
            return True
        raise InputError(
            "This folder holds a phantom made with other parameters",
            file=mark,
            fix="name another folder, or give --force to make it anew",
        )
    if ours:
        mark.unlink(missing_ok=True)
        for folder in [*sorted(out.glob("sub-*")), *sorted((out / TRUTH).glob("sub-*"))]:
            shutil.rmtree(folder)
    return False


def generate(
    out: Path,
    parameters: Parameters,
    table: pd.DataFrame,
    labels: Image,
    *,
    workers: int,
    progress: Callable[[Iterator[Markers], int], Iterator[Markers]],
) -> None:
    """Write the dataset; `progress` wraps the scans as they are done.

    Each scan has its own random streams, so the bytes depend neither on `workers` nor on
    the order in which the scans are made. `phantom.json` comes last: it says that the
    dataset is complete.
    """
    traits = draw_traits(parameters)
    write_descriptions(out, traits)
    job = Job(out, parameters, table, labels, traits)
    runs = plan_runs(parameters)
    sessions = list(dict.fromkeys(run.session for run in runs))
    jobs: list[Scan] = [(write_run, job, run) for run in runs]
    jobs += [(write_session, job, session) for session in sessions]
    markers: dict[str, dict[str, float]] = {}
    for done in progress(_in_any_order(jobs, workers), len(jobs)):
        markers |= done
    faults = {}
    for kind, label in corrupted_subjects(parameters).items():
        affected = [run for run in runs if run.session.subject == label]
        faults[kind] = {
            "subject": f"sub-{label}",
            "recordings": [run.id for run in affected],
            "fault": CORRUPTIONS[kind],
        }
        corrupt(kind, out, affected[-1])
    write_json(
        out / TRUTH / "phantom.json",
        {
            "parameters": parameters.to_json(),
            "recordings": [run.id for run in runs],
            "corrupted": faults,
            "effects": measured_effects(markers, traits, runs),
            "scanner": {
                "contrast": scene.CONTRAST,
                "noise_percent": scanner.NOISE,
                "signal_dropouts": [
                    {"center_mm": list(center), "sd_mm": sd, "loss": loss}
                    for center, sd, loss in scene.DROPOUTS
                ],
            },
        },
    )


def _in_any_order(jobs: list[Scan], workers: int) -> Iterator[Markers]:
    if workers == 1:
        yield from (make(job, what) for make, job, what in jobs)
        return
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_end_with_parent
    )
    with pool:
        waiting = [pool.submit(make, job, what) for make, job, what in jobs]
        yield from (future.result() for future in as_completed(waiting))


def _end_with_parent() -> None:
    """In a worker: leave when the parent is killed, instead of waiting for work for ever."""
    parent = parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def watch() -> None:
            wait([sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def make_head(parameters: Parameters, session: Session) -> anatomy.Head:
    """The subject's head as it lay when the T1w of this session was taken."""
    seed = parameters.seed
    head = anatomy.draw_head(
        parameters.deform_mm, stream(seed, f"sub-{session.subject}", "anatomy")
    )
    if session.session in (None, "1"):
        return head
    return head.moved(anatomy.draw_reposition(4, 3, stream(seed, session.id, "lying down")))


def write_session(job: Job, session: Session) -> Markers:
    """The T1w image of a session, the deformation that made it, and its field map."""
    parameters = job.parameters
    head = make_head(parameters, session)
    rng = stream(parameters.seed, session.id, "T1w")
    t1w = anatomy.make_t1w(head, parameters.t1w_mm, parameters.skull, rng)
    path = _folder(job.out, session, "anat") / f"{session.id}_T1w"
    write_image(f"{path}.nii.gz", t1w.data, t1w.affine)
    write_json(f"{path}.json", t1w_sidecar(session))
    if field_map_kind(parameters, session):
        runs = [run for run in plan_runs(parameters) if run.session == session]
        field = distortion.draw_field(parameters, session)
        folder = _folder(job.out, session, "fmap")
        write_field_map(folder, session, runs, head, field, parameters)
    name = f"{session.id}_from-{SPACE}_to-T1w_mode-image_desc-truth_xfm"
    path = _folder(job.out / TRUTH, session, "anat") / name
    write_image(f"{path}.nii.gz", head.total_displacement(), head.grid)
    write_json(
        f"{path}.json",
        {
            "Description": "Displacement in mm (last axis: R, A, S) at each voxel of the "
            f"{SPACE} grid: the template point x lies at x + displacement in the T1w's world.",
            "SmallestJacobian": round(
                float(anatomy.jacobian(head.displacement, anatomy.FIELD_MM).min()), 4
            ),
        },
    )
    return {}


def write_run(job: Job, run: Run) -> Markers:
    """One BOLD run with its truth; returns the run's trait markers."""
    scan = measure(job, run)
    measured = scan.measured
    path = _folder(job.out, run.session, "func") / f"{run.id}_bold"
    write_image(f"{path}.nii.gz", measured.bold.data, measured.bold.affine, tr=run.tr)
    write_json(f"{path}.json", bold_sidecar(run, measured.bold.data.shape, job.parameters))
    if scan.field is not None:
        folder = _folder(job.out / TRUTH, run.session, "func")
        write_field_truth(folder, run, scan.field, measured.bold.affine)
    _write_run_truth(job, run, measured, scan.since_t1w)
    groups = network.group_of(job.table)
    return {run.id: network.trait_markers(measured.timeseries, groups)}


@dataclass(frozen=True)
class MeasuredRun:
    """A BOLD run with its truth."""

    measured: scanner.Measured
    since_t1w: Array  # (4, 4), how the head has moved since its T1w
    field: NDArray[np.float32] | None  # (x, y, z), Hz; None without distortion


def measure(job: Job, run: Run) -> MeasuredRun:
    """Measure one BOLD run."""
    parameters, seed = job.parameters, job.parameters.seed
    traits: Traits = traits_of(job.traits, run.session.subject)
    seconds = run.volumes * run.tr
    latent = network.simulate(
        job.table, traits, seconds, parameters.signal_percent, stream(seed, run.id, "signals")
    )
    since_t1w = anatomy.draw_reposition(1, 1, stream(seed, run.id, "since T1w"))
    head = make_head(parameters, run.session).moved(since_t1w)
    view = scene.make_scene(
        head, job.labels, len(job.table), run.session.site, parameters.voxel_mm, parameters.skull
    )
    field = None
    if parameters.distortion_mm:
        drawn = distortion.draw_field(parameters, run.session)
        field = distortion.field_on(drawn, head, view.affine, view.shape)
    direction = distortion.phase_encoding(run.session.site)
    shift = None if field is None else distortion.shift_of(field, direction)
    return MeasuredRun(scanner.scan(view, latent, run, parameters, shift), since_t1w, field)


def _write_run_truth(job: Job, run: Run, measured: scanner.Measured, since_t1w: np.ndarray) -> None:
    folder = _folder(job.out / TRUTH, run.session, "func")
    start = {"SamplingFrequency": 1 / run.tr, "StartTime": run.tr / 2}
    path = folder / f"{run.id}_desc-truth_motion"
    write_tsv(f"{path}.tsv", motion_table(measured.params))
    write_json(
        f"{path}.json",
        {
            "Description": "The head's own rigid movement relative to the first volume, about "
            "the centre of the BOLD grid: mm along +R, +A, +S and rad, right-handed about "
            "those axes (Rz Ry Rx). FD after Power et al. (2012), rotations at 50 mm.",
            "SamplingFrequency": 1 / run.tr,
        },
    )
    path = folder / f"{run.id}_desc-truth_timeseries"
    with atomic_path(f"{path}.parquet") as temporary:
        frame = pd.DataFrame(measured.timeseries, columns=list(job.table["name"]))
        frame.to_parquet(temporary, index=False)
    write_json(
        f"{path}.json",
        {
            "Description": "Neural and haemodynamic signal of each parcel at the middle of each "
            "volume's acquisition, without any noise, in % of the grey-matter baseline.",
            "Atlas": job.parameters.atlas,
            **start,
        },
    )
    path = folder / f"{run.id}_desc-truth_artefacts"
    write_tsv(f"{path}.tsv", measured.artefacts)
    write_json(
        f"{path}.json",
        {
            "cardiac": "pulse at the middle of the volume, -1 to 1",
            "respiratory": "breathing at the middle of the volume, -1 to 1",
            "drift_1": "linear drift, SD 1 (drift_2: parabola, drift_3: slow wave)",
            "spin_history_mm": "through-plane movement still remembered by the magnetisation",
            "edge": "course of the head-edge component, SD 1 in a typical run; 0 without artefacts",
            "spike_percent": "size of a spike in one slice of the volume",
            "slice_dropout": "share of the signal lost in one slice of the volume",
            **start,
        },
    )
    # Pull direction: maps points of the T1w to points of the BOLD, as the head then lay.
    name = f"{run.id}_from-boldref_to-T1w_mode-image_desc-truth_xfm.txt"
    write_itk_affines(folder / name, [since_t1w])


def _folder(root: Path, session: Session, kind: str) -> Path:
    folder = root / f"sub-{session.subject}"
    if session.session:
        folder /= f"ses-{session.session}"
    folder /= kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder
