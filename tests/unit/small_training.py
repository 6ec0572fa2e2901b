"""A small training, for tests: its options, and the bytes that it ends with."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import torch

from brainlm.model.checkpoint import save_weights
from brainlm.model.config import ModelConfig
from brainlm.train.checkpointing import Checkpoints
from brainlm.train.pretrain import pretrain
from brainlm.train.runtime import StopRequest
from brainlm.train.settings import (
    PretrainSettings,
)

from .synthetic_cohort import NETWORK

SPLITS = {"train": 5, "val": 2, "test": 2}
CONFIG = ModelConfig.from_dict({**NETWORK, "decoder_layers": 1, "dropout": 0.1})
SETTINGS = PretrainSettings(
    run="brainlm",
    epochs=4,
    windows_per_recording=1,
    batch_size=2,
    accumulate=1,
    optimizer="adamw",
    learning_rate=0.005,
    base_learning_rate=None,
    weight_decay=0.05,
    warmup=0.1,
    mask="random",
    mask_ratio=0.75,
    guessed=1.0,
    loss="mse",
    clip_norm=1.0,
    ema_decay=0.0,
    precision="auto",
    compile=False,
    attention="sdpa",
    checkpoint_blocks=False,
    data="auto",
    processes=1,
    nodes=1,
    deterministic=True,
    parallel="ddp",
    checkpoint_every=2,
    keep_checkpoints=2,
    validate_windows=None,
    validate_every=None,
    stop_before_end_s=120.0,
    device="cpu",
)
STEPS = 12  # 4 epochs of ceil(5 / 2) steps


class KilledError(Exception):
    """Stands for SIGKILL: nothing in the loop catches it."""


def train_through_kills(
    reader, folder: Path, seed: int, between: tuple[int, int], **given
) -> tuple[object, int]:
    """What `train` ends with, killed again and again after so many rows of the log; and how often.

    The row is drawn by `seed`, from the first to the last of `between`.
    """
    draw = random.Random(seed)
    kills = 0
    while True:
        left = draw.randint(*between)

        def report(row) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise KilledError

        try:
            return train(reader, folder, report=report, **given), kills
        except KilledError:
            kills += 1


def with_(**changes) -> PretrainSettings:
    """The options with some others."""
    return replace(SETTINGS, **changes)


def train(
    reader,
    folder: Path,
    *,
    settings=SETTINGS,
    config=CONFIG,
    report=lambda row: None,
    stop=None,
    say=str,
):
    """Train; return what ends up in the files: weights and log."""
    checkpoints = Checkpoints.below(folder, "fingerprint", say)
    model = pretrain(
        reader,
        config,
        settings,
        seed=3,
        device=torch.device("cpu"),
        checkpoints=checkpoints,
        report=report,
        stop=stop or StopRequest(),
    )
    save_weights(folder / "model.safetensors", model)
    return (folder / "model.safetensors").read_bytes(), checkpoints.log.path.read_bytes()
