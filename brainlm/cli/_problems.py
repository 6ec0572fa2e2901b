"""What keeps a study from being run: an atlas, template or masks that are not here."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..config import Config
    from ..errors import InputError


def problems_of(config: Config, kinds: Collection[str]) -> list[InputError]:
    """The problems; `kinds` are those of runs that another pipeline preprocessed, if any are.

    Tables of parcels need no atlas image, dense series its labels of grayordinates, volumes the
    image and the template.
    """
    from ..atlas.fetch import atlas_problems, dense_problem
    from ..atlas.registry import find_atlas
    from ..masks import mask_problems
    from ..templates import template_problem

    if "parcels" in kinds:
        return []
    if "dense" in kinds:
        absent = dense_problem(config.atlas.name)
        return [] if absent is None else [absent]
    space = config.space.template
    found = atlas_problems(find_atlas(config.atlas.name), space, config.atlas.space_ok)
    if (missing := template_problem(space)) is not None:
        found.append(missing)
    if config.denoise.method == "aroma" and config.ica.masks == "aroma":
        found += mask_problems(space, config.ica.masks_space_ok)
    return found
