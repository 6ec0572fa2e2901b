"""A step of training, beside the authors' networks: `python -m tests.benchmarks.bench_model`.

Forward, backward and AdamW on the CPU, two threads, float32, three quarters hidden. What the
authors train is, for the image models, ViTMAE of `transformers` on 432 x 432 x 3 (batch 4; their
release of `transformers` had no other attention than the eager one); for the 13M, Nystromformer
layers, whose `transformers` version stands here between plain embeddings (batch 1). Each network
is built in a process of its own, the processes take turns, and each gives CPU seconds per
recording, the best of all its steps, and the largest memory of its process. No gradient lives
through a forward pass, as in the `Trainer` of `transformers`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUNDS, STEPS, THREADS = 3, 3, 2
#: Ours: preset; padding, or whether layers have convolutions; decoder; share of the hidden tokens
#: that a step guesses (all).
IMAGE = (
    "ViTMAE eager",
    "ViTMAE sdpa",
    "111m square full",
    "111m none full",
    "111m none cross",
    "111m none cross 0.25",
)
PARCELS = (
    "Nystromformer",
    "13m conv full",
    "13m conv cross",
    "13m plain cross",
    "13m plain cross 0.25",
)


def main() -> None:
    for title, names, batch in (("111M", IMAGE, 4), ("13M", PARCELS, 1)):
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(ROUNDS):
            for name in names:
                found[name].append(_in_a_process(name, batch))
        best = {
            name: {key: min(round_[key] for round_ in rounds) for key in rounds[0]}
            for name, rounds in found.items()
        }
        print(f"{title}, batch {batch}, per recording; ratios to {names[0]}")
        for name in names:
            theirs, ours = best[names[0]], best[name]
            print(
                f"    {name:20s} CPU {ours['cpu']:6.2f} s ({theirs['cpu'] / ours['cpu']:4.1f}x)   "
                f"wall {ours['wall']:6.2f} s ({theirs['wall'] / ours['wall']:4.1f}x)   "
                f"memory {ours['peak']:5.2f} GB ({ours['peak'] / theirs['peak']:.2f})"
            )


def _in_a_process(name: str, batch: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.bench_model", name, str(batch)]
    threads = {"OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **threads}
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def one(name: str, batch: int) -> None:
    """Build one network, train a few steps, print what they took."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    if name.startswith("ViTMAE"):
        network, loss_of = _vit_mae(name.split()[1], batch)
    elif name == "Nystromformer":
        network, loss_of = _nystromformer(batch)
    else:
        network, loss_of = _ours(batch, *name.split())
    fused = name[0].isdigit()  # theirs: as the Trainer makes it
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=fused)
    times: list[tuple[float, float]] = []
    for _ in range(STEPS):
        wall, cpu = time.perf_counter(), time.process_time()
        loss_of().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = re.search(r"VmHWM:\s+(\d+)", status)
    assert peak is not None
    print(
        json.dumps(
            {
                "wall": min(wall for wall, _ in times) / batch,
                "cpu": min(cpu for _, cpu in times) / batch,
                "peak": int(peak[1]) / 1e6,
            }
        )
    )


def _vit_mae(attention: str, batch: int) -> tuple[Any, Callable[[], Any]]:
    import torch
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(image_size=432, patch_size=16, attn_implementation=attention)
    images = torch.randn(batch, 3, 432, 432)
    network = ViTMAEForPreTraining(config).train()
    return network, lambda: network(images).loss


def _ours(
    batch: int, preset: str, kind: str, decoder: str, share: str = "1"
) -> tuple[Any, Callable[[], Any]]:
    import torch

    from brainlm.model.mae import MaskedAutoencoder
    from brainlm.model.mask import ask_for, count_visible, generator, random_mask
    from tests.benchmarks.gpu_model import read_preset

    kinds = {
        "square": {"padding": "square"},
        "none": {"padding": "none"},
        "conv": {},
        "plain": {"norm": "pre", "place": "fourier", "conv": 0, "head": "linear"},
    }
    config = read_preset(preset, decoder=decoder, **kinds[kind])
    network = MaskedAutoencoder(config, 40 * torch.randn(config.parcels, 3))
    network.initialize(generator(0))
    signal = torch.randn(batch, config.parcels, config.timepoints)
    available = network.tokenizer.available(torch.ones(batch, config.parcels, dtype=torch.bool))
    visible = count_visible(0.75, network.tokenizer.tokens)
    source = generator(1)

    def loss_of() -> torch.Tensor:
        mask = random_mask(available, visible, source)
        loss: torch.Tensor = network(signal, ask_for(mask, float(share))).loss
        return loss

    return network.train(), loss_of


def _nystromformer(batch: int) -> tuple[Any, Callable[[], Any]]:
    """The 13M's layers: 4 over a quarter of 4,240 tokens and CLS, then 2 over all."""
    import torch
    from torch import nn
    from transformers import NystromformerConfig
    from transformers.models.nystromformer.modeling_nystromformer import NystromformerLayer

    config = NystromformerConfig(
        hidden_size=512,
        num_attention_heads=4,
        intermediate_size=1024,
        num_landmarks=64,
        segment_means_seq_len=64,
        conv_kernel_size=65,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    tokens, visible, entries, width = 4240, 1060, 20, 512

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.bridge = nn.Linear(entries, width), nn.Linear(width, width)
            self.encoder = nn.ModuleList(NystromformerLayer(config) for _ in range(4))
            self.decoder = nn.ModuleList(NystromformerLayer(config) for _ in range(2))
            self.guess = nn.Linear(width, entries)
            self.mask_token = nn.Parameter(torch.zeros(1, 1, width))

        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            order = torch.rand(len(patches), tokens).argsort(dim=1)[..., None]
            seen = patches.gather(1, order[:, :visible].expand(-1, -1, entries))
            x = self.embed(torch.cat([torch.zeros(len(patches), 1, entries), seen], dim=1))
            for layer in self.encoder:
                x = layer(x)[0]
            x = self.bridge(x)
            masks = self.mask_token.expand(len(x), tokens - visible, -1)
            back = order.argsort(dim=1).expand(-1, -1, width)
            x = torch.cat([x[:, :1], torch.cat([x[:, 1:], masks], dim=1).gather(1, back)], dim=1)
            for layer in self.decoder:
                x = layer(x)[0]
            hidden = order[:, visible:].expand(-1, -1, entries)
            wrong = self.guess(x[:, 1:]).gather(1, hidden) - patches.gather(1, hidden)
            return wrong.square().mean()

    network, patches = Network(), torch.randn(batch, tokens, entries)
    return network.train(), lambda: network(patches)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one(sys.argv[1], int(sys.argv[2]))
    else:
        main()
