"""A folder of shards of any size, as `brainlm index-shards` leaves it, without a study."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from brainlm.provenance import sha256_file
from brainlm.shards.reader import INDEX_NAME, NORMALIZATION_NAME, PARCELS_NAME, ShardReader
from brainlm.shards.scaler import Scaler, save_scaler
from brainlm.shards.tensorfile import save_tensors
from brainlm.shards.writer import SCHEMA_VERSION


def write_shards(
    folder: Path,
    *,
    recordings: int,
    per_shard: int,
    times: int = 490,
    parcels: int = 424,
    dtype: str = "float16",
) -> ShardReader:
    """Noise of mean 0 and SD 1, all of the train split."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"index": range(1, parcels + 1), "name": [f"P{i}" for i in range(parcels)]}
    )
    table.to_csv(folder / PARCELS_NAME, sep="\t", index=False)
    ones = np.ones(parcels)
    scaler = Scaler(median=0 * ones, iqr=ones, usable=ones.astype(bool))
    save_scaler(folder / NORMALIZATION_NAME, scaler)
    about = {
        "schema_version": SCHEMA_VERSION,
        "split": "train",
        "dtype": dtype,
        "atlas_sha256": sha256_file(folder / PARCELS_NAME),
        "scaler_sha256": sha256_file(folder / NORMALIZATION_NAME),
    }
    rows = []
    for first in range(0, recordings, per_shard):
        names = [f"sub-{n:06d}_task-rest" for n in range(first, min(first + per_shard, recordings))]
        shard = f"train-{first // per_shard:05d}.safetensors"
        tensors = {name: rng.standard_normal((times, parcels)).astype(dtype) for name in names}
        save_tensors(folder / shard, tensors, about | {"tr": dict.fromkeys(names, 0.735)})
        rows += [
            {
                "recording_id": name,
                "subject": name[4:10],
                "split": "train",
                "shard": shard,
                "n_timepoints": times,
                "n_parcels": parcels,
                "tr": 0.735,
                "label_age": 50.0 + len(rows) % 30,
            }
            for name in names
        ]
    pd.DataFrame(rows).to_parquet(folder / INDEX_NAME, index=False)
    return ShardReader(folder)
