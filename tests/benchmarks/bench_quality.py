"""What is learned in equal time: `python -m tests.benchmarks.bench_quality`.

Subjects of the phantom's network model, each followed for 400 volumes at 0.72 s, plus as much
white noise as a quarter of the signal's variance; robust-scaled by the train subjects; eight
others to test on. Networks of the 111M's kind, made small, train for the same CPU seconds each
on one thread (AdamW, a cosine over that time, three quarters hidden): with the authors' padding to
a square, without it, and without it with the cross decoder, which in each step guesses all that is
hidden or a quarter of it. Masked R2 over the entries with data of fixed test windows, three seeds;
what no model could exceed is the share of variance that is not noise.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from brainlm.atlas import load_table
from brainlm.model.config import ModelConfig
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import ask_for, count_visible, generator, random_mask
from brainlm.phantom.network import simulate
from brainlm.phantom.parameters import stream
from brainlm.phantom.traits import AGE_RANGE, SCORE_RANGE, Traits
from brainlm.train.optim import learning_rate_at, make_optimizer, set_learning_rate
from brainlm.train.validation import masked_sums, reconstruct, scores
from tests.benchmarks.gpu_model import read_preset

TRAIN, TEST, VOLUMES, TR, NOISE = 64, 8, 400, 0.72, 0.25
BATCH, RATE, MASK_RATIO, SEEDS = 8, 1e-3, 0.75, (0, 1, 2)
A_QUARTER = "no padding, cross, a quarter guessed"
SMALL = {
    "hidden": 128,
    "layers": 3,
    "heads": 2,
    "mlp": 512,
    "decoder_hidden": 64,
    "decoder_layers": 2,
    "decoder_heads": 2,
    "decoder_mlp": 256,
}


def main(seconds: float = 120.0) -> None:
    torch.set_num_threads(1)
    published = replace(read_preset("111m", **SMALL), padding="square", decoder="full")
    kinds = {
        "as published: square, full": published,
        "no padding, full": replace(published, padding="none"),
        "no padding, cross": replace(published, padding="none", decoder="cross"),
        A_QUARTER: replace(published, padding="none", decoder="cross"),
    }
    xyz = torch.tensor(load_table()[["x", "y", "z"]].to_numpy(dtype=float))
    found: dict[str, list[float]] = {name: [] for name in kinds}
    steps: dict[str, list[int]] = {name: [] for name in kinds}
    for seed in SEEDS:
        train, test = _cohort(seed)
        for name, config in kinds.items():
            share = 0.25 if name == A_QUARTER else 1.0
            model, done = _train(config, xyz, train, seed, seconds, share)
            found[name].append(_masked_r2(model, test))
            steps[name].append(done)
            print(
                f"    seed {seed}, {name}: R2 {found[name][-1]:.3f} after {done} steps", flush=True
            )
    print(f"masked R2 after {seconds:.0f} CPU s, seeds {SEEDS}; at most {1 / (1 + NOISE):.2f}")
    for name, values in found.items():
        each = ", ".join(f"{value:.3f}" for value in values)
        print(f"    {name:36s} {np.mean(values):.3f} ({each}), {np.mean(steps[name]):.0f} steps")


def _cohort(seed: int) -> tuple[Tensor, Tensor]:
    """Robust-scaled series (subjects, parcels, volumes) to train and to test on."""
    table, people = load_table(), []
    times = TR * np.arange(VOLUMES)
    for subject in range(TRAIN + TEST):
        rng = stream(seed, "bench quality", str(subject))
        traits = Traits(rng.uniform(*AGE_RANGE), "FM"[subject % 2], rng.uniform(*SCORE_RANGE))
        clean = simulate(table, traits, VOLUMES * TR, 1.0, rng).at(times).T
        noise = clean.std(axis=1, keepdims=True) * NOISE**0.5
        people.append(clean + noise * rng.standard_normal(clean.shape))
    series = np.stack(people)
    series -= series.mean(axis=2, keepdims=True)
    low, median, high = np.percentile(series[:TRAIN], [25, 50, 75], axis=(0, 2))
    scaled = (series - median[:, None]) / (high - low)[:, None]
    both = torch.from_numpy(scaled.astype(np.float32))
    return both[:TRAIN], both[TRAIN:]


def _train(
    config: ModelConfig, xyz: Tensor, train: Tensor, seed: int, seconds: float, share: float
) -> tuple[MaskedAutoencoder, int]:
    """Train for so many CPU seconds; return the model and its number of steps."""
    model = MaskedAutoencoder(config, xyz)
    model.initialize(generator(seed, "weights"))
    model.train()
    optimizer = make_optimizer(dict(model.named_parameters()), RATE, 0.05, "adamw")
    available = model.tokenizer.available(torch.ones(BATCH, config.parcels, dtype=torch.bool))
    visible = count_visible(MASK_RATIO, model.tokenizer.tokens)
    draw = generator(seed, "windows")
    began, step = time.process_time(), 0
    while (spent := time.process_time() - began) < seconds:
        rate = learning_rate_at(math.floor(1000 * spent / seconds), 1000, RATE, 0.05)
        set_learning_rate(optimizer, rate)
        subjects = torch.randint(len(train), (BATCH,), generator=draw).tolist()
        starts = torch.randint(VOLUMES - config.timepoints, (BATCH,), generator=draw).tolist()
        signal = torch.stack(
            [train[i, :, t : t + config.timepoints] for i, t in zip(subjects, starts, strict=True)]
        )
        loss = model(signal, ask_for(random_mask(available, visible, draw), share)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
    return model.eval(), step


def _masked_r2(model: MaskedAutoencoder, test: Tensor) -> float:
    """Pooled over both halves of the test subjects, four masks each."""
    tokenizer, length = model.tokenizer, model.config.timepoints
    available = tokenizer.available(torch.ones(len(test), model.config.parcels, dtype=torch.bool))
    visible = count_visible(MASK_RATIO, tokenizer.tokens)
    total = 0.0
    for start in (0, VOLUMES - length):
        for draw in range(4):
            mask = random_mask(available, visible, generator("test", start, draw))
            result = reconstruct(model, test[:, :, start : start + length], mask)
            parts = (result.truth, result.predicted)
            truth, guess = (tokenizer.paste(part, mask.hidden) for part in parts)
            total = total + masked_sums(truth, guess).sum((0, 1))
    return float(scores(total)["r2"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=120.0, help="CPU seconds of each training")
    main(parser.parse_args().seconds)
