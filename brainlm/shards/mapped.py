"""A safetensors file as memory: found by its header, mapped read-only, nothing copied.

The format (https://huggingface.co/docs/safetensors): eight bytes with the header's length N (little
endian), N bytes of JSON that give each tensor's type, shape and first and last byte after the
header, then the tensors, without gaps. Every number is compared with the file before it is used,
so a truncated or forged file is an error and never a read past the end.

`safetensors.safe_open` reads the same files. It is not used for windows because its slices are
copies, which a batch then copies again, and because its handles cannot be pickled for workers that
are spawned; `tests/benchmarks/bench_reader.py` compares the two.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

#: The types that recordings are stored in.
DTYPES: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}

_LENGTH_BYTES = 8
#: The reference implementation refuses longer headers as well.
_LONGEST_HEADER = 100_000_000
_METADATA = "__metadata__"
_FIX = "copy it anew from its source, or delete it and rerun the stage that makes it"


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the file a tensor lies, and what its bytes mean."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int  # bytes from the beginning of the file

    @property
    def nbytes(self) -> int:
        """Size of the tensor, bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Header:
    """All that is known of a file before any tensor is read."""

    places: dict[str, Place]
    metadata: dict[str, str]
    sha256: str  # of the header's bytes


def read_header(path: Path) -> Header:
    """Read and check the header alone."""
    try:
        with path.open("rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            length = int.from_bytes(handle.read(_LENGTH_BYTES), "little")
            if not 2 <= length <= min(size - _LENGTH_BYTES, _LONGEST_HEADER):
                raise _broken(path, f"a header of {length} bytes in a file of {size}")
            text = handle.read(length)
    except FileNotFoundError:
        raise DataError(
            f"{path.name} does not exist", file=path, fix="restore it, or make the shards anew"
        ) from None
    try:
        content = json.loads(text, object_pairs_hook=_each_once)
        metadata = content.pop(_METADATA, {})
        places = {
            name: _place(entry, _LENGTH_BYTES + length, size) for name, entry in content.items()
        }
        _check_no_gaps(places, _LENGTH_BYTES + length, size)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(path, str(error)) from None
    return Header(places, dict(metadata), hashlib.sha256(text).hexdigest())


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON allows a key twice; of two tensors of one name nobody can say which is meant."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("its header names something twice")
    return content


def _place(entry: dict[str, Any], start: int, size: int) -> Place:
    """One tensor's entry, its bytes inside the file and as many as its shape needs."""
    dtype = DTYPES.get(entry["dtype"])
    if dtype is None:
        raise ValueError(f"a tensor of type {entry['dtype']}, not F16 or F32")
    shape, (first, last) = entry["shape"], entry["data_offsets"]
    numbers = [*shape, first, last]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"sizes and offsets that are no counts: {numbers}")
    if last - first != math.prod(shape) * dtype.itemsize or start + last > size:
        raise ValueError(
            f"a tensor of {shape} {entry['dtype']} at bytes {first} to {last} of {size - start}"
        )
    return Place(dtype, tuple(shape), start + first)


def _check_no_gaps(places: dict[str, Place], start: int, size: int) -> None:
    """Refuse tensors that overlap, and bytes that belong to none: the file is not what it says."""
    at = start
    for place in sorted(places.values(), key=lambda place: place.offset):
        if place.offset != at and place.nbytes:
            raise ValueError(f"a tensor begins at byte {place.offset} and not at {at}")
        at += place.nbytes
    if at != size:
        raise ValueError(f"its tensors end at byte {at}, the file at {size}")


def _broken(path: Path, why: str) -> DataError:
    return DataError(
        f"This file is cut short, damaged or no safetensors file ({why})", file=path, fix=_FIX
    )


class MappedFile:
    """One file, mapped into memory; `array` gives its tensors without a copy.

    The mapping belongs to no file position and is read-only: forked processes share it safely. It
    stays as long as any array of it lives.
    """

    def __init__(self, path: Path, header: Header):
        """Map the file, which must still have the header that was read before."""
        if read_header(path).sha256 != header.sha256:
            raise DataError(
                "The shard was replaced while it was being read",
                file=path,
                fix="open the shards' index again; never write shards that a training reads",
            )
        with path.open("rb") as handle:
            self._bytes = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)

    def array(self, place: Place) -> NDArray[Any]:
        """A tensor as it is stored; the array is a read-only window into the file."""
        flat: NDArray[Any] = np.frombuffer(
            self._bytes, dtype=place.dtype, count=math.prod(place.shape), offset=place.offset
        )
        return flat.reshape(place.shape)

    def fetch(self, place: Place, first: int, count: int) -> None:
        """Ask the system to read rows [first, first + count) of a tensor into memory meanwhile."""
        row = place.nbytes // max(place.shape[0], 1)
        begin = place.offset + first * row
        aligned = begin - begin % mmap.PAGESIZE
        if hasattr(self._bytes, "madvise"):  # not on every system
            self._bytes.madvise(mmap.MADV_WILLNEED, aligned, begin - aligned + count * row)
