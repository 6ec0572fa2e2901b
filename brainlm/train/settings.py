"""What training reads of the config: the same fields, but no defaults (those are in config.py).

The training side runs where no config library is installed, so it has its own plain classes;
a test keeps their fields equal to the config's sections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from ..errors import InputError

Settings = TypeVar("Settings")


#: Options of `pretrain` and `finetune` that say how the work is done: a training may go on with
#: others, and ends with the same result (to the rounding of sums, where the work is shared out
#: otherwise).
HOW = frozenset(
    {
        "accumulate",
        "attention",
        "checkpoint_blocks",
        "checkpoint_every",
        "data",
        "device",
        "keep_checkpoints",
        "nodes",
        "parallel",
        "processes",
        "stop_before_end_s",
    }
)


def deciding(section: Mapping[str, Any]) -> dict[str, Any]:
    """Of section `pretrain` or `finetune`, the options that decide the result: not in `HOW`."""
    return {name: value for name, value in section.items() if name not in HOW}


#: Windows per step that `base_learning_rate` is meant for (Goyal et al. 2017; He et al. 2022).
_BASE_BATCH = 256


@dataclass(frozen=True)
class PretrainSettings:
    """Section `pretrain`."""

    run: str
    epochs: int
    windows_per_recording: int
    batch_size: int
    accumulate: int
    optimizer: str
    learning_rate: float
    base_learning_rate: float | None
    weight_decay: float
    warmup: float
    mask: str
    mask_ratio: float
    guessed: float
    loss: str
    clip_norm: float
    ema_decay: float
    precision: str
    compile: bool
    attention: str
    checkpoint_blocks: bool
    data: str
    processes: int
    nodes: int
    deterministic: bool
    parallel: str
    checkpoint_every: int
    keep_checkpoints: int
    stop_before_end_s: float
    validate_windows: int | None
    validate_every: int | None
    device: str

    @property
    def peak_learning_rate(self) -> float:
        """The largest rate: as it stands, or in proportion to the windows per step."""
        if self.base_learning_rate is None:
            return self.learning_rate
        return self.base_learning_rate * self.batch_size / _BASE_BATCH


@dataclass(frozen=True)
class TargetSettings:
    """One of `finetune.targets`."""

    name: str
    kind: str
    positive: str | None
    threshold: float | None
    transform: str

    @property
    def counts_as_one(self) -> str | None:
        """Of two classes: which values are the positive one; None: the values are 0 and 1."""
        return self.positive if self.threshold is None else f"> {self.threshold:g}"


@dataclass(frozen=True)
class FinetuneSettings:
    """Section `finetune`."""

    targets: tuple[TargetSettings, ...]
    mode: str
    lora_rank: int
    layer_decay: float
    head: str
    pool: str
    mask_ratio: float
    dropout: float
    class_weights: str
    epochs: int
    patience: int
    batch_size: int
    learning_rate: float | None
    weight_decay: float
    processes: int
    repeats: int
    forecast: bool
    forecast_timepoints: int

    def target(self, name: str) -> TargetSettings:
        """The target called `name`."""
        for target in self.targets:
            if target.name == name:
                return target
        known = ", ".join(target.name for target in self.targets) or "none"
        raise InputError(
            f"{name} is not among the targets of the config (it has {known})",
            fix=f"add it to finetune.targets: - {{name: {name}, kind: regression}}",
        )


def read_settings(kind: type[Settings], section: str, content: Mapping[str, Any]) -> Settings:
    """Make settings of a section's plain content; unknown and missing keys are errors."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if set(content) != names:
        wrong = ", ".join(sorted(set(content) ^ names))
        raise InputError(
            f"The section {section} has unknown or missing keys: {wrong}",
            fix="leave --params out to take the values of config/config.yaml",
        )
    return kind(**content)


def read_finetune(content: Mapping[str, Any]) -> FinetuneSettings:
    """Section `finetune`, with its targets."""
    targets = tuple(
        read_settings(TargetSettings, "finetune.targets", target) for target in content["targets"]
    )
    return read_settings(FinetuneSettings, "finetune", {**content, "targets": targets})
