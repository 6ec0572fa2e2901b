"""What the three commands of scaling share: the train split's recordings, read once, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ._console import progress

if TYPE_CHECKING:
    from ..shards.brackets import Brackets
    from ..shards.parts import Measured, Part
    from ..shards.series import Series
    from ._stage import StageRun

#: Memory for recordings of the sample until the pass over all comes by.
_SAMPLE_BYTES = 200_000_000
#: Values of recordings that are put together at a time; two copies live meanwhile.
_CHUNK_BYTES = 128_000_000

Found = TypeVar("Found")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Train:
    """The train split as `brainlm cohort` planned it."""

    root: Path
    rows: dict[str, list[dict[str, Any]]]  # of each shard
    plans: dict[str, str]  # sha256 of each shard's plan
    names: list[str]  # of the parcels
    atlas_sha256: str
    threads: int
    sampled: dict[str, Series] = field(default_factory=dict)  # some that need no second reading

    @cached_property
    def recordings(self) -> list[dict[str, Any]]:
        """Of all shards."""
        return [row for rows in self.rows.values() for row in rows]

    def read(
        self, rows: Sequence[Row], what: str, use: Callable[[Series], Found]
    ) -> Iterator[Found]:
        """What `use` makes of each recording, in order, with a few ahead in threads."""
        from ._parcel_series import read_recording

        def read_and_use(row: Row) -> Found:
            known = self.sampled.pop(row["recording_id"], None)
            return use(known or read_recording(self.root, row, self.names))

        if self.threads == 1:
            yield from progress(map(read_and_use, rows), what, total=len(rows))
            return
        with ThreadPoolExecutor(self.threads) as pool:
            yield from progress(
                _in_order(pool, read_and_use, rows, 2 * self.threads), what, total=len(rows)
            )

    def about(self) -> dict[str, Any]:
        """Which data this is, for the headers of files made of it."""
        return {"atlas_sha256": self.atlas_sha256, "plans": self.plans}


def read_train(run: StageRun, threads: int, shards: Iterable[str] | None = None) -> Train:
    """The plans of the train split, or of some of its shards, noted as sources."""
    from ..provenance import sha256_file
    from ..shards.plan import split_of
    from ._parcel_series import parcel_names, planned_shards, read_plan

    if shards is None:
        shards = [shard for shard in planned_shards(run) if split_of(shard) == "train"]
    atlas_table = run.source(run.path("atlas_table"))
    rows = {shard: read_plan(run, shard) for shard in shards}
    return Train(
        root=run.study.root,
        rows=rows,
        plans={shard: sha256_file(run.path("shard_plan", shard=shard)) for shard in rows},
        names=parcel_names(atlas_table),
        atlas_sha256=sha256_file(atlas_table),
        threads=threads,
    )


def sample_brackets(train: Train, *, mean_removed: bool) -> Brackets:
    """Intervals that surely hold the quartiles, from a sample of the train split."""
    from ..errors import DataError
    from ..shards.brackets import bracket, choose_sample

    if not train.recordings:
        raise DataError(
            "No recording is in the train split, so there is nothing to fit a scaler on",
            fix="give train a larger share (split.train) and look into cohort/exclusions.tsv; for "
            "an external cohort set scale.fitted to the normalization.safetensors of its model",
        )
    chosen = choose_sample(row["recording_id"] for row in train.recordings)
    rows = [row for row in train.recordings if row["recording_id"] in chosen]
    sample = train.read(rows, "sampling the train split", lambda series: series)
    return bracket(
        _kept(train, rows, sample),
        parcels=len(train.names),
        lengths=[row["n_timepoints"] for row in rows],
        population=sum(row["n_timepoints"] for row in train.recordings),
        mean_removed=mean_removed,
    )


def _kept(train: Train, rows: Sequence[Row], sample: Iterator[Series]) -> Iterator[Series]:
    """The `sample` of `rows`, of which the train split keeps as much as it has room for."""
    room = _SAMPLE_BYTES
    for row, series in zip(rows, sample, strict=True):
        room -= series.values.nbytes
        if room >= 0:
            train.sampled[row["recording_id"]] = series
        yield series


def measure_all(
    train: Train, rows: Sequence[Row], brackets: Brackets, what: str
) -> Iterator[Measured]:
    """Counts, sums and values to keep of each recording."""
    from ..shards.parts import measure

    return train.read(rows, what, lambda series: measure(series, brackets))


def measure_in_scratch(
    train: Train,
    rows: Sequence[Row],
    brackets: Brackets,
    what: str = "reading the train split",
    at_a_time: int = 256,
) -> list[Part]:
    """Parts of a bounded number of recordings and of values, which lie in a scratch file."""
    from ..shards.parts import Spool, make_part

    spool, parts = Spool(), []
    for chunk in _chunks(measure_all(train, rows, brackets, what), at_a_time):
        parts.append(spool.put(make_part(chunk, brackets.parcels)))
    return parts


def _chunks(measured: Iterable[Measured], at_a_time: int) -> Iterator[list[Measured]]:
    """At most so many recordings, and fewer where they keep much."""
    chunk: list[Measured] = []
    size = 0
    for found in measured:
        chunk.append(found)
        size += sum(values.nbytes for values in found.values)
        if len(chunk) == at_a_time or size > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _in_order(
    pool: ThreadPoolExecutor, use: Callable[[Row], Found], rows: Iterable[Row], ahead: int
) -> Iterator[Found]:
    """As `map`, with at most `ahead` results waiting."""
    waiting: deque[Future[Found]] = deque()
    for row in rows:
        waiting.append(pool.submit(use, row))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
