"""Writing parcel series and their coverage: as the pipeline reads them, and as XCP-D names them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from ..parcellate.extract import ParcelSeries


def write_series(path: Path, names: list[str], result: ParcelSeries) -> None:
    """T rows, one float32 column per parcel; equal data gives equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [pa.array(column) for column in result.series.T.copy()]
    pq.write_table(
        pa.table(columns, names=names),
        path,
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
    )


def write_coverage(path: Path, table: pd.DataFrame, result: ParcelSeries) -> None:
    """One row per parcel: its voxels (or grayordinates), the usable ones, and their share."""
    rows = table[["index", "name"]].assign(
        n_voxels=result.n_voxels,
        n_usable=result.n_usable,
        coverage=result.coverage.round(6),
    )
    rows.to_csv(path, sep="\t", index=False, lineterminator="\n")


def write_series_tsv(path: Path, names: list[str], result: ParcelSeries) -> None:
    """T rows, one column per parcel, `n/a` where it has no data: XCP-D's table of time series."""
    import pandas as pd

    table = pd.DataFrame(result.series, columns=names)
    table.to_csv(path, sep="\t", index=False, na_rep="n/a", lineterminator="\n")


def write_coverage_tsv(path: Path, names: list[str], result: ParcelSeries) -> None:
    """Node and coverage (0 to 1), one row per parcel: XCP-D's table of coverage."""
    import pandas as pd

    rows = pd.DataFrame({"Node": names, "coverage": result.coverage.round(6)})
    rows.to_csv(path, sep="\t", index=False, lineterminator="\n")
