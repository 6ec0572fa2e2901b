"""What the sections of the reproducibility report share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from markupsafe import Markup

from ...config import Config
from ...layout import Study
from ..gather import Findings
from ..templating import environment
from .options import Options

if TYPE_CHECKING:
    from .graph import Graph
    from .jobs import History


@dataclass(frozen=True)
class About:
    """The study that the report is of; sections read what else they need from its folder."""

    study: Study
    config: Config
    fields: Mapping[str, str]  # labels of file names: space, res, atlas, estimator, run
    targets: tuple[str, ...]  # labels that were learned
    findings: Findings
    options: Options = field(default_factory=Options)

    @cached_property
    def graph(self) -> Graph:
        """The lineage; several sections ask for it, and files are hashed once."""
        from .lineage_graph import read_graph

        return read_graph(self)

    @cached_property
    def history(self) -> History:
        """Runs and jobs; Slurm is asked once."""
        from .jobs import read_history

        return read_history(self.study.root)

    def path(self, kind: str, **fields: str) -> Path:
        """Of a kind of file of this study."""
        return self.study.path(kind, **{**self.fields, **fields})


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    key: str  # its anchor
    title: str
    html: Markup
    alarms: tuple[str, ...] = ()  # what must not be: on top in red; with --strict the command fails


class Sharing(Protocol):
    """How the shareable variant speaks of what must stay where the data are."""

    @property
    def k(self) -> int:
        """The smallest number of people that is told."""

    def recording(self, recording_id: str) -> str:
        """A name that tells nothing, the same each time on one page."""

    def subject(self, subject: str) -> str:
        """The same for a subject."""

    def path(self, path: str) -> str:
        """A path below the study in which subjects have such names; of others nothing is left."""

    def count(self, number: int) -> str:
        """A number of people or recordings; small ones are not told exactly."""


def render(template: str, **content: Any) -> Markup:
    """A fragment of a page; what goes into it is escaped."""
    return Markup(environment().get_template(template).render(content))
