"""The recordings table of a dataset that other pipelines have preprocessed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...layout import entities_of
from ...provenance import fast_fingerprint, sha256_file
from ...recordings import COLUMNS, RAW_ENTITIES
from ..participants import Participants
from ..scan import Scan, scan_image
from ..table import Limits
from ..timing import repetition_time
from .names import read_json_or_empty
from .run import Kind, ReadyRun

if TYPE_CHECKING:
    import pandas as pd

#: Wraps an iterable to show how far it is: `(items, what, total) -> items`.
Progress = Callable[[Iterable[Any], str, int], Iterator[Any]]


@dataclass(frozen=True)
class Length:
    """How long a dense series or a table of parcels is, and what is wrong with it."""

    n_volumes: int | None
    tr: float | None = None  # s, where the file itself says it
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


#: Reads a dense series or a table of parcels.
Measure = Callable[[Kind, Path], Length]


@dataclass
class _Seen:
    run: ReadyRun
    scan: Scan
    n_volumes: int | None
    prints: dict[str, str]  # role -> fingerprint


def ready_table(
    runs: list[ReadyRun],
    root: Path,
    participants: Participants,
    limits: Limits,
    dataset: str,
    *,
    measure: Measure,
    default_tr: float | None,
    full: bool,
    threads: int,
    progress: Progress,
) -> pd.DataFrame:
    """One row per recording_id, sorted, with the columns that a raw dataset's table has.

    `default_tr` (s) serves runs of which no file tells it. With `full` every file is read and
    hashed; else headers and sizes do.
    """
    import pandas as pd

    def look(run: ReadyRun) -> _Seen:
        return _look(run, root, measure, full=full)

    with ThreadPoolExecutor(threads) as pool:
        seen = list(progress(pool.map(look, runs), "Reading files", len(runs)))
    by_id: dict[str, list[_Seen]] = defaultdict(list)
    for item in seen:
        by_id[item.run.recording_id].append(item)
    rows = [
        _row(same, root, participants, limits, dataset, default_tr)
        for _, same in sorted(by_id.items())
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _look(run: ReadyRun, root: Path, measure: Measure, *, full: bool) -> _Seen:
    """Read the series' header (and, with `full`, all of it), and fingerprint every file."""
    prints = {role: _fingerprint(root / path, full=full) for role, path in run.files.items()}
    if "series" not in run.files:
        return _Seen(run, Scan(), None, prints)
    path = root / run.files["series"]
    if run.kind == "volume":
        scan = scan_image(path, full=full)
        scan.faults = [fault for fault in scan.faults if "hold NaN or inf" not in fault]
        if scan.fingerprint:
            prints["series"] = scan.fingerprint
        return _Seen(run, scan, scan.shape[3] if len(scan.shape) == 4 else None, prints)
    length = measure(run.kind, path)
    scan = Scan(prints["series"], header_tr=length.tr, faults=length.faults, notes=length.notes)
    return _Seen(run, scan, length.n_volumes, prints)


def _fingerprint(path: Path, *, full: bool) -> str:
    """SHA-256 of a file, or its size and time; empty where it is not there."""
    try:
        return sha256_file(path) if full else fast_fingerprint(path)
    except OSError:
        return ""


