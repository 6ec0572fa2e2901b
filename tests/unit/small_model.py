"""A model's folder as training leaves it, with drawn weights, in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from brainlm.model.checkpoint import ModelCard, build_model, save_surroundings, save_weights
from brainlm.model.config import ModelConfig
from brainlm.model.label_unit import HeadCard
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import generator
from brainlm.shards.scaler import make_scaler, save_scaler

from .synthetic_cohort import NETWORK, parcel_table, simulate

TR = 2.0
IMAGE = {"tokenizer": "image", "patch": 4, "decoder": "full", "input_scale": 2.0}
AGE = HeadCard("age", "regression", None, mean=50.0, sd=10.0, dropout=0.1).to_dict()


def write_model(
    folder: Path,
    head: dict[str, Any] | None = None,
    tr: float | None = TR,
    released: dict[str, Any] | None = None,
    table: Path | None = None,
    **sizes: Any,
) -> Path:
    """Eight parcels (or those of `table`) and windows of 40, as in `synthetic_cohort`.

    `sizes` change the network.
    """
    config = ModelConfig.from_dict(
        {**NETWORK, "layers": 2, "heads": 2, "decoder_layers": 1, "dropout": 0.0, **sizes}
    )
    if table:
        parcels = pd.read_csv(table, sep="\t")
    else:
        parcels = parcel_table()
        parcels["y"] = [30, -20, 10, -20, 0, 50, -60, 5]  # an image's rows are not the atlas's
    data = folder.parent / f"{folder.name}-data"
    data.mkdir(parents=True)
    parcels.to_csv(data / "parcels.tsv", sep="\t", index=False)
    spread = np.linspace(10, 16, len(parcels))
    scaler = make_scaler(np.linspace(-1, 1, len(parcels)), spread, {"tr": tr})
    save_scaler(data / "normalization.safetensors", scaler)
    model = build_model(config, parcels, head)
    autoencoder = model if isinstance(model, MaskedAutoencoder) else model.autoencoder
    autoencoder.initialize(generator(1))
    with torch.no_grad():  # nothing is 0: each weight must count
        for name, weight in model.named_parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator("small", name))
    save_surroundings(
        folder,
        config=config,
        card=ModelCard(0.5, None, head, released),
        data_folder=data,
        readme="# small\n",
    )
    save_weights(folder / "model.safetensors", model)
    return folder


def series(volumes: int = 40, seed: int = 0) -> np.ndarray:
    """A raw recording (volumes, parcels), float32."""
    return simulate(0.4, volumes, np.random.default_rng(seed))
