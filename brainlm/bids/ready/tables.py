"""Ready parcel series: a folder of tables, one for each recording.

Three ways to say which recording a table is of, the first that applies:

1. `recordings.tsv` in the folder: columns `file` and `subject`, and as wanted `session`, `task`,
   `run` and `tr` (s).
2. Names of BIDS entities: `sub-01_ses-1_task-rest_seg-A424_stat-mean_timeseries.tsv`, as XCP-D and
   `brainlm parcellate --tsv` write them, in any folder below.
3. `<subject>.csv`, or `<subject>_20227_2_0.csv` of UK Biobank, in the folder itself.

The tables are read, and their columns compared with the atlas, by `brainlm.parcellate.ready`.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...layout import entities_of
from ..timing import is_number
from .names import generated_by
from .run import ReadyRun
from .ukb import identifier_of

EXTENSIONS = (".parquet", ".tsv", ".csv", ".txt", ".dat", ".npy", ".mat")
INDEX = "recordings.tsv"
#: What a study folder holds, which may lie beside its tables.
_OF_A_STUDY = "onboarding/recordings.parquet"

#: Entities that tell recordings apart, in BIDS's order.
IDENTITY = ("sub", "ses", "task", "acq", "ce", "rec", "dir", "run", "echo")
_SUFFIX = "timeseries"
#: Time series of something else than parcels.
_OTHER_STATS = frozenset({"coverage"})
_OTHER_DESCS = re.compile("confounds|motion|outliers|ica|mixing|design")
#: Texts that stand beside data and are none.
_NO_TABLES = frozenset(
    {"participants", "splits", "README", "CHANGES", "LICENSE", "A424_Coordinates"}
)
_ASSUMED_REST = "the task is not stated, rest is assumed"
_RENAME = f"name it by BIDS entities or list it in {INDEX}"
_LABEL = re.compile(r"^[A-Za-z0-9]+$")
#: Believable repetition times, s.
_SHORTEST_TR, _LONGEST_TR = 0.05, 30.0


def find_runs(
    root: Path, *, atlas: str | None = None, default_tr: float | None = None
) -> list[ReadyRun]:
    """All tables below `root`, sorted by recording_id.

    `atlas` chooses among several parcellations of a run (`seg-` or `atlas-` in the name). The TR
    is that of the index, of the JSON file beside the table (RepetitionTime or SamplingFrequency),
    or `default_tr`; a table without any has a fault.
    """
    if not root.is_dir():
        raise InputError("The folder of tables does not exist", file=root)
    index = root / INDEX
    found = _indexed(root, index) if index.is_file() else _named(root, atlas)
    made_by = " ".join(generated_by(root)).strip() or "a pipeline that is not named"
    by = dict.fromkeys(("preprocessing", "denoising", "parcellation"), made_by)
    runs = [_with_tr(root, replace(run, by=by), default_tr) for run in found]
    if not runs:
        raise InputError(
            "No table of parcel series is here",
            file=root,
            fix=f"tables end in {', '.join(EXTENSIONS)} and are called <subject>.csv or "
            f"sub-01_task-rest_seg-A424_timeseries.tsv, or are listed in {INDEX}",
        )
    return _told_apart(sorted(runs, key=lambda run: (run.recording_id, run.files["series"])))


def _named(root: Path, atlas: str | None) -> Iterator[ReadyRun]:
    """The tables that their names say to be parcel series."""
    for path in _tables(root):
        name = path.relative_to(root).as_posix()
        entities, suffix = _entities(path.stem)
        if entities:
            # BrainLM's toolkit calls its tables as the image was called: ..._bold.dat
            of_image = suffix == "bold" and path.suffix == ".dat"
            if (suffix == _SUFFIX or of_image) and _wanted(entities, atlas):
                notes = [] if "task" in entities else [_ASSUMED_REST]
                files = {"series": name} | _coverage(path, name)
                yield _run(_identifier({"task": "rest", **entities}), files, notes=notes)
        elif path.parent == root:
            label = re.sub("[^A-Za-z0-9]", "", path.stem)
            of_ukb = identifier_of(path.stem)
            plain = label == path.stem or of_ukb is not None
            yield _run(
                of_ukb or f"sub-{label}_task-rest",
                {"series": name},
                notes=[_ASSUMED_REST] if plain and not of_ukb else [],
                faults=[] if plain else [f"{name}: whose table this is cannot be told; {_RENAME}"],
            )


def _entities(stem: str) -> tuple[dict[str, str], str]:
    """The BIDS entities in a name, none where it is not made of them, and its suffix."""
    *parts, suffix = stem.split("_")
    if "-" in suffix:  # sub-01_task-rest.csv
        parts, suffix = [*parts, suffix], _SUFFIX
    try:
        entities = entities_of("_".join(parts))
    except ValueError:
        return {}, suffix
    return (entities if "sub" in entities else {}), suffix


def _wanted(entities: dict[str, str], atlas: str | None) -> bool:
    """Whether a table of time series is one of parcels, and of this parcellation."""
    drawn = entities.get("seg", entities.get("atlas"))
    if entities.get("stat") in _OTHER_STATS or _OTHER_DESCS.search(entities.get("desc", "")):
        return False
    return atlas is None or drawn in (None, atlas)


def _tables(root: Path) -> Iterator[Path]:
    """All files that may be tables, sorted; without hidden ones and those of studies of ours."""
    studies = {found.parent.parent for found in root.rglob(_OF_A_STUDY)}
    for path in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        ours = not studies.isdisjoint(path.parents)
        if path.suffix in EXTENSIONS and not (hidden or ours) and path.stem not in _NO_TABLES:
            yield path


def _coverage(path: Path, name: str) -> dict[str, str]:
    """XCP-D's table of coverage that goes with a series, if it is there."""
    stem = re.sub(r"(_stat-[A-Za-z0-9]+)?_timeseries$", "_stat-coverage", path.stem)
    for suffix in ("bold", _SUFFIX):
        if (beside := path.with_name(f"{stem}_{suffix}.tsv")).is_file():
            return {"coverage": (Path(name).parent / beside.name).as_posix()}
    return {}


