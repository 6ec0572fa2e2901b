"""What the sections of the config are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
#: The name of a label, which is a part of names of columns, folders and rules.
LABEL_NAME = r"^[A-Za-z0-9_]+$"
#: YAML reads a bare `off` as false.
OrOff = BeforeValidator(lambda value: "off" if value is False else value)


class Section(BaseModel):
    """A part of the config: frozen, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def faults_of(error: ValidationError, whole: str) -> str:
    """What does not hold, each with its key; `whole` is what has a fault that has no key."""
    return "; ".join(
        f"{'.'.join(str(part) for part in fault['loc']) or whole}: {fault['msg']}"
        for fault in error.errors()
    )
