"""Writing the evaluation's folder: tables, figures, views, results.tsv and the page itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ...errors import DataError
from ...files import whole_folder
from ..style import to_full_png, to_svg
from .page import Drawn, render_table
from .parts import Picture, Section, Table, stem_of
from .printed import to_latex, to_markdown

#: Dots per inch of the PNG files: sharp in print at the width of a page.
_DPI = 200


def draw(pictures: Iterable[Picture]) -> dict[str, Drawn]:
    """Each picture in both formats, by its name."""
    found: dict[str, Drawn] = {}
    for picture in pictures:
        picture.figure.set_dpi(_DPI)
        found[picture.name] = Drawn(to_svg(picture.figure), to_full_png(picture.figure))
    return found


def write_parts(
    folder: Path, sections: Sequence[Section], drawn: Mapping[str, Drawn], others: Sequence[Table]
) -> None:
    """The folders tables, figures and views: each is replaced as a whole, so nothing stale stays.

    `others` are tables that belong to no section.
    """
    tables = [*(table for section in sections for table in section.tables), *others]
    views = {stem: text for section in sections for stem, text in section.views.items()}
    _check_names([table.name for table in tables])
    _check_names(list(drawn))
    for name, files in (
        ("tables", _of_tables(tables)),
        ("figures", _of_figures(drawn)),
        ("views", ((f"{stem}.html", text.encode()) for stem, text in sorted(views.items()))),
    ):
        with whole_folder(folder / name) as temporary:
            for file, content in files:
                (temporary / file).write_bytes(content)


def _of_tables(tables: Iterable[Table]) -> Iterator[tuple[str, bytes]]:
    for table in tables:
        for ending, write in (("md", to_markdown), ("tex", to_latex), ("html", render_table)):
            yield f"{stem_of(table.name)}.{ending}", write(table).encode()


def _of_figures(drawn: Mapping[str, Drawn]) -> Iterator[tuple[str, bytes]]:
    for name, figure in drawn.items():
        yield f"{stem_of(name)}.svg", figure.svg.encode()
        yield f"{stem_of(name)}.png", figure.png


def _check_names(names: list[str]) -> None:
    """Two parts of one name would overwrite each other."""
    stems = [stem_of(name).lower() for name in names]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise DataError(f"Two parts of the evaluation's page are named {', '.join(twice)}")
