"""The shape of the network, in one frozen dataclass; presets stand in config/models/*.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import InputError
from .strict import check_section

#: Options with few values, and those values.
CHOICES: dict[str, tuple[str, ...]] = {
    "tokenizer": ("parcels", "image"),
    "place": ("fourier", "linear"),
    "padding": ("none", "square"),
    "norm": ("pre", "post"),
    "decoder": ("cross", "full"),
    "head": ("linear", "mlp"),
    "missing": ("mark", "learned"),
}


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and kinds of the parts of the masked autoencoder."""

    parcels: int
    timepoints: int  # of a window
    patch: int  # timepoints of one parcel in a token; of an image: side of a token's square
    hidden: int
    layers: int
    heads: int
    mlp: int
    decoder_hidden: int
    decoder_layers: int
    decoder_heads: int
    decoder_mlp: int
    dropout: float
    tokenizer: str = "parcels"  # image: parcels in order of their y are rows, square patches
    place: str = "fourier"  # of parcel tokens; linear: raw mm, as the published 13M
    padding: str = "none"  # of an image; square: as published, most of it without data
    input_scale: float = 1.0  # scaled series are divided by it; the authors' images by 5.6430855
    norm: str = "pre"  # LayerNorm before each step, or after it (post: the published 13M);
    # the cross decoder always has it before, and neither conv nor landmarks
    norm_eps: float = 1e-5
    conv: int = 0  # reach of a convolution over the tokens beside attention (published 13M: 65)
    landmarks: int = 0  # of approximate attention (Nystrom), for sequences longer than that
    decoder: str = "cross"  # full: self-attention among all tokens, as published
    head: str = "linear"  # what makes a patch of a decoded token; mlp: the published 13M
    missing: str = "mark"  # in an image, where there is no data: -1, as published, or learned

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        for name, value in asdict(self).items():
            if name in CHOICES:
                if value not in CHOICES[name]:
                    raise InputError(
                        f"model.{name} must be one of {', '.join(CHOICES[name])}, not {value!r}"
                    )
            elif name == "conv":
                if value and (value < 1 or value % 2 == 0):
                    raise InputError(f"model.conv must be 0 or odd, not {value}")
            elif name == "landmarks":
                if value < 0:
                    raise InputError(f"model.landmarks must be at least 0, not {value}")
            elif name == "dropout":
                if not 0 <= value < 1:
                    raise InputError(f"model.dropout must be in [0, 1), not {value}")
            elif name in ("input_scale", "norm_eps"):
                if not value > 0:
                    raise InputError(f"model.{name} must be above 0, not {value}")
            elif value < 1:
                raise InputError(f"model.{name} must be at least 1, not {value}")
        pairs = [("hidden", "heads"), ("decoder_hidden", "decoder_heads")]
        if self.tokenizer == "parcels":
            pairs.append(("timepoints", "patch"))
        for whole, part in pairs:
            if getattr(self, whole) % getattr(self, part):
                raise InputError(
                    f"model.{whole} ({getattr(self, whole)}) must be a multiple of model.{part} "
                    f"({getattr(self, part)})",
                    fix="change one of them in model.overrides or in the preset",
                )
        unit = 4 if self.tokenizer == "image" else 2
        if self.hidden % unit or self.decoder_hidden % unit:
            raise InputError(f"model.hidden and model.decoder_hidden must be multiples of {unit}")

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ModelConfig:
        """Read a mapping strictly: every size, no unknown key, whole numbers where due."""
        check_section(cls, content, "model")
        return cls(**content)
