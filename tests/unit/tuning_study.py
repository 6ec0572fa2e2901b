"""A study whose label can be read from single tokens, and a network that is soon fine-tuned."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from brainlm.layout import Study
from brainlm.model.checkpoint import build_model
from brainlm.model.config import ModelConfig
from brainlm.model.heads import LabelModel
from brainlm.model.mask import generator
from brainlm.train.checkpointing import Checkpoints
from brainlm.train.finetune import finetune
from brainlm.train.labelled import head_card, labelled_data
from brainlm.train.runtime import StopRequest
from brainlm.train.settings import FinetuneSettings, TargetSettings
from brainlm.train.tuning import Circumstances

from .synthetic_cohort import NETWORK, make_shards, parcel_table, write_recording, write_study

CONFIG = ModelConfig.from_dict({**NETWORK, "decoder_layers": 1, "dropout": 0.0})
SCORE = TargetSettings("score", "regression", None, None, "zscore")
GROUP = TargetSettings("group", "binary", "patient", None, "zscore")
SETTINGS = FinetuneSettings(
    targets=(SCORE, GROUP),
    mode="full",
    lora_rank=4,
    layer_decay=1.0,
    head="mlp",
    pool="mean",
    mask_ratio=0.5,
    dropout=0.1,
    class_weights="balanced",
    epochs=40,
    patience=10,
    batch_size=4,
    learning_rate=0.005,
    weight_decay=0.01,
    processes=1,
    repeats=1,
    forecast=False,
    forecast_timepoints=10,
)


def _signal(score: float, rng: np.random.Generator) -> np.ndarray:
    """The score is how much the left end swings, at any time."""
    noise = rng.standard_normal((60, 8))
    noise[:, :4] *= np.exp(0.8 * score)
    return (100 + noise).astype(np.float32)


def make_study(folder: Path, **sizes) -> Study:
    """24 subjects to train on, 8 to validate and 8 to test on, with shards."""
    study = write_study(folder / "study", {"train": 24, "val": 8, "test": 8}, **sizes)
    rng = np.random.default_rng(5)
    table = pd.read_parquet(study.path("recordings"))
    for row in table.itertuples():
        write_recording(study, row.recording_id, _signal(row.label_score, rng))
    make_shards(study)
    return study


def untrained(seed: int = 0, head: dict | None = None) -> LabelModel:
    model = build_model(CONFIG, parcel_table(), head or {"dropout": 0.1})
    assert isinstance(model, LabelModel)
    model.autoencoder.initialize(generator(seed))
    return model


def around_of(folder, report=lambda row: None, stop=None, every=100) -> Circumstances:
    checkpoints = Checkpoints(folder, lambda message: None)
    return Circumstances(checkpoints, report, stop or StopRequest(), checkpoint_every=every)


def tune(reader, target, folder=None, around=None, **changes):
    """Fine-tune; return the model, the data and the rows of validations."""
    data = labelled_data(reader, target, CONFIG.timepoints)
    settings = FinetuneSettings(**{**vars(SETTINGS), **changes})
    model = untrained(head=head_card(target, settings, data).to_dict())
    with tempfile.TemporaryDirectory() as temporary:
        around = around or around_of(Path(folder or temporary))
        finetune(
            model,
            reader,
            data,
            settings,
            kind=target.kind,
            mask_ratio=settings.mask_ratio,
            seed=1,
            around=around,
        )
        rows = [row for row in around.checkpoints.log.rows() if "val_loss" in row]
    return model, data, rows
