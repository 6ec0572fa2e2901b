"""Which onboarding found a recording: what a later one adds gets shards of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path


def number_waves(recording_ids: Iterable[str], earlier: Mapping[str, int] | None) -> list[int]:
    """The wave of each recording: that of the `earlier` table, else one more than its last.

    Without an earlier table (None) all are of wave 0.
    """
    if earlier is None:
        return [0 for _ in recording_ids]
    following = max(earlier.values(), default=-1) + 1
    return [earlier.get(name, following) for name in recording_ids]


def read_waves(recordings: Path) -> dict[str, int] | None:
    """recording_id -> wave of an earlier recordings table; None where there is none.

    One that was written before waves were counted holds wave 0.
    """
    import pyarrow.parquet as pq

    if not recordings.exists():
        return None
    table = pq.read_table(recordings)
    names = table["recording_id"].to_pylist()
    waves = table["wave"].to_pylist() if "wave" in table.column_names else [0] * len(names)
    return {name: wave or 0 for name, wave in zip(names, waves, strict=True)}
