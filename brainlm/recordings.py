"""The recordings table: one row per BOLD run, written by onboarding, read by every job."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .identity import check_row
from .layout import entities_of, folder_of

if TYPE_CHECKING:
    import pandas as pd

#: column -> pandas dtype. Phenotypes follow as `label_<name>` columns.
COLUMNS: dict[str, str] = {
    "recording_id": "string",  # all BIDS entities joined: sub-01_ses-1_task-rest_run-1
    "subject": "string",
    "session": "string",
    "task": "string",
    "run": "string",
    "dataset": "string",
    "site": "string",
    "bold": "string",  # relative to the BIDS folder
    "bold_sha256": "string",
    "t1w": "string",  # relative to the BIDS folder; missing when there is none
    "anat_id": "string",  # identifier of that T1w, e.g. sub-01_ses-1
    "t1w_sha256": "string",
    "n_volumes": "Int64",
    "tr": "Float64",  # seconds
    "shape": "string",  # JSON list of the first three dimensions
    "zooms": "string",  # JSON list, mm
    "slice_timing": "string",  # JSON list, seconds; missing when unknown
    "pe_direction": "string",  # PhaseEncodingDirection: i, i-, j, j-, k or k-
    "total_readout_time": "Float64",  # seconds
    "fmap_kind": "string",  # fieldmap, phasediff, phases or pepolar; missing: none is usable
    "fmap": "string",  # JSON list of its files, relative to the BIDS folder
    "fmap_sha256": "string",  # JSON list
    "fmap_about": "string",  # JSON list: what each file is, and the numbers to use it
    "layout": "string",  # of files that another pipeline made; missing: a raw run
    "kind": "string",  # of such a run: volume, dense or parcels
    "ready": "string",  # JSON object: role of each of its files -> path
    "ready_sha256": "string",  # JSON object
    "ready_about": "string",  # JSON object: its space, what was done by whom
    "wave": "Int64",  # the onboarding that found it: 0 for the first one
    "eligible": "boolean",
    "reason": "string",  # why not eligible; several reasons are joined by "; "
    "notes": "string",  # what was repaired or assumed
}

LABEL_PREFIX = "label_"

#: Entities that a raw BOLD file or T1w image may have (BIDS 1.10), and so a recording_id.
RAW_ENTITIES = ("sub", "ses", "task", "acq", "ce", "rec", "dir", "run", "echo", "part", "chunk")

#: Whether distortion is corrected -> from what normalisation starts: the reference volume and
#: the mask of its bright object.
REFERENCE = {
    False: ("boldref", "foreground_mask"),
    True: ("unwarped_boldref", "unwarped_mask"),
}


@dataclass(frozen=True)
class Recording:
    """One row of the table, with its paths resolved."""

    id: str
    bids_dir: Path
    bold: str
    bold_sha256: str
    t1w: str | None
    t1w_sha256: str | None
    n_volumes: int
    tr: float
    slice_timing: tuple[float, ...] | None
    pe_direction: str | None
    total_readout_time: float | None
    fmap_kind: str | None
    fmap: tuple[str, ...]
    fmap_sha256: tuple[str, ...]
    fmap_about: tuple[dict[str, Any], ...]
    layout: str | None = None
    kind: str | None = None
    ready: Mapping[str, str] = field(default_factory=dict)
    ready_sha256: Mapping[str, str] = field(default_factory=dict)
    ready_about: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @cached_property
    def entities(self) -> dict[str, str]:
        """BIDS entities, e.g. `{"sub": "01", "task": "rest"}`."""
        return entities_of(self.id)

    @property
    def anat_id(self) -> str | None:
        """Identifier of the T1w image that serves this recording."""
        return anat_id_of(self.t1w) if self.t1w else None

    @property
    def wildcards(self) -> dict[str, str]:
        """The fields that path templates need."""
        fields = {"recording": self.id, "folder": folder_of(self.id)}
        if self.anat_id:
            fields |= {"anat": self.anat_id, "anat_folder": folder_of(self.anat_id)}
        return fields

    def correction(self, method: str) -> str | None:
        """How this run's distortion is corrected: see `correction_of`."""
        return correction_of(
            method, fmap_kind=self.fmap_kind, pe_direction=self.pe_direction, t1w=self.t1w
        )

    @property
    def bold_path(self) -> Path:
        """The raw BOLD file."""
        return self.bids_dir / self.bold

    @property
    def t1w_path(self) -> Path | None:
        """The raw T1w file, if there is one."""
        return self.bids_dir / self.t1w if self.t1w else None


def correction_of(
    method: str, *, fmap_kind: str | None, pe_direction: str | None, t1w: str | None
) -> str | None:
    """How a run's distortion is corrected: "fieldmap", "syn" or not at all.

    `method` is the config's `distortion.method`. The workflow and the commands both ask here,
    so they agree on which files a run has.
    """
    if method == "off":
        return None
    if fmap_kind or method == "fieldmap":
        return "fieldmap"
    return "syn" if method == "syn" and pe_direction and t1w else None


def qc_kinds(engine: str, kind: str) -> tuple[str, ...]:
    """The kinds of file that figure and page of a recording are made from.

    The reference volume, warps and components apart, which not every recording has.

    `engine` is the config's; `kind` says what the stages after preprocessing start from.
    """
    if kind != "volume":
        return ("motion", "timeseries", "coverage")
    common = ("mni_mask", "motion", "confounds", "carpet", "timeseries", "coverage")
    if engine == "native":
        return ("bold_mask", "boldref_to_mni", *common)
    return ("mni_boldref", *common)


