"""BrainLM models of the `brainlm` package, for the public benchmark Brainmarks.

    BRAINLM_MODEL=models/brainlm-13m python -m brainmarks.main_probe <dataset> brainlm_pipeline

Brainmarks finds this file by itself: `brainmarks.models` is a namespace package. docs/hub.md tells
what is done to the series, and why.
"""

from __future__ import annotations

import os
from typing import Any

from brainmarks.models.base import Embeddings
from brainmarks.models.registry import register_model
from torch import Tensor

from brainlm.errors import InputError
from brainlm.model.benchmark import ScalerChoice, SeriesEncoder, SeriesTransform
from brainlm.model.opening import open_model

_SPACE = "a424"
_RELEASED = "vandijklab/brainlm"


class BrainLMWrapper(SeriesEncoder):
    """What Brainmarks calls a model wrapper."""

    __space__ = _SPACE

    def forward(self, batch: dict[str, Tensor]) -> Embeddings:
        """Embeddings of a batch of transformed samples."""
        return Embeddings(*super().forward(batch))


@register_model
def brainlm_pipeline(
    model: str | None = None,
    *,
    subfolder: str | None = None,
    revision: str | None = None,
    scaler: ScalerChoice = "train",
    tr: float | str | None = "model",
) -> tuple[SeriesTransform, BrainLMWrapper]:
    """A trained model: its folder, or a repository on the Hub.

    `model`: default: what BRAINLM_MODEL names. `tr`: recordings are resampled to it, s; "model": to
    that of the model's train data, if they have one; None: not at all.
    """
    model = model or os.environ.get("BRAINLM_MODEL")
    if not model:
        raise InputError(
            "Which model?", fix="set BRAINLM_MODEL, or model_kwargs.model, to a model's folder"
        )
    loaded = open_model(model, subfolder, revision)
    if loaded.config.parcels != 424:
        raise InputError(f"{model} has {loaded.config.parcels} parcels, {_SPACE} has 424")
    if tr == "model":
        tr = loaded.tr
    target = None if tr is None else float(tr)
    transform = SeriesTransform(loaded.autoencoder, loaded.scaler, tr=target, choice=scaler)
    return transform, BrainLMWrapper(loaded.autoencoder)


@register_model
def brainlm_released_13m(**options: Any) -> tuple[SeriesTransform, BrainLMWrapper]:
    """The authors' 13M, from the Hub."""
    return brainlm_pipeline(_RELEASED, subfolder="old_13M", **options)


@register_model
def brainlm_released_111m(**options: Any) -> tuple[SeriesTransform, BrainLMWrapper]:
    """The authors' 111M, from the Hub."""
    return brainlm_pipeline(_RELEASED, subfolder="vitmae_111M", **options)


@register_model
def brainlm_released_650m(**options: Any) -> tuple[SeriesTransform, BrainLMWrapper]:
    """The authors' 650M, from the Hub."""
    return brainlm_pipeline(_RELEASED, subfolder="vitmae_650M", **options)
