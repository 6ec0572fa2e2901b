"""Which weights of a pretrained network learn when it is fine-tuned, and how fast."""

from __future__ import annotations

from ..model.mae import MaskedAutoencoder
from ..model.mask import generator
from .lora import adapt
from .settings import FinetuneSettings

#: A peak rate that suits an encoder of this width.
_RATE, _WIDTH = 1e-3, 64


class PretrainedTask:
    """What tasks of fine-tuning have in common; `task.Task` says what the loop asks of them."""

    settings: FinetuneSettings
    #: Whether the decoder is used, and learns too.
    decodes: bool

    @property
    def autoencoder(self) -> MaskedAutoencoder:
        """The pretrained part of the network."""
        raise NotImplementedError

    @property
    def window(self) -> int:
        """Time points of the network's windows."""
        return self.autoencoder.config.timepoints

    @property
    def usual_rate(self) -> float:
        """In inverse proportion to the width.

        Adam's steps of that size change what a network says by as much, however wide it is (Yang
        et al. 2022, "Tensor programs V").
        """
        return _RATE * _WIDTH / self.autoencoder.config.hidden

    def choose_learners(self, seed: int) -> None:
        """By `finetune.mode`."""
        choose_learners(self.autoencoder, self.settings, decodes=self.decodes, seed=seed)

    def rate_share(self, name: str) -> float:
        """`finetune.layer_decay` per layer below the head."""
        return rate_share(name, len(self.autoencoder.encoder), self.settings.layer_decay)


def choose_learners(
    autoencoder: MaskedAutoencoder, settings: FinetuneSettings, *, decodes: bool, seed: int
) -> None:
    """By `finetune.mode`: what lies behind the encoder learns always (the decoder if it is used).

    With lora the decoder, where it is used, learns by low rank as well.
    """
    autoencoder.requires_grad_(settings.mode == "full")
    autoencoder.decoder.requires_grad_(decodes and settings.mode != "lora")
    if settings.mode == "lora":
        parts = [autoencoder.encoder, *([autoencoder.decoder] if decodes else [])]
        for number, part in enumerate(parts):
            adapt(part, settings.lora_rank, generator(seed, "lora", number))


def rate_share(name: str, layers: int, decay: float) -> float:
    """The share of the learning rate that a weight gets: `decay` per layer below the head.

    As BEiT and ViT-MAE do (Bao et al. 2022): tokens are layer 0, blocks 1 to `layers`.
    """
    parts = name.removeprefix("autoencoder.").split(".")
    if parts[0] == "encoder":
        return decay ** (layers - int(parts[1]))
    below = parts[0] in ("tokenizer", "cls")
    return decay ** (layers + 1) if below else 1.0
