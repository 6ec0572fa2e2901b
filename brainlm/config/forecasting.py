"""Options of what models are compared with: other forecasts, networks on labels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Section

Method = Literal[
    "brainlm",
    "untrained",
    "zero-shot",
    "mean",
    "persistence",
    "ar",
    "var",
    "lstm",
    "neural-ode",
    "latent-ode",
]


class Forecasts(Section):
    """Who forecasts, beside the model that was fine-tuned for it (finetune.forecast)."""

    methods: tuple[Method, ...] = Field(
        ("brainlm", "untrained", "zero-shot", "mean", "persistence", "ar", "var", "lstm"),
        description="brainlm: the fine-tuned model; untrained: the same network, trained "
        "to forecast from random weights; zero-shot: the pretrained one as it is; "
        "persistence: the last value; ar, var: linear, each parcel by itself or by all; lstm, "
        "neural-ode, latent-ode: networks trained from scratch (the last two need torchdiffeq)",
    )
    epochs: Annotated[int, Field(ge=1)] = Field(
        100, description="most passes over the train split of a network trained from scratch"
    )
    patience: Annotated[int, Field(ge=1)] = Field(
        15, description="epochs without a lower validation error after which it ends"
    )
    batch_size: Annotated[int, Field(ge=1)] = Field(16, description="windows per step")
    search: bool = Field(
        True,
        description="try each of four settings (size, rate) and keep the best on validation; "
        "false: the first alone",
    )

    @model_validator(mode="after")
    def _each_once(self) -> Forecasts:
        if len(set(self.methods)) < len(self.methods):
            raise ValueError("methods must not name one twice")
        return self


class Networks(Section):
    """Networks that learn labels from nothing, beside the fine-tuned model."""

    methods: tuple[Literal["lstm", "gcn", "mlp-raw"], ...] = Field(
        ("lstm", "gcn", "mlp-raw"),
        description="lstm: windows, time point by time point; gcn: as a graph of parcels; mlp-raw: "
        "all entries at once; [] trains none",
    )
    epochs: Annotated[int, Field(ge=1)] = Field(
        100, description="most passes over the recordings with the label"
    )
    patience: Annotated[int, Field(ge=1)] = Field(
        15, description="epochs without a lower validation loss after which it ends"
    )
    batch_size: Annotated[int, Field(ge=1)] = Field(16, description="windows per step")
    search: bool = Field(
        True, description="try two rates and keep the better on validation; false: the first alone"
    )
