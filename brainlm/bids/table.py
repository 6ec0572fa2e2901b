"""The recordings table: every BOLD run, with what was found, repaired and refused."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..recordings import COLUMNS, RAW_ENTITIES, anat_id_of
from .fieldmaps import MapFile, field_map_columns
from .participants import Participants
from .place import MIN_OVERLAP, box_overlap
from .scan import Scan
from .timing import repetition_time, slice_times
from .walk import Found

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Limits:
    """What makes a run eligible (`eligibility` in the config)."""

    min_volumes: int
    tr_min: float
    tr_max: float


@dataclass
class Run:
    """A BOLD run with everything known about it."""

    found: Found
    scan: Scan
    metadata: dict[str, Any]
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def build_table(
    runs: Iterable[Run],
    anats: Mapping[str, list[tuple[Found, Scan]]],
    participants: Participants,
    limits: Limits,
    dataset: str,
    fieldmaps: Mapping[str, list[MapFile]],
) -> pd.DataFrame:
    """One row per recording_id, sorted; columns as `COLUMNS`.

    `anats` holds the T1w images of each subject, `fieldmaps` the files of its field maps, both
    sorted by path.
    """
    import pandas as pd

    by_id: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_id[run.found.identifier].append(run)
    rows = []
    for identifier in sorted(by_id):
        same = by_id[identifier]
        if len(same) > 1:
            files = " and ".join(run.found.path for run in same)
            same[0].faults.append(f"more than one file has this recording_id: {files}")
        subject = same[0].found.subject
        rows.append(
            _row(same[0], anats.get(subject, []), fieldmaps.get(subject, []), participants, limits)
        )
    _note_uneven(rows)
    for row in rows:
        row |= {
            "dataset": dataset,
            "eligible": not row["faults"],
            "reason": "; ".join(row.pop("faults")) or None,
            "notes": "; ".join(row.pop("notes")) or None,
        }
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _row(
    run: Run,
    anats: list[tuple[Found, Scan]],
    maps: list[MapFile],
    participants: Participants,
    limits: Limits,
) -> dict[str, Any]:
    """One row, with the lists `faults` and `notes` still apart."""
    found, scan = run.found, run.scan
    entities = found.entities or {}
    faults = [*run.faults, *_name_faults(found), *scan.faults]
    if "echo" in entities:
        faults.append("one echo of several: combine the echoes first, e.g. by tedana or fMRIPrep")
    notes = [*run.notes, *scan.notes]
    tr, tr_faults, tr_notes = repetition_time(
        run.metadata, scan.header_tr, limits.tr_min, limits.tr_max
    )
    n_slices = scan.shape[2] if len(scan.shape) > 2 else 0
    timing, timing_notes = slice_times(run.metadata, n_slices, tr)
    n_volumes = scan.shape[3] if len(scan.shape) == 4 else None
    faults += [*tr_faults, *_length_faults(scan, limits)]
    notes += [*tr_notes, *timing_notes]
    t1w, t1w_scan, t1w_notes = choose_t1w(found, anats)
    distortion, distortion_notes = field_map_columns(found, run.metadata, scan, maps)
    notes += [*t1w_notes, *distortion_notes]
    if t1w_scan is not None and t1w_scan.affine is not None and scan.affine is not None:
        overlap = box_overlap(scan.affine, scan.shape, t1w_scan.affine, t1w_scan.shape)
        if overlap < MIN_OVERLAP:
            faults.append(
                f"wrong affine: BOLD and T1w lie at different places (overlap {overlap:.0%})"
            )
    if found.subject in participants.contradictory:
        faults.append(f"participants.tsv holds different rows for sub-{found.subject}")
    elif participants.listed and found.subject not in participants.listed:
        notes.append("not in participants.tsv")
    return {
        "recording_id": found.identifier,
        "subject": found.subject,
        "session": found.session,
        "task": entities.get("task"),
        "run": entities.get("run"),
        "site": participants.site.get(found.subject),
        "bold": found.path,
        "bold_sha256": scan.fingerprint,
        "t1w": t1w.path if t1w else None,
        "anat_id": anat_id_of(t1w.path) if t1w else None,
        "t1w_sha256": t1w_scan.fingerprint if t1w_scan else None,
        "n_volumes": n_volumes,
        "tr": tr,
        "shape": json.dumps(list(scan.shape[:3])) if scan.shape else None,
        "zooms": json.dumps([round(zoom, 4) for zoom in scan.zooms]) if scan.zooms else None,
        "slice_timing": json.dumps(timing) if timing else None,
        **distortion,
        "faults": faults,
        "notes": notes,
    }


def _name_faults(found: Found) -> list[str]:
    """What the name of an image says against using it.

    A file in another subject's folder would lend its derivatives that subject's names.
    """
    entities = found.entities
    if entities is None:
        return ["the file name is not made of BIDS entities"]
    faults = []
    if entities.get("sub") != found.subject or entities.get("ses") != found.session:
        faults.append("the file name says another subject or session than its folder")
    if strange := sorted(set(entities) - set(RAW_ENTITIES)):
        faults.append(f"a raw image has no entity {', '.join(strange)}")
    if entities.get("part", "mag") != "mag":
        faults.append(f"part-{entities['part']} is not a magnitude image")
    return faults


def _length_faults(scan: Scan, limits: Limits) -> list[str]:
    if not scan.shape:
        return []
    if len(scan.shape) != 4:
        return [f"not a 4-D series: {' x '.join(map(str, scan.shape))}"]
    if scan.shape[3] < limits.min_volumes:
        return [f"too short: {scan.shape[3]} volumes, at least {limits.min_volumes} are needed"]
    return []


def choose_t1w(
    bold: Found, anats: list[tuple[Found, Scan]]
) -> tuple[Found | None, Scan | None, list[str]]:
    """The T1w image for a run: of its session if there is one, else of the subject.

    Images that cannot be used are passed over; whatever was decided is told in the notes.
    """
    notes, usable = [], []
    for found, scan in anats:
        faults = [*_name_faults(found), *scan.faults]
        if scan.shape and [n for n in scan.shape[3:] if n != 1]:
            faults.append(f"not a 3-D image: {' x '.join(map(str, scan.shape))}")
        if faults:
            notes.append(f"T1w {found.path} is passed over: {', '.join(faults)}")
        else:
            usable.append((found, scan))
    same_session = [pair for pair in usable if pair[0].session == bold.session]
    candidates = same_session or usable
    if not candidates:
        return None, None, [*notes, "no T1w: BOLD goes to the template directly"]
    chosen, scan = candidates[0]
    notes += [f"T1w: {note}" for note in scan.notes]
    if not same_session:
        notes.append(f"T1w of another session: {chosen.path}")
    if len(candidates) > 1:
        notes.append(f"{len(candidates)} T1w images; {chosen.path} is used")
    return chosen, scan, notes


def _note_uneven(rows: list[dict[str, Any]]) -> None:
    """Note runs of one subject and task that differ in length or TR."""
    groups: dict[tuple[str, str | None], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["subject"], row["task"]].append(row)
    for group in groups.values():
        for column, what in (("n_volumes", "{:g} to {:g} volumes"), ("tr", "TR {:g} to {:g} s")):
            values = {row[column] for row in group} - {None}
            if len(values) > 1:
                span = what.format(min(values), max(values))
                for row in group:
                    row["notes"].append(f"uneven runs: {span} in this subject and task")
