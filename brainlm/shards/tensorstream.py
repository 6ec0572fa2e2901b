"""Writing a safetensors file tensor by tensor, without ever holding it.

A safetensors file is the length of its header (8 bytes), the header (JSON: names, types, shapes,
places), then the tensors one after another. Shapes are known beforehand, and so are the places;
what is said about the tensors (their hashes) is only known at the end. So room is left for it: the
text about the file is filled up with blanks, and the bytes are those that `safetensors` itself
would write of the same tensors and the same text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .tensorfile import METADATA_KEY

_TYPES = {"float16": "F16", "float32": "F32"}
_ALIGNMENT = 8


def write_stream(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str,
    tensors: Iterable[NDArray[Any]],
    about: Mapping[str, Any],
) -> None:
    """Write `tensors`, which come in the order of their names in `shapes`, all of one `dtype`.

    `about` (plain JSON types) goes into the header once the tensors have gone by: it may be filled
    meanwhile, as long as its text is not longer in the end than in the beginning.
    """
    names = sorted(shapes)
    header = _Header(shapes, dtype)
    room = header.room_for(about)
    with path.open("wb") as handle:
        handle.seek(room)
        for name, tensor in zip(names, tensors, strict=True):
            if tensor.shape != tuple(shapes[name]) or tensor.dtype != dtype:
                raise ValueError(f"{name} is {tensor.dtype} {tensor.shape}, not as announced")
            handle.write(np.ascontiguousarray(tensor).data)
        handle.seek(0)
        handle.write(header.filling(room, about))


class _Header:
    """The first bytes of a file whose tensors are known by name and shape."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: str):
        self._entries: dict[str, Any] = {}
        end = 0
        for name in sorted(shapes):
            start, end = end, end + int(np.prod(shapes[name])) * np.dtype(dtype).itemsize
            self._entries[name] = {
                "dtype": _TYPES[dtype],
                "shape": list(shapes[name]),
                "data_offsets": [start, end],
            }

    def room_for(self, about: Mapping[str, Any]) -> int:
        """Bytes to leave free before the tensors."""
        length = len(self._encode(_text(about)))
        return _ALIGNMENT + -(-length // _ALIGNMENT) * _ALIGNMENT

    def filling(self, room: int, about: Mapping[str, Any]) -> bytes:
        """Exactly `room` bytes."""
        text = _text(about)
        blanks = room - _ALIGNMENT - len(self._encode(text))
        if blanks < 0:
            raise ValueError("the text about the file has grown since room was left for it")
        content = self._encode(text + " " * blanks)
        return len(content).to_bytes(_ALIGNMENT, "little") + content

    def _encode(self, text: str) -> bytes:
        content = {"__metadata__": {METADATA_KEY: text}, **self._entries}
        return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def _text(about: Mapping[str, Any]) -> str:
    return json.dumps(about, sort_keys=True, separators=(",", ":"), allow_nan=False)