def _row(
    same: list[_Seen],
    root: Path,
    participants: Participants,
    limits: Limits,
    dataset: str,
    default_tr: float | None,
) -> dict[str, Any]:
    seen = same[0]
    run, scan = seen.run, seen.scan
    faults, notes = [*run.faults, *scan.faults], [*run.notes, *scan.notes]
    if len(same) > 1:
        files = " and ".join(item.run.files.get("series", "?") for item in same)
        faults.append(f"two candidate files for one run: {files}")
    faults += [f"the file is not there: {run.files[r]}" for r, p in seen.prints.items() if not p]
    try:
        entities = entities_of(run.recording_id)
    except ValueError:
        entities = {"sub": run.recording_id}
        faults.append("its name is not made of BIDS entities")
    if strange := sorted(set(entities) - set(RAW_ENTITIES)):
        faults.append(f"a recording has no entity {', '.join(strange)}")
    tr, tr_faults, tr_notes = _time_step(run, scan, root, limits, default_tr)
    if "series" in run.files:
        faults += [*tr_faults, *_length_faults(seen, limits)]
        notes += tr_notes
    subject = entities["sub"]
    if subject in participants.contradictory:
        faults.append(f"participants.tsv holds different rows for sub-{subject}")
    elif participants.listed and subject not in participants.listed:
        notes.append("not in participants.tsv")
    return {
        "recording_id": run.recording_id,
        "subject": subject,
        "session": entities.get("ses"),
        "task": entities.get("task"),
        "run": entities.get("run"),
        "dataset": dataset,
        "site": participants.site.get(subject),
        "bold": run.files.get("series"),
        "bold_sha256": seen.prints.get("series"),
        "n_volumes": seen.n_volumes,
        "tr": tr,
        "shape": json.dumps(list(scan.shape[:3])) if scan.shape else None,
        "zooms": json.dumps([round(zoom, 4) for zoom in scan.zooms]) if scan.zooms else None,
        "layout": run.layout,
        "kind": run.kind,
        "ready": json.dumps(dict(run.files), sort_keys=True),
        "ready_sha256": json.dumps(seen.prints, sort_keys=True),
        "ready_about": json.dumps(
            {"by": dict(run.by), "cleaned": run.cleaned, "space": run.space}, sort_keys=True
        ),
        "eligible": not faults,
        "reason": "; ".join(faults) or None,
        "notes": "; ".join(notes) or None,
    }


def _time_step(
    run: ReadyRun, scan: Scan, root: Path, limits: Limits, default_tr: float | None
) -> tuple[float | None, list[str], list[str]]:
    """TR in s, faults and notes: of the layout, the JSON, the header, or as the user says."""
    series = root / run.files["series"] if "series" in run.files else root
    stem = series.name
    for extension in (".dtseries.nii", ".nii.gz", ".nii", series.suffix):
        stem = stem.removesuffix(extension)
    stated = read_json_or_empty(series.with_name(f"{stem}.json"))
    tr = run.tr or stated.get("RepetitionTime")
    if tr is None and isinstance(stated.get("SamplingFrequency"), int | float):
        tr = 1 / stated["SamplingFrequency"] if stated["SamplingFrequency"] > 0 else None
    notes = []
    if tr is None and scan.header_tr:
        tr = scan.header_tr
        notes.append(f"no RepetitionTime beside it: {tr:g} s as its header says")
    if tr is None and default_tr:
        tr = default_tr
        notes.append(f"no file tells its TR: {tr:g} s as derivatives.tr says")
    if tr is None:
        told = any("TR" in fault for fault in run.faults)
        return None, [] if told else ["no file tells its TR: set derivatives.tr, s"], []
    found, faults, more = repetition_time(
        {"RepetitionTime": tr}, scan.header_tr, limits.tr_min, limits.tr_max
    )
    return found, faults, [*notes, *more]


def _length_faults(seen: _Seen, limits: Limits) -> list[str]:
    if seen.n_volumes is None:
        shape = seen.scan.shape
        return [f"not a 4-D series: {' x '.join(map(str, shape))}"] if shape else []
    if seen.n_volumes < limits.min_volumes:
        return [f"too short: {seen.n_volumes} volumes, at least {limits.min_volumes} are needed"]
    return []


def check_found(runs: list[ReadyRun], root: Path, layout: str, kind: str) -> None:
    """Refuse a dataset without a run that could be read."""
    if not runs:
        raise InputError(
            f"This folder holds no run of layout {layout} to be read as {kind}",
            file=root,
            fix="give the folder that holds the subjects, or another derivatives.layout or "
            "derivatives.read",
        )
