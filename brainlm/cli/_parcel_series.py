"""Reading the cohort's parcel series, and the plan that says which of them make a shard."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

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
    """The names of all shards of the cohort."""
    folder = run.path("shard_plan", shard="any").parent
    return sorted(path.stem for path in folder.glob("*.parquet"))


def read_recording(root: Path, row: Mapping[str, Any], names: list[str]) -> Series:
    """One recording of a plan, whose bytes are still those that the cohort was made of.

    `root` is the study, `names` are the parcels of its atlas.
    """
    import numpy as np

    from ..shards.series import Series

    path = root / str(row["timeseries"])
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
    return Series(values, counted)


def parcel_names(atlas_table: Path) -> list[str]:
    """Names of the parcels, in atlas order."""
    import pandas as pd

    return [str(name) for name in pd.read_csv(atlas_table, sep="\t")["name"]]


def _parse(data: bytes, path: Path, names: list[str]) -> NDArray[np.float32]:
    """The parcels of one recording's table, (parcels, time), NaN without data.

    `names` are all parcels of the atlas: the table must hold them in that order.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ..shards.scaler import check_series

    try:
        table = pq.read_table(pa.BufferReader(data), use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"This parcel series cannot be read: {error}",
            file=path,
            fix="delete it and rerun the recording's parcellation",
        ) from None
    if table.column_names != names:
        raise DataError(
            f"This series has {len(table.column_names)} parcels that are not the "
            f"{len(names)} of the study's atlas, or in another order",
            file=path,
            fix="delete it and rerun the recording's parcellation",
        )
    series = np.empty((len(names), table.num_rows), np.float32)
    for row, column in zip(series, table.columns, strict=True):
        row[:] = column.to_numpy()
    check_series(series, path)
    return series
