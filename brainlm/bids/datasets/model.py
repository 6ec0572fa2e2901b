"""What a dataset file may say; each is checked when it is read."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ...config import Config, Label
from ...config.base import Section

Layout = Literal["bids", "fmriprep", "hcp", "ukb", "xcpd", "timeseries"]
#: Names between braces that a command may hold.
_PLACES = {"to", "subject", "count"}
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]


class DatasetLabel(Label):
    """A label of interest: where it may stand, and what its values mean.

    All but `columns` and `about` is as in the config's phenotypes.labels; `table` and `column` are
    what the tables at hand decide.
    """

    columns: tuple[str, ...] = Field(min_length=1, description="its column: the first one found")
    about: str = Field(description="what it is")

    def rule(self, table: str, column: str) -> dict[str, Any]:
        """The entry of phenotypes.labels that reads it from that column."""
        own = {"name", "table", "column", "columns", "about"}
        said = self.model_dump(mode="json", exclude_defaults=True, exclude=own)
        return {"name": self.name, "table": table, "column": column, **said}


class Access(Section):
    """Who may have the data, and how."""

    open: bool = Field(description="whether anybody may fetch them, without asking")
    licence: str = Field(description="or the kind of agreement")
    portal: str = Field(pattern=r"^https://", description="where to apply, or to read about it")
    how: str = Field(description="what to do, in a few sentences")


class Way(Section):
    """A way to fetch the data: lists of arguments, which no shell ever sees.

    {to} becomes the folder, {subject} a subject such as sub-01, {count} how many are wanted. What
    nilearn is asked is a function of nilearn.datasets, then NAME=VALUE for it.
    """

    tool: Literal["datalad", "aws", "nilearn"]
    gives: str = Field(description="what comes")
    layout: Layout | None = Field(None, description="of what comes; null: not read by onboarding")
    first: tuple[tuple[str, ...], ...] = Field((), description="gets what tells the subjects")
    subject: tuple[tuple[str, ...], ...] = Field((), description="gets one subject")
    some: tuple[tuple[str, ...], ...] = Field((), description="gets {count} subjects")
    everything: tuple[tuple[str, ...], ...] = Field(min_length=1, description="gets all of them")

    @model_validator(mode="after")
    def _commands_fit(self) -> Way:
        for part, allowed in (
            ("first", {"to"}),
            ("subject", {"to", "subject"}),
            ("some", {"to", "count"}),
            ("everything", {"to"}),
        ):
            for command in getattr(self, part):
                self._check(part, command, allowed)
        if self.subject and self.some:
            raise ValueError("give either subject or some")
        return self

    def _check(self, part: str, command: tuple[str, ...], allowed: set[str]) -> None:
        if not command:
            raise ValueError(f"{part} holds an empty command")
        if self.tool == "nilearn":
            fits = re.fullmatch(r"fetch_[a-z0-9_]+", command[0])
            if not fits or not all("=" in word for word in command[1:]):
                raise ValueError(f"{part}: nilearn takes fetch_SOMETHING, then NAME=VALUE")
        elif command[0] != self.tool:
            raise ValueError(f"{part}: the command begins with {command[0]}, not {self.tool}")
        words = set(re.findall(r"\{(\w*)\}", " ".join(command)))
        if unknown := words - (allowed & _PLACES):
            raise ValueError(f"{part} cannot hold {{{sorted(unknown)[0]}}}")


class Citation(Section):
    """What to cite."""

    text: str
    doi: str | None = Field(None, pattern=r"^10\.\d+/\S+$")


class Dataset(Section):
    """All that a dataset file says."""

    name: Name
    title: str
    about: str
    layouts: tuple[Layout, ...] = Field(min_length=1, description="in which it is found")
    access: Access
    labels: tuple[DatasetLabel, ...] = ()
    quirks: tuple[str, ...] = ()
    to_check: tuple[str, ...] = Field((), description="what we are not sure of: look it up")
    settings: dict[str, Any] = Field({}, description="options of a new study, by section")
    fetch: tuple[Way, ...] = ()
    citations: tuple[Citation, ...] = Field(min_length=1)

    @field_validator("settings")
    @classmethod
    def _are_options(cls, settings: dict[str, Any]) -> dict[str, Any]:
        if "derivatives" in settings or "engine" in settings:
            raise ValueError("engine and derivatives are decided by the layout")
        if "phenotypes" in settings:
            raise ValueError("labels have a section of their own: labels")
        Config.model_validate(settings)
        return settings

    @model_validator(mode="after")
    def _holds_together(self) -> Dataset:
        names = [label.name for label in self.labels]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two labels are called {', '.join(twice)}")
        if self.fetch and not self.access.open:
            raise ValueError("only open data can be fetched by a command")
        return self
