"""Safetensors files with equal bytes for equal content.

The header's metadata is a hash map whose order changes from process to process, so
everything that we say about a file goes as one JSON text under one key.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import DataError

METADATA_KEY = "brainlm"


def save_tensors(
    path: str | Path, tensors: Mapping[str, NDArray[Any]], about: Mapping[str, Any]
) -> None:
    """Write named arrays, and `about` (plain JSON types) in the header.

    What the disk refuses is an OSError, as of any other writer.
    """
    text = json.dumps(about, sort_keys=True, separators=(",", ":"), allow_nan=False)
    try:
        save_file(
            {name: np.ascontiguousarray(array) for name, array in tensors.items()},
            str(path),
            metadata={METADATA_KEY: text},
        )
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(path)) from None


def open_tensors(path: str | Path) -> Any:
    """An open safetensors file (`keys`, `get_tensor`, `get_slice`), nothing read yet."""
    if not Path(path).exists():
        raise DataError(
            f"{Path(path).name} does not exist",
            file=path,
            fix="run the stage that makes it, or let Snakemake do so",
        )
    try:
        return safe_open(str(path), framework="numpy")
    except SafetensorError as error:
        raise DataError(
            f"This file is cut short or no safetensors file ({error})",
            file=path,
            fix="delete it and rerun the stage that makes it",
        ) from None


def about_of(handle: Any, path: str | Path) -> dict[str, Any]:
    """What `save_tensors` noted in the header."""
    return read_about(handle.metadata() or {}, path)


def read_about(metadata: Mapping[str, str], path: str | Path) -> dict[str, Any]:
    """What `save_tensors` noted, of the texts in a file's header."""
    try:
        return dict(json.loads(metadata[METADATA_KEY]))
    except (KeyError, ValueError, TypeError):
        raise DataError(
            "This safetensors file was not written by brainlm: its header lacks our metadata",
            file=path,
            fix="rerun the stage that makes it",
        ) from None


def load_tensors(path: str | Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """All arrays of a file, and what its header says about them."""
    handle = open_tensors(path)
    return {name: handle.get_tensor(name) for name in handle.keys()}, about_of(handle, path)  # noqa: SIM118
