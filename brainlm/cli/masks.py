"""`brainlm masks`: get and find the masks published with ICA-AROMA."""

from __future__ import annotations

from typing import Annotated

import typer

from ._console import say

masks_app = typer.Typer(
    help="Get and find the masks published with ICA-AROMA.\n\n"
    "They say where `brainlm ica` looks for noise, with ica.masks: aroma: in CSF, at the brain's "
    "edge, outside. They are fetched once, checked against checksums and kept in a cache "
    "(BRAINLM_CACHE, else ~/.cache/brainlm).",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    app.add_typer(masks_app, name="masks")


@masks_app.command("get")
def get(
    source: Annotated[
        str | None,
        typer.Option("--from", help="a folder or URL that holds the files, for want of a network"),
    ] = None,
) -> None:
    """Fetch the masks, unless they are there; their checksums must be right."""
    from ..masks import CITATION, LICENCE, fetch_masks

    paths = fetch_masks(source)
    say(f"masks of ICA-AROMA ({LICENCE}; cite {CITATION})")
    for path in paths.values():
        say(str(path))


@masks_app.command("where")
def where() -> None:
    """Print the file of each mask; an error where they are not on this machine."""
    from ..masks import MASKS, SPACE, mask_path, mask_problems

    for problem in mask_problems(SPACE, space_ok=True):
        raise problem
    for name in MASKS:
        say(f"{name:<5} {mask_path(name)}")
