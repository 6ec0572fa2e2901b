"""Reading a whole BIDS dataset into the recordings table."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .fieldmaps import MapFile
from .participants import read_participants
from .scan import Scan, scan_image
from .table import Limits, Run, build_table
from .walk import Found, Sidecars, find_images

if TYPE_CHECKING:
    import pandas as pd

#: Wraps an iterable to show how far it is: `(items, what, total) -> items`.
Progress = Callable[[Iterable[Scan], str, int], Iterator[Scan]]


def read_dataset(
    bids_dir: Path, limits: Limits, *, full: bool, threads: int, progress: Progress
) -> tuple[pd.DataFrame, list[str]]:
    """The recordings table of a BIDS dataset, and notes about the dataset as a whole.

    Images are scanned in `threads` threads (hashing and unpacking leave Python's lock);
    see `scan_image` for what `full` means.
    """
    found = find_images(bids_dir)
    bolds, t1ws, maps = found.bolds, found.t1ws, found.maps
    if not bolds:
        raise InputError(
            "This BIDS dataset holds no BOLD run (sub-*/[ses-*/]func/*_bold.nii.gz)",
            file=bids_dir,
            fix="check the file names with the BIDS validator",
        )
    participants = read_participants(
        bids_dir / "participants.tsv", {image.subject for image in bolds}
    )
    dataset, notes = dataset_name(bids_dir)
    images = [*bolds, *t1ws, *maps]

    def scan(image: Found) -> Scan:
        return scan_image(bids_dir / image.path, full=full)

    with ThreadPoolExecutor(threads) as pool:
        scans = list(progress(pool.map(scan, images), "Reading images", len(images)))
    sidecars = Sidecars(bids_dir, found.sidecars)
    runs = []
    for image, scanned in zip(bolds, scans, strict=False):
        metadata, faults = sidecars.metadata(image, "bold")
        runs.append(Run(image, scanned, metadata, faults))
    anats: dict[str, list[tuple[Found, Scan]]] = defaultdict(list)
    for image, scanned in zip(t1ws, scans[len(bolds) :], strict=False):
        anats[image.subject].append((image, scanned))
    fieldmaps: dict[str, list[MapFile]] = defaultdict(list)
    for image, scanned in zip(maps, scans[len(bolds) + len(t1ws) :], strict=True):
        suffix = image.path.rpartition("_")[2].split(".")[0]
        fieldmaps[image.subject].append(MapFile(image, scanned, *sidecars.metadata(image, suffix)))
    table = build_table(runs, anats, participants, limits, dataset, fieldmaps)
    return table, [*notes, *participants.notes]


def dataset_name(bids_dir: Path) -> tuple[str, list[str]]:
    """`Name` of dataset_description.json, else the folder's name and a note."""
    path = bids_dir / "dataset_description.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8-sig"))["Name"]), []
    except FileNotFoundError:
        note = "there is no dataset_description.json (BIDS requires it)"
    except (ValueError, KeyError, TypeError):
        note = "dataset_description.json is not valid or has no Name"
    return bids_dir.name, [f"{note}; the dataset is called {bids_dir.name}"]


def table_bytes(table: pd.DataFrame) -> tuple[bytes, bytes]:
    """The table as Parquet and as TSV; equal tables give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    pq.write_table(arrow, buffer, compression="zstd")
    text = table.to_csv(sep="\t", index=False, na_rep="n/a", lineterminator="\n")
    return buffer.getvalue(), text.encode()
