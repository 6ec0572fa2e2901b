"""From templates to HTML, the same way for all pages."""

from __future__ import annotations

from pathlib import Path

import jinja2

_TEMPLATES = Path(__file__).with_name("templates")


def environment() -> jinja2.Environment:
    """The package's templates; what goes into them is escaped, and nothing may be missing."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
