"""The shards in numbers, without anybody's name, for `brainlm shards info` and the datasheet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .labels import LABEL_PREFIX
from .splits import SPLITS

_BYTES = {"float16": 2, "float32": 4}


def summarise(index: pd.DataFrame, *, parcels: int, dtype: str) -> dict[str, Any]:
    """Counts, hours and quality by split (and `all`), storage error, labels; plain JSON types.

    `index` is the index of the shards; `parcels` is the number of parcels of the atlas.
    """
    groups = {split: index[index["split"] == split] for split in SPLITS} | {"all": index}
    size = parcels * _BYTES[dtype] / 1e6
    labels = [name for name in index.columns if name.startswith(LABEL_PREFIX)]
    return {
        "splits": {name: _numbers(rows, size) for name, rows in groups.items()},
        "storage": _storage(index, dtype),
        "labels": {
            name.removeprefix(LABEL_PREFIX): int(index[name].notna().sum()) for name in labels
        },
    }


def _numbers(rows: pd.DataFrame, size: float) -> dict[str, Any]:
    """One column of the table; `size` is that of a volume, MB."""
    volumes = rows["n_timepoints"].astype("int64")
    tr = rows["tr"].astype(float)
    return {
        "shards": int(rows["shard"].nunique()),
        "recordings": len(rows),
        "subjects": int(rows["subject"].nunique()),
        "families": int(rows["family"].nunique()),
        "sites": int(rows["site"].nunique()),
        "datasets": int(rows["dataset"].nunique()),
        "hours": round(float((volumes * tr).sum()) / 3600, 3),
        "volumes": int(volumes.sum()),
        "megabytes": round(float(volumes.sum()) * size, 3),
        "tr": {f"{value:g}": int(count) for value, count in tr.value_counts().sort_index().items()},
        "mean_fd_mm": _spread(rows["mean_fd"]),
        "share_of_parcels": _spread(rows["share_parcels"]),
    }


def _spread(values: pd.Series) -> dict[str, float | None]:
    """Median, 5th and 95th percentile of what is known."""
    known = values.astype(float).dropna().to_numpy()
    names, shares = ("p5", "median", "p95"), (5, 50, 95)
    if not len(known):
        return dict.fromkeys(names)
    found = np.percentile(known, shares)
    return {name: round(float(value), 4) for name, value in zip(names, found, strict=True)}


def _storage(index: pd.DataFrame, dtype: str) -> dict[str, Any]:
    """What rounding to the storage type changed, in units of the stored values."""
    values = (index["n_timepoints"] * index["n_parcels"]).astype(float)
    squares = float((index["error_rms"] ** 2 * values).sum())
    return {
        "dtype": dtype,
        "error_rms": float(f"{np.sqrt(squares / max(1.0, float(values.sum()))):.4g}"),
        "error_max": float(f"{index['error_max'].max() if len(index) else 0.0:.4g}"),
        "clipped_values": int(index["n_clipped"].sum()),
        "clipped_recordings": int((index["n_clipped"] > 0).sum()),
    }
