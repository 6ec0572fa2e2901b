"""The shape of the network, in one frozen dataclass; presets stand in config/models/*.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import InputError


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the masked autoencoder."""

    parcels: int
    timepoints: int  # of a window
    patch: int  # timepoints of one parcel in a token
    hidden: int
    layers: int
    heads: int
    mlp: int
    decoder_hidden: int
    decoder_layers: int
    decoder_heads: int
    decoder_mlp: int
    dropout: float

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        for name, value in asdict(self).items():
            if name != "dropout" and value < 1:
                raise InputError(f"model.{name} must be at least 1, not {value}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"model.dropout must be in [0, 1), not {self.dropout}")
        for whole, part in (
            ("timepoints", "patch"),
            ("hidden", "heads"),
            ("decoder_hidden", "decoder_heads"),
        ):
            if getattr(self, whole) % getattr(self, part):
                raise InputError(
                    f"model.{whole} ({getattr(self, whole)}) must be a multiple of model.{part} "
                    f"({getattr(self, part)})",
                    fix="change one of them in model.overrides or in the preset",
                )
        if self.hidden % 2 or self.decoder_hidden % 2:
            raise InputError("model.hidden and model.decoder_hidden must be even")

    @property
    def patches(self) -> int:
        """Tokens of one parcel."""
        return self.timepoints // self.patch

    @property
    def tokens(self) -> int:
        """Tokens of a window."""
        return self.parcels * self.patches

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ModelConfig:
        """Read a mapping strictly: every key, no other key, whole numbers where due."""
        names = {field.name: field.type for field in fields(cls)}
        unknown, missing = sorted(set(content) - set(names)), sorted(set(names) - set(content))
        if unknown or missing:
            told = [f"unknown: {', '.join(unknown)}"] if unknown else []
            told += [f"missing: {', '.join(missing)}"] if missing else []
            raise InputError(
                f"The model's settings have wrong keys ({'; '.join(told)})",
                fix=f"the keys are {', '.join(names)}",
            )
        for name, kind in names.items():
            value = content[name]
            allowed = (int,) if kind == "int" else (int, float)
            if not isinstance(value, allowed) or isinstance(value, bool):
                raise InputError(f"model.{name} must be of type {kind}, not {value!r}")
        return cls(**{name: content[name] for name in names})
