"""Options of the latent space and of perturbations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Section


class Latent(Section):
    """Maps of the recordings' vectors, and what near recordings have in common."""

    pool: Literal["cls", "mean"] = Field(
        "cls", description="which vectors: CLS, or the mean over CLS and all tokens"
    )
    labels: tuple[str, ...] = Field(
        ("site", "dataset", "mean_fd"),
        description="besides finetune.targets: columns of the shards' index, or of "
        "participants.tsv, that neighbours are asked for and maps are coloured by",
    )
    neighbours: Annotated[int, Field(ge=2, le=200)] = Field(
        15, description="recordings that are a neighbourhood, for scores and for UMAP"
    )
    most_recordings: Annotated[int, Field(ge=10)] = Field(
        5000,
        description="test recordings, at most, that are mapped and scored, and as many others that "
        "are mapped beside them: whole subjects, drawn by the seed",
    )
    permutations: Annotated[int, Field(ge=20)] = Field(
        1000, description="deals of a label among the subjects, for p and chance"
    )


class Experiment(Section):
    """One perturbation of the past: which parcels, and what becomes of them."""

    name: str = Field(pattern=r"^[A-Za-z0-9 ._+-]+$", description="what tables call it")
    parcels: tuple[int | str, ...] = Field(
        min_length=1, description="numbers (`index`), names or networks of parcels.tsv"
    )
    factor: float | None = Field(
        None, description="what the activity (its deviation from its mean) is multiplied by"
    )
    value: float | None = Field(
        None, description="what it is held at, in SD of the parcel's past above its mean"
    )
    other: bool = Field(False, description="it becomes that of another test recording")
    last: Annotated[int, Field(ge=1)] | None = Field(
        None, description="time points before the forecast in which it is so; null: all"
    )

    @model_validator(mode="after")
    def _one_change(self) -> Experiment:
        if sum((self.factor is not None, self.value is not None, self.other)) != 1:
            raise ValueError("an experiment has one of factor, value and other")
        return self


class Perturbation(Section):
    """What the forecast does when the past of some parcels is changed."""

    experiments: tuple[Experiment, ...] | None = Field(
        None,
        description="name, parcels, and factor, value or other, and last; null: each network "
        "silenced (factor 0) and doubled (factor 2)",
    )
    most_recordings: Annotated[int, Field(ge=1)] = Field(
        100, description="test recordings at most, of subjects drawn by the seed"
    )
    shams: Annotated[int, Field(ge=0)] = Field(
        20,
        description="draws of as many random parcels that each experiment is compared with; each "
        "takes as long as the experiment",
    )
    batch_size: Annotated[int, Field(ge=1)] = Field(8, description="windows per forecast")

    @model_validator(mode="after")
    def _each_once(self) -> Perturbation:
        names = [one.name for one in self.experiments or ()]
        if len(set(names)) < len(names):
            raise ValueError("two experiments have the same name")
        return self
