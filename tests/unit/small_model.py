"""A model's folder with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from brainlm.model.checkpoint import ModelCard, build_model, save_surroundings, save_weights
from brainlm.model.config import ModelConfig
from brainlm.model.heads import LabelModel
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import generator
from brainlm.shards.scaler import make_scaler, save_scaler

SIZES = {
    "parcels": 8,
    "timepoints": 40,
    "patch": 10,
    "hidden": 32,
    "layers": 2,
    "heads": 2,
    "mlp": 32,
    "decoder_hidden": 32,
    "decoder_layers": 1,
    "decoder_heads": 1,
    "decoder_mlp": 32,
    "dropout": 0.1,
}
HEAD = {
    "name": "age",
    "kind": "regression",
    "positive": None,
    "mean": 50.0,
    "sd": 9.0,
    "dropout": 0.1,
}


def places(parcels: int) -> pd.DataFrame:
    """Parcels anywhere in the head."""
    xyz = np.random.default_rng(1).uniform(-70, 70, (parcels, 3)).round()
    table = pd.DataFrame(xyz, columns=["x", "y", "z"])
    table.insert(0, "name", [f"P{number}" for number in range(parcels)])
    return table


def network(seed: int = 0, **sizes: object) -> MaskedAutoencoder:
    """An autoencoder with random weights, ready to be used."""
    config = ModelConfig.from_dict({**SIZES, **sizes})
    model = build_model(config, places(config.parcels))
    assert isinstance(model, MaskedAutoencoder)
    model.initialize(generator(seed))
    return model.eval()


def write_model(
    folder: Path, *, head: bool = False, released: dict | None = None, readme: str = "# small\n"
) -> Path:
    """A model's folder."""
    model = network()
    data = folder.parent / f"data-of-{folder.name}"
    data.mkdir(parents=True)
    places(SIZES["parcels"]).to_csv(data / "parcels.tsv", sep="\t", index=False)
    statistics = np.random.default_rng(2).uniform(1, 2, (2, SIZES["parcels"]))
    save_scaler(data / "normalization.safetensors", make_scaler(*statistics, {"tr": 0.8}))
    save_surroundings(
        folder,
        config=model.config,
        card=ModelCard(0.75, "0" * 64, HEAD if head else None, released),
        data_folder=data,
        readme=readme,
    )
    save_weights(folder / "model.safetensors", LabelModel(model, 0.1) if head else model)
    return folder
