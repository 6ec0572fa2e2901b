"""Whether a head predicts the label that the config asks for, in the unit that the shards have."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ._console import warn

if TYPE_CHECKING:
    from pathlib import Path

    from ..model.label_unit import HeadCard
    from ..train.labelled import LabelledData
    from ..train.settings import TargetSettings

#: Labels whose mean lies farther than so many SD from where a released head expects it are of
#: another unit: ages of any cohort lie within four or so of another's, months for years thirteen.
_FAR_SD = 8.0


def check_same_label(
    head: HeadCard, wanted: TargetSettings, data: LabelledData, path: Path
) -> None:
    """Refuse a head that learned another label, or the same on another scale."""
    from ..errors import DataError

    near = 1e-9 * data.scale.sd  # the last digits of a sum may differ between machines
    if (
        not _is_of(head, wanted)
        or (head.log, head.classes) != (data.scale.log, data.classes)
        or any(
            not math.isclose(
                getattr(head, key), getattr(data.scale, key), rel_tol=1e-9, abs_tol=near
            )
            for key in ("mean", "sd")
        )
    ):
        raise DataError(
            f"The model was fine-tuned on other values of the label {wanted.name} than the "
            "config and the shards have now",
            file=path,
            fix=f"run `brainlm finetune --target {wanted.name}` again, then this",
        )


def check_released(head: HeadCard, wanted: TargetSettings, data: LabelledData, path: Path) -> None:
    """Refuse a head of BrainLM's authors of another label, or of one in another unit."""
    from ..errors import DataError
    from ..shards.labels import LabelScale

    if head.unit == "as released" or not _is_of(head, wanted):
        raise DataError(
            f"This released model's head is not known to predict {wanted.name} ({wanted.kind}"
            + (f", 1 is {wanted.positive})" if wanted.positive else ")"),
            file=path,
            fix=f"`brainlm import-checkpoint --target {wanted.name}` with how the label was scaled "
            "(--mean and --sd, --min and --max, --log; --kind binary, --positive)",
        )
    if wanted.kind != "regression":
        return
    names = sorted({**data.lengths["train"], **data.lengths["test"]})
    scaled = LabelScale(head.mean, head.sd, head.log).to_model(data.truth(names))
    if abs(scaled.mean()) > _FAR_SD:
        raise DataError(
            f"The released model's head expects {wanted.name} around {head.mean:.4g} (SD "
            f"{head.sd:.4g}), the shards have it {abs(scaled.mean()):.0f} SD away: another unit?",
            file=path,
            fix=f"bring the column {wanted.name} to the unit of the head (age in years, say), or "
            "import the head with the scale that it was trained on",
        )


def warn_of_far_labels(data: LabelledData, wanted: TargetSettings) -> None:
    """Say so when test labels lie where no train label was: another unit, or other people."""
    if wanted.kind != "regression" or not data.lengths["test"]:
        return
    train, test = (data.truth(sorted(data.lengths[split])) for split in ("train", "test"))
    reach = train.max() - train.min()
    far = (test < train.min() - reach) | (test > train.max() + reach)
    if far.any():
        warn(
            f"{int(far.sum())} of {len(test)} test recordings have {wanted.name} far outside of "
            f"the train range ({train.min():.4g} to {train.max():.4g}): another unit?"
        )


def _is_of(head: HeadCard, wanted: TargetSettings) -> bool:
    return all(
        getattr(head, key) == told
        for key, told in (
            ("name", wanted.name),
            ("kind", wanted.kind),
            ("positive", wanted.counts_as_one),
        )
    )