def _indexed(root: Path, index: Path) -> Iterator[ReadyRun]:
    """The tables that `recordings.tsv` lists."""
    with index.open(encoding="utf-8-sig", newline="") as handle:
        reader = csv.DictReader(handle, delimiter="\t")
        missing = {"file", "subject"} - set(reader.fieldnames or ())
        if missing:
            raise InputError(
                f"The index lacks the columns {', '.join(sorted(missing))}",
                file=index,
                fix="it is tab-separated and needs file and subject; session, task, run, tr may be",
            )
        rows = [{k: _stated(v) for k, v in row.items() if k} for row in reader]
    for number, row in enumerate(rows, start=2):
        yield _of_row(root, index, number, row)


def _of_row(root: Path, index: Path, number: int, row: dict[str, str | None]) -> ReadyRun:
    """One line of the index; what is wrong with the line itself ends the search."""
    where = f"line {number} of the index"
    name, subject = row["file"], (row["subject"] or "").removeprefix("sub-")
    entities = {"sub": subject, "task": row.get("task") or "rest"}
    for key, column in (("ses", "session"), ("run", "run")):
        if label := row.get(column):
            entities[key] = label.removeprefix(f"{key}-")
    if wrong := [value for value in entities.values() if not _LABEL.match(value)]:
        raise InputError(
            f"{where} has a label that is not letters and digits: {wrong[0]!r}", file=index
        )
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"{where} names no file below this folder: {name!r}", file=index)
    if Path(name).suffix not in EXTENSIONS:
        raise InputError(f"{where} names a file that is no table: {name!r}", file=index)
    faults = [] if (root / name).is_file() else [f"{name} is not there"]
    run = _run(_identifier(entities), {"series": Path(name).as_posix()}, faults=faults)
    if (stated := row.get("tr")) is None:
        return run
    try:
        return replace(run, tr=float(stated))
    except ValueError:
        return replace(run, faults=(*run.faults, f"its tr is {stated!r}, not a number"))


