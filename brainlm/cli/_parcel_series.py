"""Reading the cohort's parcel series, and the plan that says which of them make a shard."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..layout import recording_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from pyarrow.parquet import ParquetFile

    from ..shards.series import Series
    from ._stage import StageRun


def read_plan(run: StageRun, shard: str) -> list[dict[str, Any]]:
    """The recordings of a shard (`brainlm.shards.plan.write_plan`), as `brainlm cohort` chose."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(
        run.source(run.path("shard_plan", shard=shard))
    ).to_pylist()
    return rows


def planned_shards(run: StageRun) -> list[str]:
    """The names of all shards of the cohort; not of a plan that a killed job left half-written."""
    import re

    from ..shards.plan import SHARD_REGEX

    folder = run.path("shard_plan", shard="any").parent
    names = (path.stem for path in folder.glob("*.parquet"))
    return sorted(name for name in names if re.fullmatch(SHARD_REGEX, name))


def read_recording(root: Path, row: Mapping[str, Any], names: list[str]) -> Series:
    """One recording of a plan, whose bytes are still those that the cohort was made of.

    `root` is the study, `names` are the parcels of its atlas. Where the cohort has a TR for all, a
    recording of another one is resampled to it.
    """
    import numpy as np

    from ..shards.series import Series
    from ..shards.timing import resample, resample_counted

    path, name = root / str(row["timeseries"]), str(row["recording_id"])
    if recording_of(path) != name:
        raise DataError(
            f"The cohort's plan gives {name} the parcel series of another recording",
            file=path,
            fix="run `brainlm cohort` and `brainlm scale` again, then this; never edit plans",
        )
    data = path.read_bytes() if path.exists() else b""
    if hashlib.sha256(data).hexdigest() != row["timeseries_sha256"]:
        raise DataError(
            "This parcel series is missing or has changed since the cohort was selected",
            file=path,
            fix="run `brainlm cohort` and `brainlm scale` again, then this",
        )
    values = _parse(data, path, names)
    counted = np.ones(values.shape[1], bool)
    counted[np.asarray(row["censored"], dtype=int)] = False
    if row["resampled"]:
        times = float(row["source_tr"]), float(row["tr"])
        values, counted = resample(values, *times), resample_counted(counted, *times)
    if len(counted) != row["n_timepoints"]:
        raise DataError(
            f"This parcel series gives {len(counted)} volumes, the cohort's plan says "
            f"{row['n_timepoints']}",
            file=path,
            fix="run `brainlm cohort` and `brainlm scale` again, then this",
        )
    return Series(values, counted)


def parcel_names(atlas_table: Path) -> list[str]:
    """Names of the parcels, in atlas order."""
    import pandas as pd

    return [str(name) for name in pd.read_csv(atlas_table, sep="\t")["name"]]


def n_stored(data: bytes, path: Path, names: list[str]) -> int:
    """Volumes of the recording whose file at `path` holds `data`; its values are not read."""
    return int(_open(data, path, names).metadata.num_rows)


def _parse(data: bytes, path: Path, names: list[str]) -> NDArray[np.float32]:
    """The parcels of one recording's table, (parcels, time), NaN without data."""
    import numpy as np
    import pyarrow as pa

    from ..shards.series import check_series

    try:
        # `read_table` would go through a dataset, which takes a third longer.
        table = _open(data, path, names).read(use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from None
    series = np.empty((len(names), table.num_rows), np.float32)
    for row, column in zip(series, table.columns, strict=True):
        row[:] = column.to_numpy()
    check_series(series, path)
    return series


def _open(data: bytes, path: Path, names: list[str]) -> ParquetFile:
    """One recording's table; `names` are all parcels of the atlas, which it must hold in order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from None
    found = file.metadata.schema.names
    if found != names:
        raise DataError(
            f"This series has {len(found)} parcels that are not the "
            f"{len(names)} of the study's atlas, or in another order",
            file=path,
            fix="delete it and rerun the recording's parcellation",
        )
    return file


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"This parcel series cannot be read: {' '.join(str(error).split())}",
        file=path,
        fix="delete it and rerun the recording's parcellation",
    )
