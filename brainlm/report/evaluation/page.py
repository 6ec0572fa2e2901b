"""The evaluation's page: one HTML file with all tables and figures in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from ..style import png_uri, svg_uri
from ..templating import environment
from .parts import Section, Table, stem_of
from .printed import to_html
from .sections import Missing

_TEMPLATES = Path(__file__).parents[1] / "templates"


@dataclass(frozen=True)
class Drawn:
    """A figure as its files hold it."""

    svg: str
    png: bytes


@dataclass(frozen=True)
class Heading:
    """What the page is of."""

    name: str  # the study's
    run: str
    datasets: tuple[str, ...]
    standin: bool  # the atlas is one made of centroids
    phantom: bool


def render_page(
    heading: Heading,
    sections: Sequence[Section | Missing],
    drawn: Mapping[str, Drawn],
    published: Mapping[str, Table],
) -> str:
    """The page's text; `drawn` by the pictures' names, `published` by the sections' names."""
    templates = environment()
    templates.filters["code"] = _with_code
    text = templates.get_template("evaluation.html.j2").render(
        heading=heading,
        sections=[_content(section, drawn, published) for section in sections],
    )
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip()) + "\n"


def render_table(table: Table) -> str:
    """A table as an HTML file of its own."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True)
    template = environment.get_template("evaluation_table.html.j2")
    return template.render(title=table.title, table=Markup(to_html(table))) + "\n"


def _content(
    section: Section | Missing, drawn: Mapping[str, Drawn], published: Mapping[str, Table]
) -> dict[str, object]:
    if isinstance(section, Missing):
        return {"name": section.name, "title": section.title, "missing": section.how}
    tables = [*section.tables, *([published[section.name]] if section.name in published else [])]
    return {
        "name": section.name,
        "title": section.title,
        "missing": None,
        "text": section.text.split("\n\n"),
        "headline": section.headline,
        "tables": [
            {"html": Markup(to_html(table)), "stem": stem_of(table.name)} for table in tables
        ],
        "pictures": [
            {
                "stem": stem_of(picture.name),
                "caption": picture.caption,
                "uri": png_uri(drawn[picture.name].png)
                if picture.raster
                else svg_uri(drawn[picture.name].svg),
            }
            for picture in section.pictures
        ],
        "links": list(section.links.items()),
    }


def _with_code(text: str) -> Markup:
    """Text whose words between backticks are set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
