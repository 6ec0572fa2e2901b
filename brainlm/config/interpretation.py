"""Options of what is read off a trained model: networks of parcels, and attention."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import NonNegative, Section


class ParcelNetworks(Section):
    """Telling a parcel's functional network from what a recording shows of it."""

    most_recordings: Annotated[int, Field(ge=1)] = Field(
        1000, description="test recordings, at most: whole subjects, drawn by the seed"
    )
    search_recordings: Annotated[int, Field(ge=1)] = Field(
        20, description="val recordings on which the layer and head of attention are chosen"
    )
    autoencoders: tuple[Literal["vae", "gcn"], ...] = Field(
        ("vae", "gcn"),
        description="trained from nothing beside the model: vae: each parcel's window by itself; "
        "gcn: on a graph of parcels; [] trains none",
    )
    epochs: Annotated[int, Field(ge=1)] = Field(
        100, description="most passes over the train recordings"
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
    most_train_recordings: Annotated[int, Field(ge=1)] = Field(
        5000, description="train recordings, at most, that an autoencoder learns from"
    )
    spatial_mm: NonNegative = Field(
        30.0,
        description="a stricter test beside the usual one: only parcels this far away, and from "
        "the mirror image, vote for a parcel's network; 0: none",
    )


class Contrast(Section):
    """Two groups of recordings whose attention is compared."""

    name: str = Field(pattern=r"^[A-Za-z0-9-]+$", description="of its figures' files")
    column: str | None = Field(
        None, description="column of the shards' index (site, dataset), or task, session or run"
    )
    label: str | None = Field(None, description="or a label")
    high: tuple[str, ...] = Field((), description="values of the first group")
    low: tuple[str, ...] = Field((), description="of the second; []: all other values")
    above: float | None = Field(None, description="for numbers: the first group is above this")
    below: float | None = Field(None, description="and the second below this")
    share: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.5,
        description="for numbers without above and below: the highest and lowest share of "
        "subjects; 0.5: a median split",
    )

    @model_validator(mode="after")
    def _says_who(self) -> Contrast:
        if (self.column is None) == (self.label is None):
            raise ValueError("a contrast needs a column or a label, not both")
        if (self.above is None) != (self.below is None):
            raise ValueError("above and below go together")
        if self.above is not None and self.below is not None and self.above < self.below:
            raise ValueError("above must not be smaller than below")
        if self.low and not self.high:
            raise ValueError("low needs high")
        if self.high and self.above is not None:
            raise ValueError("give values (high, low) or numbers (above, below), not both")
        return self


class Attention(Section):
    """What the model attends to, and how that differs between groups."""

    most_recordings: Annotated[int, Field(ge=1)] = Field(
        1000, description="test recordings, at most: whole subjects, drawn by the seed"
    )
    layer: int | Literal["mean"] = Field(
        -1, description="of the encoder, -1: the last; mean: over all"
    )
    contrasts: tuple[Contrast, ...] = Field(
        (),
        description="groups to compare, e.g. {name: task, column: task, high: [faces], low: "
        "[rest]}; []: each of finetune.targets, by its median or its two classes",
    )
    permutations: Annotated[int, Field(ge=100)] = Field(
        10_000, description="of a test: with 424 parcels, FDR asks for about 10,000"
    )
    adjust_motion: bool = Field(
        True, description="hold the mean framewise displacement, which drives attention, too"
    )

    @model_validator(mode="after")
    def _each_name_once(self) -> Attention:
        names = [contrast.name for contrast in self.contrasts]
        if len(set(names)) < len(names):
            raise ValueError("contrasts must not name one twice")
        return self
