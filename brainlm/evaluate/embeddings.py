"""Vectors of recordings, made once and read by whatever comes after (probes, neighbours, maps)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from ..model.heads import pooled_of
from ..model.inference import encode, even_starts, looks
from ..model.mae import MaskedAutoencoder
from ..shards.dataset import as_signal

#: What is made of the tokens of each window, averaged over windows: a column of the table each.
POOLS = ("mean", "cls")


@dataclass(frozen=True, eq=False)
class Vectors:
    """One recording's vectors."""

    pooled: Mapping[str, NDArray[np.float32]]  # pool -> (hidden,)
    n_windows: int


def embed_series(
    model: MaskedAutoencoder, scaled: NDArray[np.float32], *, batch_size: int = 8
) -> Vectors:
    """The vectors of a scaled recording (time, parcels), its windows shown whole.

    As `BrainLM.embed`, of all pools at once.
    """
    device = next(model.parameters()).device
    values = as_signal(torch.from_numpy(scaled)[None])[0].to(device)
    starts = even_starts(values.shape[1], model.config.timepoints)
    found: dict[str, list[torch.Tensor]] = {pool: [] for pool in POOLS}
    for _, latents in encode(model, looks(model, values, starts), batch_size):
        for pool in POOLS:
            found[pool].append(pooled_of(latents, pool).double())
    pooled = {pool: torch.cat(parts).mean(dim=0).float() for pool, parts in found.items()}
    return Vectors({pool: one.cpu().numpy() for pool, one in pooled.items()}, len(starts))


def write_embeddings(
    path: Path, columns: Mapping[str, Sequence[object]], vectors: Sequence[Vectors]
) -> None:
    """A parquet: `columns` (e.g. recording_id), n_windows, and a list of `hidden` float32 per pool.

    Read one pool as a matrix with `read_embeddings`.
    """
    content: dict[str, object] = {name: pa.array(list(some)) for name, some in columns.items()}
    content["n_windows"] = pa.array([one.n_windows for one in vectors], pa.int32())
    for pool in POOLS:
        matrix = np.stack([one.pooled[pool] for one in vectors])
        content[pool] = pa.FixedSizeListArray.from_arrays(matrix.ravel(), matrix.shape[1])
    pq.write_table(pa.table(content), path)


def read_embeddings(path: str | Path, pool: str = "mean") -> tuple[list[str], NDArray[np.float32]]:
    """The names of the first column, and one pool's vectors, (recordings, hidden)."""
    table = pq.read_table(path)
    matrix = table[pool].combine_chunks()
    values = matrix.flatten().to_numpy(zero_copy_only=False)
    return table.column(0).to_pylist(), values.reshape(len(matrix), -1)
