"""Options of scaling curves: which sizes, and on how many subjects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from .base import Positive, Section


class Size(Section):
    """A network of the grid."""

    name: str = Field(pattern=r"^[A-Za-z0-9]+$", description="what it is called")
    preset: str = Field("tiny", description="a file name in config/models, without .yaml")
    overrides: dict[str, int | float | str] = Field(
        default_factory=dict, description="keys of the preset to replace"
    )
    learning_rate: Positive | None = Field(
        None, description="peak rate; null: what pretrain says, as for all others"
    )


class Scaling(Section):
    """Scaling curves: each size pretrained on each share of the train subjects; [] trains none."""

    sizes: tuple[Size, ...] = Field(
        (),
        description="name, preset and overrides (as of model), learning_rate; windows must be "
        "equally long",
    )
    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (0.1, 0.25, 0.5, 1.0),
        description="of the train subjects; a greater share holds the subjects of a smaller one",
    )
    steps: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="training steps, the same for all points; null: those that pretrain.epochs "
        "are on all train subjects",
    )

    @model_validator(mode="after")
    def _each_once(self) -> Scaling:
        names = [size.name for size in self.sizes]
        if len(set(names)) < len(names) or len(set(self.shares)) < len(self.shares):
            raise ValueError("sizes and shares must not name one twice")
        return self


def scaling_points(section: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name of each point of the grid -> the section `scaling` (as plain types) of it alone."""
    return {
        f"{size['name']}-{share:g}": {**section, "sizes": [size], "shares": [share]}
        for size in section["sizes"]
        for share in section["shares"]
    }
