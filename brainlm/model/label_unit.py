"""What a head predicts: which label, and how its output becomes that label in its own unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .strict import check_section

Floats = NDArray[np.float64]

#: Options with few values, and those values.
CHOICES: dict[str, tuple[str, ...]] = {
    "kind": ("regression", "binary", "classes"),
    "pool": ("mean", "cls", "attention"),
    "layers": ("mlp", "linear"),
    "log": ("none", "log", "log1p"),
    "unit": ("label", "as released"),
}
_UNDO_LOG: dict[str, Callable[[Floats], Floats]] = {
    "none": np.asarray,
    "log": np.exp,
    "log1p": np.expm1,
}


@dataclass(frozen=True)
class HeadCard:
    """The `head` of a model's config.json. Folders without the later keys are older ones."""

    name: str  # of the label
    kind: str  # regression, binary (a logit), classes (a logit of each)
    positive: str | None  # binary: the value that counts as 1, or which ones, as "> 4"
    mean: float  # regression: output 0 is this label (min-max: the smallest one)
    sd: float  # regression: output 1 is so much more (min-max: the range)
    dropout: float
    pool: str = "mean"  # what the head reads of the tokens
    layers: str = "mlp"
    outputs: int = 1
    log: str = "none"  # taken of the label before mean and SD
    sigmoid: bool = False  # of a regression: the output passed through one (some released heads)
    unit: str = "label"  # as released: nobody said what the numbers mean
    classes: tuple[str, ...] = ()  # their names, in the order of the outputs; (): not known
    mask_ratio: float | None = None  # share of the tokens it reads nothing of; None: the model's

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        for name, values in CHOICES.items():
            if getattr(self, name) not in values:
                told = f"head.{name} must be one of {', '.join(values)}"
                raise InputError(f"{told}, not {getattr(self, name)!r}")
        if not self.sd > 0:
            raise InputError(f"head.sd must be above 0, not {self.sd:g}")
        if self.mask_ratio is not None and not 0 <= self.mask_ratio < 1:
            raise InputError(f"head.mask_ratio must be in [0, 1), not {self.mask_ratio}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"head.dropout must be in [0, 1), not {self.dropout}")
        if self.outputs < 1 or (self.kind == "classes") != (self.outputs > 1):
            raise InputError(
                f"A head of kind {self.kind} cannot have {self.outputs} outputs",
                fix="kind classes has one output for each class, the others have one",
            )
        if self.classes and len(self.classes) != self.outputs:
            raise InputError(
                f"head.classes names {len(self.classes)} classes of {self.outputs} outputs"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> HeadCard:
        """Read a mapping strictly: all keys that have no default, and none that is unknown."""
        check_section(cls, content, "head")
        return cls(**{**content, "classes": tuple(content.get("classes", ()))})

    def to_label(self, outputs: Floats) -> Floats:
        """Outputs (...,) in the label's own unit; of classes (..., outputs), their probabilities.

        Binary: the probability of `positive`.
        """
        if self.kind == "classes":
            raised = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
            return np.asarray(raised / raised.sum(axis=-1, keepdims=True))
        if self.kind == "binary" or self.sigmoid:
            outputs = 1 / (1 + np.exp(-outputs))
        if self.kind == "binary":
            return outputs
        return _UNDO_LOG[self.log](outputs * self.sd + self.mean)
