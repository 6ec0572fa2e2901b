"""What a GPU makes of the network: `python tests/benchmarks/gpu_model.py > table.md`.

A step of training (forward, backward, clipping, fused AdamW; windows already on the GPU) of each
size, in bfloat16, compiled or not, with each attention backend that runs there: recordings and
tokens per second, utilisation (MFU: matrix products of `brainlm.model.flops`, against the card's
published dense bfloat16 rate), peak memory, and how long the paper's pretraining would take. From a
bare checkout with torch, numpy and safetensors; without a GPU it says so, or with `--tiny`
runs a miniature on the CPU, which tells that the script works and nothing else.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from brainlm.model.config import ModelConfig  # noqa: E402
from brainlm.model.flops import STEP, forward_flops, peak_flops  # noqa: E402
from brainlm.model.mae import MaskedAutoencoder  # noqa: E402
from brainlm.model.mask import TokenMask, count_visible, generator, random_mask  # noqa: E402

#: Recordings that the paper trains on, and epochs.
RECORDINGS, EPOCHS = 61_038, 100
MASK_RATIO = 0.75


def read_preset(name: str, **overrides: str | int | float) -> ModelConfig:
    """A preset of config/models, without a YAML library: the files are flat."""
    content: dict[str, str | int | float] = {}
    text = (ROOT / "config" / "models" / f"{name}.yaml").read_text(encoding="utf-8")
    for line in text.splitlines():
        key, _, value = line.partition("#")[0].partition(":")
        if value:
            content[key.strip()] = _plain(value.strip())
    return ModelConfig.from_dict({**content, **overrides})


def _plain(value: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    size: str
    decoder: str
    batch: int
    backend: str
    compiled: bool


@dataclass(frozen=True)
class Result:
    """What a case took."""

    recordings: float  # per second
    tokens: float  # per second: seen by the encoder, and made by the decoder
    flops: float  # per second
    peak_gb: float
    first_loss: float


#: Largest batch that is sure to fit in 80 GB without compiling.
BATCHES = {"13m": 16, "111m": 256, "650m": 128}


def cases(
    sizes: list[str], backends: list[str], scale: float, *, compile_too: bool
) -> Iterator[Case]:
    """Everything to be measured, the quick ones first."""
    for size in sizes:
        batch = max(1, round(BATCHES[size] * scale))
        for decoder in ("full", "cross"):
            for compiled in (False, True) if compile_too else (False,):
                for backend in backends if not compiled else backends[:1]:
                    yield Case(size, decoder, batch, backend, compiled)


def measure(case: Case, device: torch.device, steps: int, overrides: dict[str, Any]) -> Result:
    """Train `steps` steps and time them, after a few that are not counted."""
    torch.manual_seed(0)
    config = read_preset(case.size, decoder=case.decoder, **overrides)
    network = MaskedAutoencoder(config, 40 * torch.randn(config.parcels, 3))
    network.initialize(generator("weights"))
    network.to(device).train()
    if case.backend == "flash-attn":
        network.set_attention("flash")
    signal = torch.randn(case.batch, config.parcels, config.timepoints, device=device)
    covered = torch.ones(case.batch, config.parcels, dtype=torch.bool)
    available = network.tokenizer.available(covered)
    visible = count_visible(MASK_RATIO, network.tokenizer.tokens)
    masks = [
        TokenMask(*(part.to(device) for part in random_mask(available, visible, generator(n))))
        for n in range(4)
    ]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)
    run = torch.compile(network) if case.compiled else network

    def step(mask: TokenMask) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16), _kernels(case.backend):
            loss: Tensor = run(signal, mask).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    first = float(step(masks[0]))
    for n in range(3):
        step(masks[n % len(masks)])
    _wait(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    for n in range(steps):
        step(masks[n % len(masks)])
    _wait(device)
    rate = steps * case.batch / (time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else float("nan")
    made = network.tokenizer.tokens - (visible if case.decoder == "cross" else 0)
    return Result(
        recordings=rate,
        tokens=rate * (visible + 1 + made),
        flops=rate * STEP * forward_flops(config, visible),
        peak_gb=peak,
        first_loss=first,
    )


def _kernels(backend: str) -> Any:
    """Leave PyTorch one kernel of `scaled_dot_product_attention`, or its own choice."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kernels = {
        "sdpa": [
            SDPBackend.FLASH_ATTENTION,
            SDPBackend.CUDNN_ATTENTION,
            SDPBackend.EFFICIENT_ATTENTION,
            SDPBackend.MATH,
        ],
        "flash-attn": [SDPBackend.MATH],  # not asked
        "sdpa flash": [SDPBackend.FLASH_ATTENTION],
        "sdpa cudnn": [SDPBackend.CUDNN_ATTENTION],
        "sdpa efficient": [SDPBackend.EFFICIENT_ATTENTION],
    }
    return sdpa_kernel(kernels[backend])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description="What a GPU makes of the network.")
    parser.add_argument("--sizes", nargs="+", default=list(BATCHES), choices=list(BATCHES))
    parser.add_argument("--scale", type=float, default=1.0, help="of the batches")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--tiny", action="store_true", help="a miniature, on the CPU if need be")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not options.tiny:
        sys.exit("no GPU here: nothing was measured (--tiny tries the script on the CPU)")
    card = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    overrides: dict[str, Any] = {}
    backends = ["sdpa", "sdpa flash", "sdpa cudnn", "sdpa efficient"]
    if options.tiny:
        overrides = {"hidden": 32, "layers": 1, "heads": 2, "mlp": 32, "decoder_hidden": 32}
        overrides |= {"decoder_layers": 1, "decoder_heads": 2, "decoder_mlp": 32}
        options.scale, options.steps = 1e-9, 1
    if importlib.util.find_spec("flash_attn"):
        backends.append("flash-attn")
    if device.type == "cpu":
        backends = ["sdpa", "sdpa flash"]
    peak = peak_flops(card)
    when = datetime.datetime.now(tz=datetime.UTC).date()
    print(f"{when}, {card}, PyTorch {torch.__version__}, bfloat16 autocast, mask {MASK_RATIO}\n")
    print(
        "| size | decoder | batch | attention | compiled | recordings/s | tokens/s | MFU | peak GB "
        "| hours for the paper's pretraining | first loss |\n|" + "---|" * 11
    )
    compile_too = not options.no_compile
    for case in cases(options.sizes, backends, options.scale, compile_too=compile_too):
        start = f"| {case.size} | {case.decoder} | {case.batch} | {case.backend} | "
        start += "yes | " if case.compiled else "no | "
        try:
            found = measure(case, device, options.steps, overrides)
        except (torch.cuda.OutOfMemoryError, RuntimeError) as error:
            why = " ".join(str(error).split())[:60]
            print(f"{start}{type(error).__name__}: {why} | | | | | |", flush=True)
        else:
            used = f"{found.flops / peak:.1%}" if peak else "card not known"
            hours = EPOCHS * RECORDINGS / found.recordings / 3600
            print(
                f"{start}{found.recordings:,.0f} | {found.tokens:,.0f} | {used} | "
                f"{found.peak_gb:.1f} | {hours:.2f} | {found.first_loss:.4f} |",
                flush=True,
            )
        torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
