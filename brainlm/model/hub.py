"""Models and the Hugging Face Hub.

Fetching and uploading needs huggingface_hub; with transformers installed, importing this module
also lets `AutoConfig` and `AutoModel` read a model's folder.
"""

from __future__ import annotations

from importlib.util import find_spec

from .repository import fetch_model, is_released, upload_model

__all__ = ["fetch_model", "is_released", "upload_model"]

if find_spec("transformers"):
    from .auto import BrainLMConfig, BrainLMModel, BrainLMOutput

    __all__ += ["BrainLMConfig", "BrainLMModel", "BrainLMOutput"]
