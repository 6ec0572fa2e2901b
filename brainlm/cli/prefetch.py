"""`brainlm prefetch`: everything that a study needs from the internet, at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._console import say, warn
from ._stage import HERE, StudyOption

if TYPE_CHECKING:
    from ..config import Config
    from ._needs import Need


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(prefetch)


def prefetch(
    study: StudyOption = HERE,
    list_only: Annotated[
        bool, typer.Option("--list", help="only say what is needed and what is here")
    ] = False,
) -> None:
    """Bring everything that a study needs from the internet to this machine, and check it.

    Template, atlas, masks, released weights, images and their caches, as the study's config asks
    for them; without a study, what a new one takes by default. Run it on a machine with a network
    that shares BRAINLM_CACHE (else ~/.cache/brainlm) with the compute nodes; a run of the study
    then needs none. What is here and whole is left alone, so that it may be called again.
    """
    from ..errors import BrainLMError, ResourceError
    from ._needs import needs_of

    folder = study.resolve()
    config, kinds = _study(folder)
    needs = list(needs_of(config, kinds, folder))
    if list_only:
        _list(needs)
        return
    failed = []
    for number, need in enumerate(needs, start=1):
        counter = f"[{number}/{len(needs)}] {need.what}"
        if need.is_here():
            say(f"{counter}: here")
            continue
        say(f"{counter}: from {need.source}")
        try:
            need.get()
        except BrainLMError as error:
            warn(str(error))
            failed.append(need)
            continue
        say(f"{counter}: here now")
    if failed:
        commands = "; ".join(f"{need.what}: {need.by_hand}" for need in failed)
        raise ResourceError(
            f"{len(failed)} of {len(needs)} could not be brought here: "
            f"{', '.join(need.what for need in failed)}",
            fix=f"run it again where there is a network, or by hand. {commands}",
        )
    say(f"all {len(needs)} are here: a run needs no network" if needs else "nothing is needed")


def _study(folder: Path) -> tuple[Config, set[str]]:
    """The config of a study and the kinds of its runs; the defaults where there is no study."""
    from ..atlas.registry import find_atlas
    from ..config import Config, load_config
    from ..layout import Study
    from ..recordings import read_rows

    study = Study(folder)
    if not study.path("config").exists():
        config = Config()
        say("No study here: what a new one takes by default")
        space = find_atlas(config.atlas.name).space
        changes = {"space": config.space.model_copy(update={"template": space})}
        return config.model_copy(
            update={**changes, "ica": config.ica.model_copy(update={"masks": "aroma"})}
        ), set()
    table = study.path("recordings")
    rows = read_rows(table) if table.exists() else []
    return load_config(study.path("config")), {row["kind"] for row in rows if row["kind"]}


def _list(needs: list[Need]) -> None:
    if not needs:
        say("nothing is needed")
        return
    width = max(len(need.what) for need in needs)
    say(f"{'what':<{width}}  here  source")
    for need in needs:
        say(f"{need.what:<{width}}  {'yes' if need.is_here() else 'no':<4}  {need.source}")
