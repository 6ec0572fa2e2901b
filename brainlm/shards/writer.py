"""Sharded tensors: scaled recordings, many to a file, in a fixed order.

One tensor per recording, named by its recording_id, (time, parcels), time-major so that a
window of time is one contiguous read. What is known of each recording's tensor, its hash first,
stands in the file's header: a shard can be checked, and its rows of the index made, from it alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from ..errors import DataError
from .packing import Packed
from .tensorstream import write_stream

SCHEMA_VERSION = 2

#: What stands under `facts` of each recording, with values as long as they may become.
_WIDEST = {
    "error_max": -1.23456e-300,
    "error_rms": -1.23456e-300,
    "n_clipped": 10**15,
    "n_parcels": 10**9,
    "n_timepoints": 10**12,
    "sha256": 64 * "0",
}

#: What each shard contributes to the index (`part_rows`).
PART_SCHEMA = (
    ("recording_id", pa.string()),
    ("shard", pa.string()),  # file name
    ("n_timepoints", pa.int64()),
    ("n_parcels", pa.int64()),  # with data
    ("n_clipped", pa.int64()),
    ("error_rms", pa.float64()),  # of storing the values, in their own unit
    ("error_max", pa.float64()),
    ("sha256", pa.string()),  # of the tensor's bytes
)


def shard_header(
    *,
    split: str,
    dtype: str,
    method: str,
    tr: Mapping[str, float],
    atlas_sha256: str,
    scaler_sha256: str,
    plan_sha256: str,
    code: str,
) -> dict[str, Any]:
    """What decides a shard's bytes; `tr` maps its recordings to seconds.

    `code` is the digest of the program that writes it.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "split": split,
        "dtype": dtype,
        "method": method,
        "tr": dict(tr),
        "atlas_sha256": atlas_sha256,
        "scaler_sha256": scaler_sha256,
        "plan_sha256": plan_sha256,
        "code": code,
    }


def write_tensors(
    path: Path,
    lengths: Mapping[str, int],
    parcels: int,
    packed: Iterable[Packed],
    header: Mapping[str, Any],
) -> dict[str, Any]:
    """Write one shard and return what its header says, `facts` of each recording included.

    `lengths` maps recording_id to volumes; `packed` come in the order of these names, and only
    one of them is held.
    """
    about = {**header, "facts": {name: dict(_WIDEST) for name in lengths}}

    def tensors() -> Iterator[NDArray[Any]]:
        for name, item in zip(sorted(lengths), packed, strict=True):
            _check_length(name, len(item.values), lengths[name])
            about["facts"][name] = {
                "error_max": item.error_max,
                "error_rms": item.error_rms,
                "n_clipped": item.n_clipped,
                "n_parcels": item.n_parcels,
                "n_timepoints": len(item.values),
                "sha256": item.sha256,
            }
            yield item.values

    shapes = {name: (length, parcels) for name, length in lengths.items()}
    write_stream(path, shapes, header["dtype"], tensors(), about)
    return about


def part_rows(shard: str, about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A shard's rows of the index, as far as its own header (`about`) knows them.

    `shard` is its file's name.
    """
    facts: Mapping[str, Mapping[str, Any]] = about["facts"]
    return [{"recording_id": name, "shard": shard, **facts[name]} for name in sorted(facts)]


def _check_length(name: str, found: int, planned: int) -> None:
    if found != planned:
        raise DataError(
            f"{name} has {found} volumes, {planned} when the cohort was selected",
            fix="run `brainlm cohort` and `brainlm scale` again, then this",
        )
