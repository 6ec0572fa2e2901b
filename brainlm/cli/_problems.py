"""What keeps a study from being run: an atlas, template, masks or labels that are not here."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from ..config import Config
    from ..errors import BrainLMError, InputError


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


def target_problems(config: Config, table: pd.DataFrame) -> list[BrainLMError]:
    """Targets of the fine-tuning that the labels of the recordings `table` do not serve.

    Fine-tuning itself would tell, but only when a model has been pretrained.
    """
    from ..errors import BrainLMError, InputError
    from ..shards.labels import read_label

    found: list[BrainLMError] = []
    # Classes are those of the train split. It is not drawn yet: all recordings stand for it.
    eligible = table[table["eligible"]].assign(split="train")
    for target in config.finetune.targets:
        try:
            values = read_label(
                eligible, target.name, target.kind, target.positive, target.threshold
            )
        except BrainLMError as error:
            found.append(error)
            continue
        if values.nunique() < 2:
            found.append(
                InputError(
                    f"The label {target.name} of finetune.targets has "
                    f"{'one value alone' if values.notna().any() else 'no values'} in the eligible "
                    "recordings",
                    fix="compare onboarding/labels.tsv with the target's kind, positive and "
                    "threshold",
                )
            )
    return found
