"""A share of the train subjects to learn from, everything else left as it is."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

from ..shards.reader import ShardReader
from ..shards.sampler import too_short
from ..shards.splits import uniform_of
from ..train.settings import PretrainSettings


def with_share(reader: ShardReader, share: float, seed: int) -> ShardReader:
    """The same shards with so great a `share` of the train subjects, drawn by the seed.

    At least one. Who is in a share is in each greater one too; validation and test keep everybody.
    """
    train = reader.table["split"] == "train"
    subjects = reader.table.loc[train, "subject"].astype(str)
    drawn = sorted(set(subjects), key=lambda name: uniform_of("scaling", seed, name))
    kept = set(drawn[: max(1, round(share * len(drawn)))])
    part = copy.copy(reader)
    part.table = reader.table[~train | reader.table["subject"].astype(str).isin(kept)]
    return part


def with_as_many_windows(
    settings: PretrainSettings, part: ShardReader, whole: ShardReader, window: int
) -> PretrainSettings:
    """Settings by which an epoch of `part` has as many windows as one of the `whole` train split.

    Fewer recordings are drawn from more often: the batches are as full, so that an equal number of
    steps is an equal amount of work.
    """
    few, many = (
        len(lengths) - len(too_short(lengths, window))
        for lengths in (each.lengths("train") for each in (part, whole))
    )
    times = math.ceil(many / max(few, 1))
    return replace(settings, windows_per_recording=settings.windows_per_recording * times)
