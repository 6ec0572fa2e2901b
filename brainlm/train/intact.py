"""Whether the shards still hold what was written: a flipped byte is no number to learn from.

Each process hashes its share of the recordings in a thread, beside the first steps. No checkpoint
is written before all are done, so that no training ever goes on from what damaged data had taught.
"""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
import torch

from ..errors import DataError
from ..shards.reader import ShardReader
from .distributed import Ranks

_SPLITS = ("train", "val")


class DataCheck:
    """Compares the recordings of train and val with the hashes in the index, within a block."""

    def __init__(self, reader: ShardReader, ranks: Ranks):
        """Nothing is read yet."""
        names = [name for split in _SPLITS for name in reader.lengths(split)]
        self._reader, self._ranks = reader, ranks
        self._share = names[ranks.rank :: ranks.world]
        self._leave = threading.Event()
        self._checking: Future[DataError | None] | None = None

    def __enter__(self) -> DataCheck:
        """Begin, in a thread; an index of an early version has no hashes, and nothing is done."""
        if "sha256" in self._reader.table:
            pool = ThreadPoolExecutor(1, thread_name_prefix="intact")
            self._checking = pool.submit(self._first_fault)
            pool.shutdown(wait=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the rest unread."""
        self._leave.set()

    def settle(self) -> None:
        """Wait for all processes' shares, and refuse if any recording is not what it was."""
        checking, self._checking = self._checking, None
        if checking is None:
            return
        fault = checking.result()
        found = self._ranks.total(torch.tensor(int(fault is not None)))
        if fault is not None:
            raise fault
        if found:
            raise DataError("Another process has found a damaged recording in the shards")

    def _first_fault(self) -> DataError | None:
        expected = self._reader.table["sha256"]
        for name in self._share:
            if self._leave.is_set():
                break
            stored = np.ascontiguousarray(self._reader.view(name))
            if hashlib.sha256(stored.data).hexdigest() != expected[name]:
                return DataError(
                    f"{name}: its bytes have changed since the shard was written (SHA-256)",
                    file=self._reader.folder / str(self._reader.table.loc[name, "shard"]),
                    fix="copy this file anew from where it is whole, or delete it and run the "
                    "workflow again; `brainlm shards verify` looks at every shard",
                )
        return None
