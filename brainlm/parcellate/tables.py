"""Writing parcel series and their coverage: as the pipeline reads them, and as XCP-D names them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .extract import ParcelSeries


def write_series(path: Path, names: list[str], result: ParcelSeries) -> None:
    """T rows, one float32 column per parcel; equal data gives equal bytes.

    Not compressed: packing noise by a sixth made reading it, 424 small columns at a time, take two
    to three times as long, which is most of what scaling and writing shards cost.
    """
    schema = pa.schema([pa.field(name, pa.float32(), nullable=False) for name in names])
    columns = [pa.array(column, pa.float32()) for column in result.series.T.copy()]
    pq.write_table(
        pa.table(columns, schema=schema),
        path,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
    )


def write_coverage(path: Path, table: pd.DataFrame, result: ParcelSeries) -> None:
    """One row per parcel of the atlas `table`: its voxels, those usable, and their share."""
    rows = table[["index", "name"]].assign(
        n_voxels=result.n_voxels,
        n_usable=result.n_usable,
        coverage=result.coverage.round(6),
    )
    rows.to_csv(path, sep="\t", index=False, lineterminator="\n")


def write_series_tsv(path: Path, names: list[str], result: ParcelSeries) -> None:
    """T rows, one column per parcel, `n/a` where it has no data: XCP-D's table of time series."""
    table = pd.DataFrame(result.series, columns=names)
    table.to_csv(path, sep="\t", index=False, na_rep="n/a", lineterminator="\n")


def write_coverage_tsv(path: Path, names: list[str], result: ParcelSeries) -> None:
    """Node and coverage (0 to 1), one row per parcel: XCP-D's table of coverage."""
    rows = pd.DataFrame({"Node": names, "coverage": result.coverage.round(6)})
    rows.to_csv(path, sep="\t", index=False, lineterminator="\n")
