"""What a section of the evaluation's page is made of.

Each task's module has `section(material) -> Section | None` (None: it was not run). The page, the
tables in Markdown and LaTeX, the figures' files and `results.tsv` are all made of these parts, so
that a number stands in one place only.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ...errors import DataError
from ...files import read_json
from ...layout import Study
from ...shards.reader import PARCELS_NAME

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..brain_maps import BrainMap


@dataclass(frozen=True)
class Material:
    """The study's evaluation files, by their kinds in `layout.TEMPLATES`."""

    study: Study
    fields: Mapping[str, str]  # run, space, res, atlas: what file names are made of
    targets: tuple[str, ...]  # labels to predict
    seen: set[Path] = field(default_factory=set)  # the files that were read

    def json(self, kind: str, **fields: str) -> dict[str, Any] | None:
        """A JSON file's content; None when it is not there."""
        path = self._find(kind, fields)
        if path is None:
            return None
        with self._whole(path):
            return read_json(path)

    def table(self, kind: str, **fields: str) -> pd.DataFrame | None:
        """A Parquet file's content; None when it is not there."""
        path = self._find(kind, fields)
        if path is None:
            return None
        with self._whole(path):
            return pd.read_parquet(path)

    @contextlib.contextmanager
    def _whole(self, path: Path) -> Iterator[None]:
        """Tell of a file that is broken: JSON and Parquet both raise a ValueError."""
        try:
            yield
        except ValueError as error:
            raise DataError(
                f"This file of the evaluation cannot be read: {error}",
                file=path,
                fix=f"make it anew: `snakemake --force {self.study.relative(path)}`",
            ) from error

    def _find(self, kind: str, fields: Mapping[str, str]) -> Path | None:
        path = self.study.path(kind, **{**self.fields, **fields})
        if not path.exists():
            return None
        self.seen.add(path)
        return path

    def brain_map(self) -> BrainMap:
        """The brain that shows a number of each of the model's parcels."""
        from ..brain_maps import BrainMap

        parcels = self.study.path("model", **self.fields).parent / PARCELS_NAME
        self.seen.add(parcels)
        return BrainMap(pd.read_csv(parcels, sep="\t"), self._find("atlas_image", {}))


@dataclass(frozen=True)
class Row:
    """One number of `results.tsv`."""

    task: str  # reconstruction, clinical, forecast, networks, attention, latent, perturbation, ...
    method: str
    metric: str
    value: float | None
    low: float | None = None  # 95% interval
    high: float | None = None
    sd: float | None = None  # over repeats
    target: str = ""  # label, contrast, network
    cohort: str = "test"
    condition: str = ""  # mask, step, ...
    n_subjects: int | None = None
    p: float | None = None
    p_corrected: float | None = None
    note: str = ""  # why there is no value or no interval

    @classmethod
    def of(cls, score: Mapping[str, Any], **about: Any) -> Row:
        """The row of a score as metrics.json holds it: value, interval, or the reason."""
        return cls(
            **about,
            value=score["value"],
            low=score["ci_low"],
            high=score["ci_high"],
            note=score.get("reason") or "",
        )


def stem_of(name: str) -> str:
    """What a part's files are called: names of datasets and labels may hold anything."""
    return re.sub(r"[^A-Za-z0-9.+_-]+", "-", name).strip("-.")


@dataclass(frozen=True)
class Table:
    """A table as it is printed: HTML, Markdown and LaTeX are made of it."""

    name: str  # stem of its files, e.g. table-1-clinical
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    #: Places (row, column) of the best value of each column, printed bold.
    best: frozenset[tuple[int, int]] = frozenset()
    #: Rows of values that the paper published, printed apart.
    published: frozenset[int] = frozenset()


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure, saved as SVG and PNG and shown in the page."""

    name: str  # stem of its files
    caption: str
    figure: Figure
    raster: bool = False  # show the PNG: an SVG of it would be too large


@dataclass(frozen=True)
class Section:
    """One task's part of the page."""

    name: str  # anchor, e.g. forecast
    title: str
    text: str  # what was done and how to read it, a few sentences
    rows: tuple[Row, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    #: Words -> path relative to the folder evaluation/RUN, for interactive views.
    links: Mapping[str, str] = field(default_factory=dict)
    #: Stem -> HTML of an interactive view; the page writes it to views/STEM.html.
    views: Mapping[str, str] = field(default_factory=dict)
    headline: str = ""  # the result in one line, for the study's report
