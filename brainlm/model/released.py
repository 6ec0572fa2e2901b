"""The files of a folder as BrainLM's authors released it: config.json and weights."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import BrainLMError, DataError, InputError
from .published import Published, read_published

#: Names that weights go by, the better one first.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_ANEW = "download the folder anew from its source"


def read_released(folder: Path) -> tuple[Published, Path]:
    """The model of a folder with config.json and weights, and which file held the weights."""
    config = _config(folder / "config.json")
    path = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise InputError(f"This folder holds none of {', '.join(_WEIGHTS)}", file=folder, fix=_ANEW)
    weights = _weights(path)
    try:
        return read_published(config, weights), path
    except KeyError as error:
        raise DataError(
            f"config.json lacks {error}", file=folder / "config.json", fix=_ANEW
        ) from None
    except (TypeError, ValueError) as error:
        raise DataError(
            f"config.json and the weights do not fit together: {error}", file=folder, fix=_ANEW
        ) from None
    except BrainLMError as error:
        if error.file:
            raise
        raise DataError(error.what, file=folder, fix=error.fix or _ANEW) from None


def _config(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"This is not JSON: {error}", file=path, fix=_ANEW) from None
    if not isinstance(content, dict):
        raise DataError("This is no JSON object", file=path, fix=_ANEW)
    return content


def _weights(path: Path) -> dict[str, Tensor]:
    """Weights by name, float32; a torch file is read as weights only, so no code in it can run."""
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        told = " ".join(str(error).split())[:200]
        raise DataError(f"The weights cannot be read: {told}", file=path, fix=_ANEW) from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(
            "This file holds something else than weights by name",
            file=path,
            fix="of a checkpoint of a training save the model's `state_dict()` alone",
        )
    return {name: value.float() for name, value in state.items()}