def _stated(value: Any) -> str | None:
    return value if isinstance(value, str) and value not in ("", "n/a") else None


def _run(
    identifier: str, files: dict[str, str], faults: Iterable[str] = (), notes: Iterable[str] = ()
) -> ReadyRun:
    """A table of parcels; whatever was done to it is taken to be done."""
    return ReadyRun(
        recording_id=identifier,
        layout="tables",
        kind="parcels",
        files=files,
        by={},
        cleaned=True,
        faults=tuple(faults),
        notes=tuple(notes),
    )


def _identifier(entities: dict[str, str]) -> str:
    return "_".join(f"{key}-{entities[key]}" for key in IDENTITY if key in entities)


def _with_tr(root: Path, run: ReadyRun, default_tr: float | None) -> ReadyRun:
    """The run with its repetition time, and a fault where nobody states it or it is not one."""
    tr, faults, notes = run.tr, list(run.faults), list(run.notes)
    path = root / run.files["series"]
    if path.is_file() and not path.stat().st_size:
        faults.append(f"{run.files['series']} is empty (0 bytes)")
    if tr is None:
        tr, fault = _stated_tr(path.with_suffix(".json"))
        faults += [fault] if fault else []
        if tr is None and not fault and default_tr is not None:
            tr = default_tr
            notes.append(f"no TR is stated, {default_tr:g} s is assumed")
        elif tr is None and not fault:
            faults.append(
                f"no TR: put RepetitionTime into {path.with_suffix('.json').name}, or the column "
                f"tr into {INDEX}, or one for all into derivatives.tr of the config"
            )
    if tr is not None and not _SHORTEST_TR <= tr <= _LONGEST_TR:
        faults.append(f"a TR of {tr:g} s is not believable; it is in seconds")
        tr = None
    return replace(run, tr=tr, faults=tuple(faults), notes=tuple(notes))


def _stated_tr(sidecar: Path) -> tuple[float | None, str | None]:
    """The TR (s) of a JSON file, if it says it, and what is wrong with what it says.

    XCP-D writes the word "TR" as SamplingFrequency of some tables: that states nothing.
    """
    if not sidecar.is_file():
        return None, None
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8-sig"))
        time, rate = content.get("RepetitionTime"), content.get("SamplingFrequency")
    except (ValueError, AttributeError, OSError):
        return None, f"{sidecar.name} is not a JSON object"
    stated = [float(time)] if is_number(time) and time > 0 else []
    stated += [1 / rate] if is_number(rate) and rate > 0 else []
    if len(stated) == 2 and abs(stated[0] - stated[1]) > 0.01 * stated[0]:
        return None, (
            f"{sidecar.name} contradicts itself: RepetitionTime {time:g} s, "
            f"SamplingFrequency {rate:g} Hz"
        )
    return (stated[0] if stated else None), None


def _told_apart(runs: list[ReadyRun]) -> list[ReadyRun]:
    """Each recording once; of several tables of one the first stays, with the fault."""
    counts = Counter(run.recording_id for run in runs)
    kept: dict[str, ReadyRun] = {}
    for run in runs:
        if counts[run.recording_id] == 1:
            kept[run.recording_id] = run
        elif run.recording_id not in kept:
            same = [r.files["series"] for r in runs if r.recording_id == run.recording_id]
            fault = (
                f"several tables are of this recording: {', '.join(same)}; "
                "say which parcellation, or leave the others out"
            )
            kept[run.recording_id] = replace(run, faults=(*run.faults, fault))
    return list(kept.values())
