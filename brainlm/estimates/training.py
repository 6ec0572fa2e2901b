"""What a pretraining computes, in operations: seconds are for the GPU at hand to say."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import Config, load_preset


@dataclass(frozen=True)
class Training:
    """A pretraining."""

    preset: str
    windows: int  # of an epoch
    flops: float  # of an epoch: matrix products, forward and backward
    epochs: int


def training_of(config: Config, runs: int) -> Training | None:
    """The pretraining of so many runs; None where a released model is taken instead."""
    # These load PyTorch, which takes seconds: only who asks for a training waits for it.
    from ..model.config import ModelConfig
    from ..model.tokenizer import count_shown
    from ..train.masking import Masking
    from ..train.speed import training_flops

    if config.released.source:
        return None
    options = config.pretrain
    network = ModelConfig.from_dict(load_preset(config.model))
    shown = count_shown(network, options.mask, options.mask_ratio, network.parcels)
    masking = Masking(options.mask, options.mask_ratio, shown, guessed=options.guessed)
    windows = max(1, round(runs * config.split.train)) * options.windows_per_recording
    flops = training_flops(network, masking) * windows
    return Training(config.model.preset, windows, flops, options.epochs)


def weights_of(config: Config) -> int:
    """How many numbers the network's matrices hold, to a few percent: for its size on the disk."""
    shape = load_preset(config.model)

    def blocks(count: int, width: int, inner: int) -> int:
        return count * (4 * width**2 + 2 * width * inner)

    encoder = blocks(shape["layers"], shape["hidden"], shape["mlp"])
    return encoder + blocks(shape["decoder_layers"], shape["decoder_hidden"], shape["decoder_mlp"])
