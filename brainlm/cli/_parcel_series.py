"""Reading the cohort's parcel series, whole or some parcels at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def parcel_names(atlas_table: Path) -> list[str]:
    """Names of the parcels, in atlas order."""
    import pandas as pd

    return [str(name) for name in pd.read_csv(atlas_table, sep="\t")["name"]]


def read_parcels(path: Path, names: list[str], first: int, last: int) -> NDArray[np.floating[Any]]:
    """Parcels [first, last) of one recording's table, (parcels, time), NaN without data.

    `names` are all parcels of the atlas: the table must hold them in that order.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ..shards.scaler import check_series

    try:
        file = pq.ParquetFile(path)
        table = file.read(columns=names[first:last])
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault, not the file's
        raise DataError(
            f"This parcel series cannot be read: {error}",
            file=path,
            fix="delete it and rerun the recording's parcellation",
        ) from None
    if file.schema_arrow.names != names:
        raise DataError(
            f"This series has {len(file.schema_arrow.names)} parcels that are not the "
            f"{len(names)} of the study's atlas, or in another order",
            file=path,
            fix="delete it and rerun the recording's parcellation",
        )
    series = np.stack([column.to_numpy() for column in table.columns])
    check_series(series, path)
    return series
