"""The network: tokenizer, transformer, masked autoencoder, heads, checkpoints.

`from brainlm.model import BrainLM` is the way in for using a trained model (docs/using-models.md).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .given_series import fit_scaler
    from .pretrained import BrainLM

__all__ = ["BrainLM", "fit_scaler"]

_HOME = {"BrainLM": ".pretrained", "fit_scaler": ".given_series"}


def __getattr__(name: str) -> Any:
    """Import PyTorch only when the class is asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name], __name__), name)
