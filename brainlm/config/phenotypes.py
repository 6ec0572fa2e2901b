"""Options of the labels: which tables, which columns, and what their values mean."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from .base import LABEL_NAME, Positive, Section


def _as_text(values: Any) -> Any:
    """Codes as text: in YAML, -9 and 1 are numbers."""
    if isinstance(values, dict):
        return {_code(key): _code(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return tuple(_code(value) for value in values)
    return _code(values)


def _code(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:g}" if is_number else value


_CODE = {"type": ["string", "number"]}
Code = Annotated[str, BeforeValidator(_as_text), WithJsonSchema(_CODE)]
Codes = Annotated[
    tuple[str, ...],
    BeforeValidator(_as_text),
    WithJsonSchema({"type": "array", "items": _CODE}),
]


class PhenotypeFile(Section):
    """A table of labels that lies outside of the dataset."""

    path: str = Field(description="a .tsv or .csv file; relative paths start at the study folder")
    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_-]+$", description="what to call it; null: as the file"
    )
    subject: str | None = Field(
        None, description="its column of subjects; null: participant_id, subject, eid ..."
    )
    session: str | None = Field(
        None, description="its column of sessions; null: session_id, visit ... where it has one"
    )


class Label(Section):
    """A label, and the column that it is read from."""

    name: str = Field(
        pattern=LABEL_NAME,
        description="of the label: letters, digits and _",
    )
    table: str = Field(
        "participants",
        description="participants, sessions, a file of phenotype/ without .tsv, or one of files",
    )
    column: str | None = Field(None, description="of that table; null: the one of that name")
    type: Literal["auto", "number", "category", "ordinal", "binary"] = Field(
        "auto",
        description="auto: numbers where all values are; ordinal: the place among levels (from 0) "
        "where there are any; binary: 0 and 1",
    )
    unit: str | None = Field(None, description="what it is to be in, e.g. year")
    source_unit: str | None = Field(
        None, description="what the table has it in; null: as its data dictionary says"
    )
    factor: Positive = Field(1.0, description="numbers are multiplied by it")
    missing: Codes = Field((), description="values that stand for missing, e.g. -9, 999")
    levels: Annotated[dict[str, str], BeforeValidator(_as_text)] = Field(
        {}, description="value of the table -> name; of an ordinal label from low to high"
    )
    positive: Code | None = Field(None, description="for binary: the value that counts as 1")
    censored: Literal["missing", "bound"] = Field(
        "missing", description="what becomes of bounds such as 89+ or <5: missing, or the number"
    )
    session: str | None = Field(
        None,
        description="which row of a subject with several: null: that of the recording's session; "
        "first, last, or a session",
    )
    range: tuple[float, float] | None = Field(
        None, description="lowest and highest value that can be; others become missing"
    )

    @model_validator(mode="after")
    def _fits_its_type(self) -> Label:
        if self.positive is not None and self.type != "binary":
            raise ValueError("positive goes with type: binary")
        if self.type == "category" and (self.range or self.factor != 1 or self.source_unit):
            raise ValueError("range, factor and source_unit are for numbers")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError("range is the lowest, then the highest value")
        if self.levels and self.type in ("number", "binary"):
            raise ValueError("levels go with type: category or ordinal")
        return self


class Phenotypes(Section):
    """Labels: what is known of the subjects besides their images. Read by `brainlm onboard`."""

    files: tuple[PhenotypeFile, ...] = Field(
        (),
        description="tables outside of the dataset: path, name, subject, session "
        "(docs/phenotypes.md)",
    )
    tables: tuple[str, ...] = Field(
        (),
        description="besides participants.tsv, take of these tables all columns, or some: bdi, "
        "bdi.total_*, sessions",
    )
    most_columns: Annotated[int, Field(ge=1)] = Field(
        200, description="refuse to take more columns than that of a table that nobody has named"
    )
    missing: Codes = Field(
        (), description="values that stand for missing in every column, besides n/a, NA and empty"
    )
    labels: tuple[Label, ...] = Field(
        (),
        description="labels that need more: name, table, column, type, unit, source_unit, factor, "
        "missing, levels, positive, censored, session, range",
    )

    @model_validator(mode="after")
    def _each_name_once(self) -> Phenotypes:
        names = [label.name for label in self.labels]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two labels are called {', '.join(twice)}")
        return self
