"""Which shard a recording goes to: known before anything has run, and stable when a cohort grows.

Within a wave (what one onboarding added) a recording's shard is drawn by a hash of its name, so
neither one that quality control drops nor one that comes later moves another. The plan is made
twice, when the workflow is parsed and when the cohort is selected, from the same rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .splits import SPLITS, uniform_of

if TYPE_CHECKING:
    import pandas as pd

#: Names of shards, for the workflow: train-00003; of what the first later onboarding added,
#: train-w1-00000.
SHARD_REGEX = rf"(?:{'|'.join(SPLITS)})(?:-w[0-9]+)?-[0-9]{{5}}"

_BYTES = {"float16": 2, "float32": 4}


def plan_shards(
    rows: Iterable[Mapping[str, Any]],
    splits: Mapping[str, str],
    *,
    parcels: int,
    options: Mapping[str, Any],
    tr: float | None,
) -> dict[str, tuple[str, ...]]:
    """Shard name -> its recording_ids, both in order; shards without any are left out.

    `rows` are those of the eligible recordings (recording_id, subject, n_volumes, tr, wave);
    `splits` maps subjects; `options` is the config's section `shards`; `tr` (s) is the one that all
    get, None: their own.
    """
    groups: dict[tuple[int, str], dict[str, float]] = defaultdict(dict)
    for row in rows:
        length = row["n_volumes"] or 0
        if tr and row["tr"]:  # what has neither length nor TR will not be in the cohort
            length *= row["tr"] / tr
        size = length * parcels * _BYTES[options["dtype"]] / 1e6
        wave = (row["wave"] or 0) if options["by_wave"] else 0
        groups[wave, splits[row["subject"]]][row["recording_id"]] = size
    shards: dict[str, list[str]] = defaultdict(list)
    for (wave, split), sizes in groups.items():
        count = max(1, round(sum(sizes.values()) / options["target_mb"]))
        stem = f"{split}-w{wave}" if wave else split
        for name in sizes:
            shards[f"{stem}-{int(uniform_of('shard', name) * count):05d}"].append(name)
    return {name: tuple(sorted(shards[name])) for name in sorted(shards)}


def split_of(shard: str) -> str:
    """The split that a shard's name begins with."""
    return shard.partition("-")[0]


def write_plan(path: Path, rows: pd.DataFrame) -> None:
    """What is to be read for one shard, and how (or nothing); equal content gives equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("recording_id", pa.string()),
            ("subject", pa.string()),
            ("family", pa.string()),
            ("timeseries", pa.string()),  # relative to the study
            ("timeseries_sha256", pa.string()),
            ("source_tr", pa.float64()),  # s, as recorded
            ("tr", pa.float64()),  # s, in the shards
            ("resampled", pa.bool_()),  # from source_tr to tr; False: samples are as they are
            ("n_timepoints", pa.int64()),  # in the shards
            ("censored", pa.list_(pa.int32())),  # volumes of the stored series, from 0
        ]
    )
    table = pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False)
    pq.write_table(table.replace_schema_metadata(None), path)
