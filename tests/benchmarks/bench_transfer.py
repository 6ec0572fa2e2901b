"""What pretraining is good for: `python -m tests.benchmarks.bench_transfer`.

Subjects of the phantom's network model (every fourth parcel; 300 volumes at 0.72 s; white noise of
a quarter of the signal's variance), robust-scaled by the train subjects. A small network is
pretrained on all train subjects, of whom few have a label, and then learns, beside one that starts
untrained and goes through the very same fine-tuning,

- to forecast the last 10 of 100 time points (all train subjects);
- the subjects' age (those with a label alone), by a linear head on the frozen network;

and ridge regression reads the age from the vectors of either network, frozen, and from
connectivity. R2 on test subjects that nothing else saw; cohort, weights and all draws are other
ones with each seed. Intervals are those of Student's t over the seeds.
A seed took 7 minutes on a busy core.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats

from brainlm.atlas import load_table
from brainlm.config import Finetune, Pretrain
from brainlm.evaluate.baselines.connectivity import predict_from_features, span_of_train
from brainlm.evaluate.embeddings import embed_series
from brainlm.evaluate.label_scores import baselines
from brainlm.evaluate.statistics import regression_scores
from brainlm.model.checkpoint import build_model
from brainlm.model.config import ModelConfig
from brainlm.model.heads import LabelModel
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import generator
from brainlm.phantom.network import simulate
from brainlm.phantom.parameters import stream
from brainlm.phantom.traits import AGE_RANGE, SCORE_RANGE, Traits
from brainlm.provenance import sha256_file
from brainlm.shards.reader import INDEX_NAME, NORMALIZATION_NAME, PARCELS_NAME, ShardReader
from brainlm.shards.sampler import even_windows
from brainlm.shards.scaler import Scaler, save_scaler
from brainlm.shards.tensorfile import save_tensors
from brainlm.shards.writer import SCHEMA_VERSION
from brainlm.train.checkpointing import Checkpoints
from brainlm.train.finetune import finetune, predict
from brainlm.train.forecasting import finetune_forecast, forecast_scores, forecast_task
from brainlm.train.labelled import LabelledData, head_card, labelled_data
from brainlm.train.pretrain import pretrain
from brainlm.train.runtime import StopRequest, set_up
from brainlm.train.settings import FinetuneSettings, PretrainSettings, read_finetune, read_settings
from brainlm.train.tuning import Circumstances

SUBJECTS = {"train": 160, "val": 24, "test": 64}
LABELLED, LABELLED_VAL = 32, 16
VOLUMES, TR, NOISE, EVERY = 300, 0.72, 0.25, 4
SEEDS = (0, 1, 2)
NETWORK = {
    "timepoints": 100,
    "patch": 10,
    "hidden": 64,
    "layers": 2,
    "heads": 2,
    "mlp": 128,
    "decoder_hidden": 32,
    "decoder_layers": 1,
    "decoder_heads": 1,
    "decoder_mlp": 64,
    "dropout": 0.0,
}
MASK_RATIO = 0.75
PRETRAIN = {"epochs": 60, "batch_size": 16, "learning_rate": 2e-3, "precision": "float32"}
FORECAST = {"epochs": 5, "batch_size": 16, "learning_rate": 1e-3, "forecast_timepoints": 10}
LABEL = {
    "mode": "head",
    "head": "linear",
    "epochs": 40,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "patience": 40,
}


def main(seeds: tuple[int, ...] = SEEDS) -> None:
    device = set_up("auto", 1)
    rows = []
    for seed in seeds:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            rows.append(_measure(Path(folder), seed, device))
        told = ", ".join(f"{name} {value:.3f}" for name, value in rows[-1].items())
        print(f"    seed {seed} ({time.perf_counter() - began:.0f} s): {told}", flush=True)
    table = pd.DataFrame(rows)
    for name in table:
        print(f"    {name:34s} R2 {_with_interval(table[name])}")
    for task in ("forecast", "age, linear head", "age, ridge on vectors"):
        gain = table[f"{task}: pretrained"] - table[f"{task}: untrained"]
        print(f"pretraining brings {_with_interval(gain)} of R2 ({task})")


def _with_interval(values: pd.Series) -> str:
    """Mean and 95% interval of the mean over seeds."""
    n = len(values)
    if n < 2:
        return f"{values.mean():.3f}"
    half = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5
    return f"{values.mean():.3f} [{values.mean() - half:.3f}, {values.mean() + half:.3f}]"


def _measure(folder: Path, seed: int, device: torch.device) -> dict[str, float]:
    """R2 on the test subjects of one cohort."""
    reader = _cohort(folder / "shards", seed)
    config = ModelConfig.from_dict({"parcels": len(reader.parcels), **NETWORK})
    settings = read_settings(
        PretrainSettings, "pretrain", Pretrain(**PRETRAIN).model_dump(mode="json")
    )
    pretrained = pretrain(
        reader,
        config,
        settings,
        seed=seed,
        device=device,
        checkpoints=Checkpoints(folder / "pretrain", lambda message: None),
        report=lambda row: None,
        stop=StopRequest(),
    )
    untrained = build_model(config, reader.parcels)
    assert isinstance(untrained, MaskedAutoencoder)
    untrained.initialize(generator(seed, "weights"))
    found: dict[str, float] = {}
    for name, start in (("pretrained", pretrained), ("untrained", untrained)):
        own = (reader, start, seed, folder / name, device)
        found[f"forecast: {name}"] = _forecast(*own)
        found[f"age, linear head: {name}"] = _finetune_age(*own)
        found[f"age, ridge on vectors: {name}"] = _probe_age(reader, start.to(device))
    _, data = _age(reader)
    guess = baselines(reader, data, "regression")[0]["connectivity"]
    found["age, ridge on connectivity"] = _r2(data, guess)
    return found


def _cohort(folder: Path, seed: int) -> ShardReader:
    """A folder of shards, as `brainlm index-shards` leaves it."""
    folder.mkdir(parents=True)
    table, times = load_table(), TR * np.arange(VOLUMES)
    splits = [split for split, count in SUBJECTS.items() for _ in range(count)]
    rows, people = [], []
    for number, split in enumerate(splits):
        rng = stream(seed, "bench transfer", str(number))
        traits = Traits(rng.uniform(*AGE_RANGE), "FM"[number % 2], rng.uniform(*SCORE_RANGE))
        clean = simulate(table, traits, VOLUMES * TR, 1.0, rng).at(times)[:, ::EVERY]
        noise = clean.std(axis=0) * NOISE**0.5
        people.append(clean + noise * rng.standard_normal(clean.shape))
        place = number - splits.index(split)
        labelled = place < {"train": LABELLED, "val": LABELLED_VAL}.get(split, len(splits))
        rows.append({"split": split, "label_age": traits.age if labelled else np.nan})
    series = np.stack(people)
    series -= series.mean(axis=1, keepdims=True)
    low, median, high = np.percentile(series[: SUBJECTS["train"]], [25, 50, 75], axis=(0, 1))
    scaled = ((series - median) / (high - low)).astype(np.float16)

    parcels = table.iloc[::EVERY].reset_index(drop=True)
    parcels.to_csv(folder / PARCELS_NAME, sep="\t", index=False)
    usable = np.ones(len(parcels), bool)
    save_scaler(folder / NORMALIZATION_NAME, Scaler(median, high - low, usable))
    index = pd.DataFrame(rows)
    index["recording_id"] = [f"sub-{number:03d}_task-rest" for number in range(len(rows))]
    index["subject"] = [f"{number:03d}" for number in range(len(rows))]
    index["shard"] = index["split"] + "-00000.safetensors"
    index["n_timepoints"], index["n_parcels"] = VOLUMES, len(parcels)
    index["tr"], index["mean_fd"] = TR, 0.1
    for split, part in index.groupby("split"):
        about = {
            "schema_version": SCHEMA_VERSION,
            "split": split,
            "dtype": "float16",
            "atlas_sha256": sha256_file(folder / PARCELS_NAME),
            "scaler_sha256": sha256_file(folder / NORMALIZATION_NAME),
            "tr": dict.fromkeys(part["recording_id"], TR),
        }
        tensors = {part["recording_id"][row]: scaled[row] for row in part.index}
        save_tensors(folder / f"{split}-00000.safetensors", tensors, about)
    index.to_parquet(folder / INDEX_NAME, index=False)
    return ShardReader(folder / INDEX_NAME)


def _around(folder: Path) -> Circumstances:
    checkpoints = Checkpoints(folder, lambda message: None)
    return Circumstances(checkpoints, lambda row: None, StopRequest(), checkpoint_every=10**9)


def _forecast(
    reader: ShardReader, start: MaskedAutoencoder, seed: int, folder: Path, device: torch.device
) -> float:
    """R2 of all entries of the future."""
    settings = read_finetune(Finetune(**FORECAST).model_dump(mode="json"))
    model = build_model(start.config, reader.parcels)
    assert isinstance(model, MaskedAutoencoder)
    model.load_state_dict(start.state_dict())
    model.to(device)
    around = _around(folder / "forecast")
    finetune_forecast(model, reader, settings, seed=seed, around=around)
    windows = even_windows(reader.lengths("test"), start.config.timepoints)
    return forecast_scores(forecast_task(model, reader, settings), windows)["r2"]


def _age(reader: ShardReader) -> tuple[FinetuneSettings, LabelledData]:
    content = Finetune(**LABEL, targets=({"name": "age"},)).model_dump(mode="json")
    settings = read_finetune(content)
    return settings, labelled_data(reader, settings.target("age"), NETWORK["timepoints"])


def _finetune_age(
    reader: ShardReader, start: MaskedAutoencoder, seed: int, folder: Path, device: torch.device
) -> float:
    settings, data = _age(reader)
    head = head_card(settings.target("age"), settings, data)
    model = build_model(start.config, reader.parcels, head.to_dict())
    assert isinstance(model, LabelModel)
    model.autoencoder.load_state_dict(start.state_dict())
    model.to(device)
    finetune(
        model,
        reader,
        data,
        settings,
        kind="regression",
        mask_ratio=MASK_RATIO,
        seed=seed,
        around=_around(folder / "age"),
    )
    outputs = predict(
        model, reader, data.lengths["test"], mask_ratio=MASK_RATIO, seed=seed, batch_size=16
    )
    guess = np.stack([outputs[name] for name in sorted(data.lengths["test"])])
    return _r2(data, data.scale.to_label(guess))


def _probe_age(reader: ShardReader, model: MaskedAutoencoder) -> float:
    _, data = _age(reader)
    train, test = (sorted(data.lengths[split]) for split in ("train", "test"))
    vectors = [
        np.stack([embed_series(model.eval(), reader.series(n)).pooled["mean"] for n in names])
        for names in (train, test)
    ]
    features, test_features = span_of_train(*vectors)
    guess = predict_from_features(
        features, data.truth(train), train, test_features, kind="regression"
    )
    return _r2(data, guess)


def _r2(data: LabelledData, guess: np.ndarray) -> float:
    return regression_scores(data.truth(sorted(data.lengths["test"])), guess)["r2"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    main(tuple(parser.parse_args().seeds))