def anat_id_of(t1w: str) -> str:
    """`sub-01/anat/sub-01_run-1_T1w.nii.gz` -> `sub-01_run-1`."""
    return Path(t1w).name.split(".")[0].removesuffix("_T1w")


def read_table(path: str | Path) -> pd.DataFrame:
    """Read the recordings table and check that it is one."""
    import pandas as pd

    path = Path(path)
    with _readable(path):
        table = pd.read_parquet(path)
    _check_columns(path, table.columns)
    _check_unique(path, table["recording_id"])
    return table


def load_recording(path: Path, recording_id: str, bids_dir: Path) -> Recording:
    """One recording of the table at `path`, without reading the rest."""
    rows = _rows_where(path, "recording_id", recording_id)
    if not rows:
        raise InputError(
            f"{recording_id} is not in the recordings table",
            file=path,
            fix="look into onboarding/recordings.tsv, or onboard the dataset again",
        )
    check_row(rows[0], path)
    return _to_recording(rows[0], bids_dir)


def load_recording_of_anat(path: Path, anat_id: str, bids_dir: Path) -> Recording:
    """A recording that the T1w `anat_id` serves."""
    rows = _rows_where(path, "anat_id", anat_id)
    if not rows:
        raise InputError(
            f"No recording in the table uses the T1w {anat_id}",
            file=path,
            fix="look into onboarding/recordings.tsv, or onboard the dataset again",
        )
    for row in rows:
        check_row(row, path)
        if (row["t1w"], row["t1w_sha256"]) != (rows[0]["t1w"], rows[0]["t1w_sha256"]):
            raise InputError(
                f"The recordings table holds two T1w images called {anat_id}",
                file=path,
                fix="make it anew with `brainlm onboard`",
            )
    return _to_recording(rows[0], bids_dir)


def read_rows(path: Path, further: Iterable[str] = ()) -> list[dict[str, Any]]:
    """All rows as plain dictionaries (missing values are None), without pandas.

    `further` are columns besides those of every table: labels that the config asks for.
    """
    import pyarrow.parquet as pq

    with _readable(path):
        table = pq.read_table(path)
    _check_columns(path, table.column_names)
    missing = [name for name in further if name not in table.column_names]
    if missing:
        labels = [name for name in table.column_names if name.startswith(LABEL_PREFIX)]
        known = ", ".join(name.removeprefix(LABEL_PREFIX) for name in labels)
        told = ", ".join(name.removeprefix(LABEL_PREFIX) for name in missing)
        raise InputError(
            f"The config asks for the labels {told}, which no recording has",
            file=path,
            fix=f"choose of site, dataset, {known}; labels are the columns of participants.tsv and "
            "what phenotypes names, at the time of onboarding (a target is a label of letters, "
            "digits and _: phenotypes.labels gives a column such a name)",
        )
    rows: list[dict[str, Any]] = table.select(
        [*COLUMNS, *(name for name in further if name not in COLUMNS)]
    ).to_pylist()
    _check_unique(path, (row["recording_id"] for row in rows))
    return rows


def _check_unique(path: Path, recording_ids: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in recording_ids:
        if name in seen:
            raise InputError(
                f"The recordings table holds {name} more than once",
                file=path,
                fix="make it anew with `brainlm onboard`",
            )
        seen.add(name)


def _rows_where(path: Path, column: str, value: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    with _readable(path):
        table = pq.read_table(path, filters=[(column, "=", value)])
    _check_columns(path, table.column_names)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _check_columns(path: Path, columns: Iterable[str]) -> None:
    missing = [column for column in COLUMNS if column not in set(columns)]
    if missing:
        raise InputError(
            f"The recordings table lacks the columns {', '.join(missing)}",
            file=path,
            fix="make it anew with `brainlm onboard`",
        )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """While the table is read: a clear error where it is not there, or damaged."""
    again = "run `brainlm onboard BIDS_DIR --study STUDY_DIR`"
    if not path.exists():
        raise InputError("There is no recordings table yet", file=path, fix=f"{again} first")
    try:
        yield
    except (OSError, ValueError) as error:  # pyarrow's are among these
        what = str(error).splitlines()[0]
        fix = f"{again} again"
        raise InputError(f"The recordings table is damaged: {what}", file=path, fix=fix) from None


def _to_recording(row: dict[str, Any], bids_dir: Path) -> Recording:
    timing = row["slice_timing"]
    return Recording(
        id=row["recording_id"],
        bids_dir=bids_dir,
        bold=row["bold"],
        bold_sha256=row["bold_sha256"] or "",
        t1w=row["t1w"],
        t1w_sha256=row["t1w_sha256"],
        n_volumes=row["n_volumes"] or 0,
        tr=float("nan") if row["tr"] is None else row["tr"],
        slice_timing=tuple(json.loads(timing)) if timing else None,
        pe_direction=row["pe_direction"],
        total_readout_time=row["total_readout_time"],
        fmap_kind=row["fmap_kind"],
        fmap=tuple(json.loads(row["fmap"] or "[]")),
        fmap_sha256=tuple(json.loads(row["fmap_sha256"] or "[]")),
        fmap_about=tuple(json.loads(row["fmap_about"] or "[]")),
        layout=row["layout"],
        kind=row["kind"],
        ready=json.loads(row["ready"] or "{}"),
        ready_sha256=json.loads(row["ready_sha256"] or "{}"),
        ready_about=json.loads(row["ready_about"] or "{}"),
        notes=tuple((row["notes"] or "").split("; ")) if row["notes"] else (),
    )
