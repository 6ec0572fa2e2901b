"""A whole split on the device: nothing is loaded while training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, ResourceError
from .dataset import as_signal
from .reader import ShardReader
from .sampler import Window

#: This much of the free memory is left to the model at least.
_SPARE = 0.1


class ResidentSplit:
    """A whole split in the memory of one device: `data` (all time points, parcels).

    A batch is one gather on the device; the host sends the numbers of the first rows and nothing
    else, and these can be sent for a whole epoch at once (`rows`).
    """

    def __init__(self, data: Tensor, firsts: Mapping[str, int], lengths: Mapping[str, int]):
        """`firsts`: recording -> its first row in `data`; `lengths`: how many rows it has."""
        self.data = data
        self._firsts, self._lengths = dict(firsts), dict(lengths)

    def rows(self, windows: Sequence[Window], length: int) -> Tensor:
        """Row of `data` in which each window begins, (windows,) int64 on the device.

        Here it is checked that each window lies inside its recording.
        """
        starts = np.array([window.start for window in windows], np.int64)
        totals = np.array([self._lengths[window.recording_id] for window in windows], np.int64)
        outside = np.flatnonzero((starts < 0) | (starts + length > totals))
        if len(outside):
            name, start = windows[outside[0]]
            raise IndexError(
                f"{name} has {self._lengths[name]} time points, not {start} to {start + length}"
            )
        firsts = np.array([self._firsts[window.recording_id] for window in windows], np.int64)
        return torch.from_numpy(firsts + starts).to(self.data.device)

    def windows(self, rows: Tensor, length: int) -> Tensor:
        """Signal (windows, parcels, length) float32 on the device, of what `rows` gave."""
        steps = torch.arange(length, device=self.data.device)
        # index_select: with a table of indices, `data[...]` takes ten times as long on a CPU
        stored = self.data.index_select(0, (rows[:, None] + steps).flatten())
        return as_signal(stored.view(len(rows), length, -1))


def bytes_needed(reader: ShardReader, split: str, dtype: torch.dtype | None = None) -> int:
    """Memory that `device_resident` would take, bytes; `dtype` None keeps the stored type."""
    lengths = reader.lengths(split)
    return sum(lengths.values()) * reader.n_parcels * _type_of(reader, lengths, dtype).itemsize


def device_resident(
    reader: ShardReader,
    split: str,
    device: torch.device | str,
    dtype: torch.dtype | None = None,
) -> ResidentSplit:
    """Read a whole split into the memory of a device, or refuse if it does not fit.

    `dtype` None keeps the stored type, so that windows are those of ShardReader to the last bit.
    """
    device = torch.device(device)
    needed, free = bytes_needed(reader, split, dtype), _free_bytes(device)
    if needed > (1 - _SPARE) * free:
        raise ResourceError(
            f"The {split} split takes {needed / 1e9:.2f} GB, {device} has {free / 1e9:.2f} GB free",
            file=reader.index_path,
            fix="set pretrain.data: auto or mmap (in your own code: ShardDataset with workers), or "
            "store a smaller dtype (float16 halves float32)",
        )
    lengths = reader.lengths(split)
    ends = np.cumsum(list(lengths.values()), dtype=np.int64).tolist()
    firsts = dict(zip(lengths, [0, *ends], strict=False))
    data = torch.empty(
        (sum(lengths.values()), reader.n_parcels),
        dtype=_type_of(reader, lengths, dtype),
        device=device,
    )
    for name, first in firsts.items():
        data[first : first + lengths[name]] = torch.from_numpy(reader.view(name).copy())
    return ResidentSplit(data, firsts, lengths)


def _type_of(
    reader: ShardReader, lengths: Mapping[str, int], dtype: torch.dtype | None
) -> torch.dtype:
    """The type asked for, else that of the recordings."""
    if not lengths:
        raise InputError("There is no recording in this split", file=reader.index_path)
    if dtype is not None:
        return dtype
    stored = {reader.view(name).dtype.name for name in lengths}
    return torch.float32 if "float32" in stored else torch.float16


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    # Not what is unused: the page cache, where the shards themselves may stand, gives way.
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
