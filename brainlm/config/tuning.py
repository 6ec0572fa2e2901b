"""Options of fine-tuning on labels and on forecasting, and of probes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .base import LABEL_NAME, NonNegative, Positive, Section

#: How known scales are predicted when a target says no more than their name (in capitals or not):
#: as BrainLM's authors did (Ortega Caro et al. 2024).
PRESETS: dict[str, dict[str, Any]] = {
    "pcl5": {"transform": "log-minmax"},
    "gad7": {"transform": "log-minmax"},
    "neuroticism": {"transform": "minmax"},
    "phq9": {"kind": "binary", "threshold": 4.0},
}


class Target(Section):
    """A label to predict."""

    name: str = Field(pattern=LABEL_NAME, description="a label that onboarding took")
    kind: Literal["regression", "binary", "classes"] = Field(
        "regression", description="what to fit; classes: three or more"
    )
    positive: str | None = Field(
        None, description="for binary: the value that counts as 1 (else the values are 0 and 1)"
    )
    threshold: float | None = Field(None, description="for binary: values above it count as 1")
    transform: Literal["zscore", "minmax", "log-minmax"] = Field(
        "zscore", description="for regression: to what scale the labels of the train split go"
    )

    @model_validator(mode="before")
    @classmethod
    def _known_scales(cls, content: Any) -> Any:
        """Fill in what `PRESETS` says, unless anything beside the name is told."""
        if not isinstance(content, dict) or set(content) != {"name"}:
            return content
        return {**content, **PRESETS.get(str(content["name"]).lower(), {})}

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Target:
        if self.name == "forecast":
            raise ValueError("a label cannot be called forecast: models/RUN-forecast is the folder")
        if self.kind != "binary" and (self.positive is not None or self.threshold is not None):
            raise ValueError("positive and threshold go with kind: binary")
        if self.positive is not None and self.threshold is not None:
            raise ValueError("give positive or threshold, not both")
        if self.kind != "regression" and self.transform != "zscore":
            raise ValueError("transform goes with kind: regression")
        return self


class Finetune(Section):
    """Fine-tuning on labels, and on forecasting."""

    targets: tuple[Target, ...] = Field(
        (),
        description="labels to predict: name, kind, positive or threshold, transform; PCL5, GAD7, "
        "neuroticism and PHQ9 have presets (docs/training.md)",
    )
    mode: Literal["full", "head", "lora"] = Field(
        "full",
        description="what learns: all; the head alone; the head, and low-rank changes of the "
        "encoder's matrices",
    )
    lora_rank: Annotated[int, Field(ge=1)] = Field(8, description="rank of those changes")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="each layer of the encoder learns at this share of the rate of the next"
    )
    head: Literal["mlp", "linear"] = Field("mlp", description="three layers, or one")
    pool: Literal["mean", "cls", "attention"] = Field(
        "mean",
        description="what the head reads: the mean over CLS and the visible tokens; CLS; a mean "
        "with learned weights",
    )
    mask_ratio: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="share of the tokens hidden from the encoder while it learns a label, and to "
        "predict it; 0: whole windows",
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="of the encoder's output, and in the head"
    )
    class_weights: Literal["balanced", "none"] = Field(
        "balanced", description="balanced: rare classes weigh as much as frequent ones"
    )
    epochs: Annotated[int, Field(ge=1)] = Field(80, description="passes over the train split")
    patience: Annotated[int, Field(ge=1)] = Field(
        20, description="epochs without a lower validation loss after which it ends"
    )
    batch_size: Annotated[int, Field(ge=1)] = Field(
        8, description="windows per step, over all processes"
    )
    learning_rate: Positive | None = Field(
        None,
        description="peak rate of AdamW; null: what suits the encoder's width, 0.001 for 64 and in "
        "inverse proportion for others",
    )
    weight_decay: NonNegative = Field(0.05, description="of AdamW; not on biases and norms")
    processes: Annotated[int, Field(ge=1)] = Field(
        1,
        description="processes of one node that share the work, each with a GPU and the whole "
        "model; the workflow starts them with torchrun",
    )
    repeats: Annotated[int, Field(ge=1, le=100)] = Field(
        1, description="times with other seeds; the one with the lowest validation loss is kept"
    )
    forecast: bool = Field(
        False, description="let `snakemake finetune` make a model for forecasting as well"
    )
    forecast_timepoints: Annotated[int, Field(ge=1)] = Field(
        20, description="last time points of a window that it learns to forecast"
    )


class Probe(Section):
    """Plain models on the frozen model's vectors."""

    pool: Literal["mean", "cls"] = Field(
        "mean", description="which vectors: the mean over CLS and all tokens, or CLS"
    )
    average: bool = Field(
        False, description="each recording with the mean vector of its subject's, not its own"
    )
