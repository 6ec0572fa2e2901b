"""Reading what the workflow left of each recording: many small files, in parallel."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..layout import folder_of
from ..provenance import sidecar_path
from ..shards.selection import Finished
from ._parcel_series import n_stored, parcel_names

if TYPE_CHECKING:
    from ._stage import StageRun

_READERS = 8


def read_all_finished(
    run: StageRun, recording_ids: list[str], tick: Callable[[Any, int], Any]
) -> dict[str, Finished]:
    """What became of each recording; `tick` wraps the iteration with a progress bar."""
    names = parcel_names(run.source(run.path("atlas_table")))
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(lambda name: _read_finished(run, name, names), recording_ids)
        return {item.recording_id: item for item in tick(found, len(recording_ids))}


def _read_finished(run: StageRun, recording_id: str, names: list[str]) -> Finished:
    """What the stages left of one recording; `names` are the atlas' parcels."""
    from ..layout import entities_of
    from ..provenance import check_input, is_tombstone

    fields = {"recording": recording_id, "folder": folder_of(recording_id)}
    timeseries = run.path("timeseries", **fields)
    if not timeseries.exists():
        return Finished(recording_id, "parcellate", "its parcel series has not been made")
    if is_tombstone(timeseries):
        return _given_up(recording_id, run.path("failure", **fields))
    try:
        entities = entities_of(recording_id)
        about = check_input(timeseries, entities)
        _check_atlas(about, timeseries, run.params["atlas"]["name"])
        data = timeseries.read_bytes()
        left = about.get("KeptVolumes")
        coverage = run.path("coverage", **fields)
        least = _min_coverage(check_input(coverage, entities), coverage)
        motion = run.path("motion", **fields)
        known = check_input(motion, entities).get("MotionKnown", True)
        return Finished(
            recording_id,
            mean_fd=mean_fd(_text_of(motion), motion) if known else float("nan"),
            motion_known=known,
            share_parcels=share_of_parcels(coverage, least, len(names)),
            n_stored=n_stored(data, timeseries, names),
            n_left=None if left is None else len(left),
            gaps=_has_gaps(left or []),
            censored=_places(about.get("CensoredVolumes", ()), left),
            timeseries=run.study.relative(timeseries),
            timeseries_sha256=hashlib.sha256(data).hexdigest(),
        )
    except DataError as error:
        file = os.path.relpath(error.file, run.study.root) if error.file else ""
        return Finished(
            recording_id, "cohort", error.what, failed_file=file, failed_fix=error.fix or ""
        )


def _places(censored: Sequence[int], left: Sequence[int] | None) -> tuple[int, ...]:
    """Where in the series the `censored` volumes of the run stand; `left` are those it has.

    A series that one program shortened may hold volumes that the next one marked or filled in.
    """
    if left is None:
        return tuple(censored)
    marked = set(censored)
    return tuple(place for place, volume in enumerate(left) if volume in marked)


def _has_gaps(volumes: Sequence[int]) -> bool:
    return any(second - first != 1 for first, second in pairwise(volumes))


def _check_atlas(about: Mapping[str, Any], path: Path, atlas: str) -> None:
    """Refuse a series of another atlas whose parcels may have the same names."""
    if about.get("Atlas", atlas) != atlas:
        raise DataError(
            f"This parcel series is of the atlas {about['Atlas']}, the study's is {atlas}",
            file=path,
            fix="delete it and rerun the recording's parcellation",
        )


def _given_up(recording_id: str, ledger: Path) -> Finished:
    """A recording that an earlier stage gave up, as that one wrote down."""
    try:
        content = json.loads(ledger.read_text(encoding="utf-8"))
        return Finished(
            recording_id,
            str(content["stage"]),
            str(content["what"]),
            failed_file=str(content.get("file") or ""),
            failed_fix=str(content.get("fix") or ""),
        )
    except (OSError, ValueError, KeyError, TypeError):
        why = "given up, and the reason in qc/failures is missing"
        return Finished(recording_id, "parcellate", why)


def mean_fd(text: str, source: Path) -> float:
    """Mean framewise displacement, mm, of a motion table; the first volume has none (n/a)."""
    lines = text.splitlines()
    try:
        column = lines[0].split("\t").index("framewise_displacement")
        values = [line.split("\t")[column] for line in lines[1:] if line]
        numbers = [float(value) for value in values if value != "n/a"]
        return sum(numbers) / len(numbers)
    except (IndexError, ValueError, ZeroDivisionError):
        raise DataError(
            "The motion table has no usable column framewise_displacement",
            file=source,
            fix="delete it and rerun the recording's motion stage",
        ) from None


def _text_of(path: Path) -> str:
    """A table's text; what is none becomes characters that no number has."""
    return path.read_text(encoding="utf-8", errors="replace")


def _min_coverage(about: Mapping[str, Any], path: Path) -> float:
    """The least coverage that parcellation asked for, as its sidecar says."""
    try:
        return float(about["Parameters"]["parcellate"]["min_coverage"])
    except (KeyError, TypeError, ValueError):
        raise DataError(
            "The sidecar of the table of coverage does not say what coverage was asked for",
            file=sidecar_path(path),
            fix="delete it and rerun the recording's parcellation",
        ) from None


def share_of_parcels(path: Path, min_coverage: float, n_parcels: int) -> float:
    """Share of the parcels whose coverage reaches the minimum, so that they have a series."""
    import pandas as pd

    try:
        coverage = pd.read_csv(path, sep="\t")["coverage"].astype(float).fillna(0)
    except (KeyError, ValueError):  # pandas' own errors and those of decoding are among them
        raise DataError(
            "The table of coverage has no usable column coverage",
            file=path,
            fix="delete it and rerun the recording's parcellation",
        ) from None
    if len(coverage) != n_parcels:
        raise DataError(
            f"The table of coverage has {len(coverage)} parcels, the study's atlas {n_parcels}",
            file=path,
            fix="delete it and rerun the recording's parcellation",
        )
    return float(((coverage >= min_coverage) & (coverage > 0)).mean())
