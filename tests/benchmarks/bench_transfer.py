"""What pretraining is good for: `python -m tests.benchmarks.bench_transfer`.

Subjects of the phantom's network model (every fourth parcel; 300 volumes at 0.72 s; white noise of
a quarter of the signal's variance), robust-scaled by the train subjects. A small network is
pretrained on all 160 train subjects. It is measured beside one that starts untrained,

- forecasting the last 10 of 100 time points, fine-tuned on all train subjects;
- fine-tuned on the age of 16 or 32 of them (8 or 16 more to validate on) as `finetune` has it by
  default;
- frozen: ridge regression on its vectors, of each trait, from 16 to 128 labels.

Ridge regression on connectivity stands beside. R2 on 64 test subjects that nothing else saw (sex is
0 or 1); cohort, weights and all draws are other ones with each seed. Intervals are those of
Student's t over the seeds.
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
from brainlm.evaluate.label_baselines import Material, linear_on_connectivity
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
from brainlm.train.label_scores import regression_scores
from brainlm.train.labelled import LabelledData, head_card, labelled_data
from brainlm.train.pretrain import pretrain
from brainlm.train.runtime import StopRequest, set_up
from brainlm.train.settings import FinetuneSettings, PretrainSettings, read_finetune, read_settings
from brainlm.train.tuning import Circumstances

SUBJECTS = {"train": 160, "val": 24, "test": 64}
TRAITS = ("age", "sex", "score")
LABELLED = (16, 32, 64, 128)
TUNED = ("age16", "age32")
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
FORECAST = {"batch_size": 16, "learning_rate": 1e-3, "forecast_timepoints": 10}
FORECAST_EPOCHS = (5, 40)


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
    for name in table.filter(like=": pretrained"):
        task = name.removesuffix(": pretrained")
        gain = table[name] - table[f"{task}: untrained"]
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
    reader = phantom_cohort(folder / "shards", seed)
    config = ModelConfig.from_dict({"parcels": len(reader.parcels), **NETWORK})
    untrained = build_model(config, reader.parcels)
    assert isinstance(untrained, MaskedAutoencoder)
    untrained.initialize(generator(seed, "weights"))
    pretrained = _pretrained(reader, config, seed, folder / "pretrain", device)
    found: dict[str, float] = {}
    for name, start in (("pretrained", pretrained), ("untrained", untrained)):
        own = (reader, start, seed, folder / name, device)
        for epochs in FORECAST_EPOCHS:
            found[f"forecast, {epochs} epochs: {name}"] = _forecast(*own, epochs)
        for label in TUNED:
            found[f"{label}, fine-tuned: {name}"] = _finetune(*own, label)
        vectors = _vectors(reader, start.to(device).eval())
        for label in _labels():
            found[f"{label}, ridge on vectors: {name}"] = _probe(reader, label, vectors)
    for label in _labels():
        _, data = _labelled(reader, label)
        given = Material(reader, data, label, "regression", most=1000, seed=seed)
        guess = linear_on_connectivity(given)
        found[f"{label}, ridge on connectivity"] = _r2(data, guess)
    return found


def _labels() -> list[str]:
    """Columns of labels: a trait, and how many train subjects have it."""
    return [f"{trait}{count}" for trait in TRAITS for count in LABELLED]


def _pretrained(
    reader: ShardReader, config: ModelConfig, seed: int, folder: Path, device: torch.device
) -> MaskedAutoencoder:
    content = Pretrain(**PRETRAIN).model_dump(mode="json")
    return pretrain(
        reader,
        config,
        read_settings(PretrainSettings, "pretrain", content),
        seed=seed,
        device=device,
        checkpoints=Checkpoints(folder, lambda message: None),
        report=lambda row: None,
        stop=StopRequest(),
    )


def phantom_cohort(folder: Path, seed: int) -> ShardReader:
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
        rows.append({"split": split, **_labels_of(traits, split, place)})
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


def _labels_of(traits: Traits, split: str, place: int) -> dict[str, float]:
    """A subject's labels; the first ones of train have all, and half as many of validation."""
    values = {"age": traits.age, "sex": float(traits.sex == "M"), "score": traits.score}
    return {
        f"label_{trait}{count}": value
        if place < {"train": count, "val": max(8, count // 2)}.get(split, place + 1)
        else np.nan
        for trait, value in values.items()
        for count in LABELLED
    }


def _around(folder: Path) -> Circumstances:
    checkpoints = Checkpoints(folder, lambda message: None)
    return Circumstances(checkpoints, lambda row: None, StopRequest(), checkpoint_every=10**9)


def _forecast(
    reader: ShardReader,
    start: MaskedAutoencoder,
    seed: int,
    folder: Path,
    device: torch.device,
    epochs: int,
) -> float:
    """R2 of all entries of the future."""
    settings = read_finetune(Finetune(**FORECAST, epochs=epochs).model_dump(mode="json"))
    model = build_model(start.config, reader.parcels)
    assert isinstance(model, MaskedAutoencoder)
    model.load_state_dict(start.state_dict())
    model.to(device)
    around = _around(folder / f"forecast-{epochs}")
    finetune_forecast(model, reader, settings, seed=seed, around=around)
    windows = even_windows(reader.lengths("test"), start.config.timepoints)
    return forecast_scores(forecast_task(model, reader, settings), windows)["r2"]


def _labelled(reader: ShardReader, label: str) -> tuple[FinetuneSettings, LabelledData]:
    content = Finetune(targets=({"name": label},)).model_dump(mode="json")
    settings = read_finetune(content)
    return settings, labelled_data(reader, settings.target(label), NETWORK["timepoints"])


def _finetune(
    reader: ShardReader,
    start: MaskedAutoencoder,
    seed: int,
    folder: Path,
    device: torch.device,
    label: str,
) -> float:
    """R2 of a label, fine-tuned as the config has it by default."""
    settings, data = _labelled(reader, label)
    head = head_card(settings.target(label), settings, data)
    model = build_model(start.config, reader.parcels, head.to_dict())
    assert isinstance(model, LabelModel)
    model.autoencoder.load_state_dict(start.state_dict())
    model.to(device)
    look = {"mask_ratio": settings.mask_ratio, "seed": seed}
    around = _around(folder / label)
    finetune(model, reader, data, settings, kind="regression", around=around, **look)
    outputs = predict(model, reader, data.lengths["test"], batch_size=16, **look)
    guess = np.stack([outputs[name] for name in sorted(data.lengths["test"])])
    return _r2(data, data.scale.to_label(guess))


def _vectors(reader: ShardReader, model: MaskedAutoencoder) -> dict[str, np.ndarray]:
    """Recording -> the mean over tokens and windows, (hidden,)."""
    names = [name for split in ("train", "test") for name in reader.lengths(split)]
    return {name: embed_series(model, reader.series(name)).pooled["mean"] for name in names}


def _probe(reader: ShardReader, label: str, vectors: dict[str, np.ndarray]) -> float:
    _, data = _labelled(reader, label)
    train, test = (sorted(data.lengths[split]) for split in ("train", "test"))
    features, test_features = span_of_train(
        *(np.stack([vectors[name] for name in names]) for names in (train, test))
    )
    truth = data.truth(train)
    guess = predict_from_features(features, truth, train, test_features, kind="regression")
    return _r2(data, guess)


def _r2(data: LabelledData, guess: np.ndarray) -> float:
    return regression_scores(data.truth(sorted(data.lengths["test"])), guess)["r2"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    main(tuple(parser.parse_args().seeds))
