"""Writing a part piece by piece: where recordings differ much, most of their values are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from .gather import values_by_parcel
from .parts import PART_SCHEMA_VERSION, ROWS, Part, Totals
from .tensorfile import METADATA_KEY

_TYPES = {"int64": "I64", "float64": "F64", "float32": "F32"}
_ALIGNMENT = 8


def save_part(
    path: str | Path, parts: Sequence[Part], parcels: int, about: Mapping[str, Any]
) -> None:
    """Write `parts` as one, as safetensors; equal content gives equal bytes.

    `parts.load_part` reads it. Only some of the values are in memory at a time.
    """
    totals = reduce(add, (part.totals for part in parts), Totals.nothing(parcels))
    arrays = {field.name: getattr(totals, field.name) for field in fields(Totals)}
    arrays = dict(sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0])))
    shapes = {f"values_{row}": ("float64", (int(totals.inside[row].sum()),)) for row in range(ROWS)}
    shapes |= {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
    with Path(path).open("wb") as handle:
        handle.write(_header(shapes, {**about, "schema_version": PART_SCHEMA_VERSION}))
        for row in range(ROWS):
            for _, values in values_by_parcel(parts, row, totals.inside[row]):
                for piece in values:
                    handle.write(np.ascontiguousarray(piece).data)
        for array in arrays.values():
            handle.write(np.ascontiguousarray(array).data)


def _header(shapes: Mapping[str, tuple[str, tuple[int, ...]]], about: Mapping[str, Any]) -> bytes:
    text = json.dumps(about, sort_keys=True, separators=(",", ":"), allow_nan=False)
    header = {"__metadata__": {METADATA_KEY: text}, **dict(_entries(shapes))}
    content = json.dumps(header, separators=(",", ":")).encode()
    content += b" " * (-len(content) % _ALIGNMENT)
    return len(content).to_bytes(_ALIGNMENT, "little") + content


def _entries(
    shapes: Mapping[str, tuple[str, tuple[int, ...]]],
) -> Iterator[tuple[str, dict[str, Any]]]:
    end = 0
    for name, (dtype, shape) in shapes.items():
        start, end = end, end + int(np.prod(shape)) * np.dtype(dtype).itemsize
        yield (
            name,
            {"dtype": _TYPES[dtype], "shape": list(shape), "data_offsets": [start, end]},
        )
