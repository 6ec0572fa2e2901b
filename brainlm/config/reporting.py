"""Options of the reproducibility report."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Section


class Report(Section):
    """The reproducibility report and the RO-Crate; they change no result."""

    k_anonymity: Annotated[int, Field(ge=2, le=1000)] = Field(
        5, description="the shareable variant tells no number of people smaller than this"
    )
    licence: str | None = Field(
        None,
        description="address of the licence under which the study's results are given, for "
        "ro-crate-metadata.json; null: not stated",
    )
    published: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = Field(
        None,
        description="date of publication for ro-crate-metadata.json, YYYY-MM-DD; null: the day on "
        "which it is written",
    )
