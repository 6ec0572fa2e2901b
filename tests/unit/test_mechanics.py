"""What a training or an export does with the network besides its arithmetic."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._dynamo.testing import CompileCounterWithBackend

from brainlm.config import Model, load_preset
from brainlm.errors import InputError
from brainlm.model.config import ModelConfig
from brainlm.model.export import EncoderForExport, export_encoder, save_encoder, save_onnx
from brainlm.model.mae import MaskedAutoencoder, build_on_meta, give_weights
from brainlm.model.mask import TokenMask, generator, make_mask

from .small_networks import KINDS, places, small_config, small_network, window

ROOT = Path(__file__).parents[2]
PRESETS = ("parcels", "convolution", "image")  # tiny; 13m; 111m and 650m


def _sample(model: MaskedAutoencoder, step: int = 0) -> tuple[torch.Tensor, TokenMask]:
    signal = window(model.config)
    signal[0, 1] = torch.nan
    covered = ~signal.isnan().any(dim=2)
    count = 5 if model.config.tokenizer == "image" else 8
    source = generator("mask", step)
    mask = make_mask(model.tokenizer, covered, "random", 0.75, source, n_visible=count)
    return signal, mask


def _loss_and_gradients(model: MaskedAutoencoder, forward=None) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model.zero_grad()
    loss = (model if forward is None else forward)(*_sample(model)).loss
    loss.backward()
    return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_activations_change_no_bit(kind: str, dropout: float, monkeypatch) -> None:
    model = small_network(kind, dropout=dropout).train()
    expected = _loss_and_gradients(model)
    kept = _saved_bytes(model)
    model.checkpoint_blocks(True)
    found = _loss_and_gradients(model)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert _saved_bytes(model) < 0.6 * kept
    model.checkpoint_blocks(False)
    assert _saved_bytes(model) == kept


def _saved_bytes(model: MaskedAutoencoder) -> int:
    """What forward keeps for backward, parameters aside."""
    own = {parameter.data_ptr() for parameter in model.parameters()}
    sizes: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(*_sample(model)).loss
    del loss
    return sum(sizes.values())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if small_config(kind).decoder == "full"])
def test_the_full_decoder_is_what_its_blocks_make_of_all_tokens(kind: str) -> None:
    """Written out: the tokens in the window's order, every block for all, then the hidden ones."""
    model = small_network(kind)
    signal, mask = _sample(model)
    with torch.no_grad():
        latents = model.encode(signal, mask.visible)
        decoder = model.decoder
        seen = decoder.bridge(latents)
        everything = torch.arange(model.tokenizer.tokens).expand(2, -1)
        shown = torch.zeros_like(everything, dtype=torch.bool).scatter(1, mask.visible, True)
        x = decoder.mask_token.expand(*everything.shape, -1).clone()
        x[shown] = (
            seen[:, 1:]
            .gather(1, mask.visible.argsort(1)[..., None].expand_as(seen[:, 1:]))
            .flatten(0, 1)
        )
        x = torch.cat([seen[:, :1], x + decoder.place(everything)], dim=1)
        for block in decoder.blocks:
            x = block(x)
        guessed = decoder.guess(decoder.norm(x[:, 1:]))
        expected = guessed.gather(1, mask.hidden[..., None].expand(-1, -1, guessed.shape[2]))
        split = (latents, mask.visible, mask.hidden)
        torch.testing.assert_close(model.decode(*split), expected, rtol=1e-4, atol=1e-5)
        turned = model.decode(*split, mask.hidden.flip(1))
        torch.testing.assert_close(turned.flip(1), expected, rtol=1e-4, atol=1e-5)
        whole = model.decode(*split, everything)
        torch.testing.assert_close(whole, guessed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_guess_hangs_on_where_the_shown_tokens_were(kind: str) -> None:
    """The same latents, told to be of other places: of another parcel, or time."""
    model = small_network(kind)
    signal, mask = _sample(model)
    with torch.no_grad():
        latents = model.encode(signal, mask.visible)
        found = model.decode(latents, mask.visible, mask.hidden)
        elsewhere = model.decode(latents, mask.visible.roll(1, dims=1), mask.hidden)
    assert not torch.allclose(found, elsewhere, atol=1e-3)


@pytest.mark.parametrize("kind", PRESETS)
def test_a_step_compiles_whole_and_once(kind: str) -> None:
    """No graph breaks, and no second graph for other masks of the same shape."""
    torch._dynamo.reset()
    model = small_network(kind).train()
    expected = _loss_and_gradients(model)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    found = _loss_and_gradients(model, compiled)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for step in range(1, 4):
        compiled(*_sample(model, step)).loss.backward()
    assert counter.frame_count == 1


def test_a_compiled_step_may_recompute_its_activations() -> None:
    torch._dynamo.reset()
    model = small_network("image").train()
    expected = _loss_and_gradients(model)
    model.checkpoint_blocks(True)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    found = _loss_and_gradients(model, compiled)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["image", pytest.param("landmarks", marks=pytest.mark.slow)])
def test_a_compiled_step_may_run_in_bfloat16(kind: str) -> None:
    torch._dynamo.reset()
    model = small_network(kind).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, found = (call(*_sample(model)).loss for call in (model, compiled))
    found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


def _by_night(kind: str) -> object:
    """Most of a minute each: every preset's graph is compiled whole above, by a quicker backend."""
    return kind if kind in ("parcels", "image") else pytest.param(kind, marks=pytest.mark.nightly)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [_by_night(kind) for kind in KINDS])
def test_a_step_compiles_with_the_default_compiler(kind: str) -> None:
    torch._dynamo.reset()
    model = small_network(kind).train()
    expected = _loss_and_gradients(model)
    found = _loss_and_gradients(model, torch.compile(model, fullgraph=True))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


_TWICE = """
import torch
torch.use_deterministic_algorithms(True)
from tests.unit.test_mechanics import _loss_and_gradients
from tests.unit.small_networks import KINDS, small_network
for kind in KINDS:
    first, second = (
        _loss_and_gradients(small_network(kind, dropout=0.1).train()) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)), kind
    print(kind)
"""


def test_deterministic_mode_runs_and_repeats_every_bit() -> None:
    """In a process of its own, for the mode is the process's."""
    run = subprocess.run(
        [sys.executable, "-c", _TWICE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == list(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_built_on_meta_is_filled_from_a_file(kind: str, tmp_path: Path) -> None:
    real = small_network(kind)
    save_file(real.state_dict(), tmp_path / "w.safetensors")
    model = build_on_meta(real.config, places(real.config.parcels)).eval()
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())
    state = load_file(tmp_path / "w.safetensors")
    give_weights(model, state)
    assert all(p.data_ptr() == state[name].data_ptr() for name, p in model.named_parameters())
    for (name, a), (_, b) in zip(model.named_buffers(), real.named_buffers(), strict=True):
        assert torch.equal(a, b), name
    with torch.no_grad():
        found, expected = (each(*_sample(real)) for each in (model, real))
    assert torch.equal(found.predicted, expected.predicted)
    half = dict(list(real.state_dict().items())[1:])
    with pytest.raises(RuntimeError, match="Missing key"):
        give_weights(build_on_meta(real.config, places(real.config.parcels)), half)


def test_the_largest_preset_takes_no_memory_on_meta() -> None:
    config = ModelConfig.from_dict(load_preset(Model(preset="650m")))
    before = psutil.Process().memory_info().rss
    model = build_on_meta(config, torch.zeros(424, 3))
    grown = psutil.Process().memory_info().rss - before
    assert sum(parameter.numel() for parameter in model.parameters()) > 6e8
    assert grown < 100e6  # weights would be 2.6 GB


@pytest.mark.parametrize("kind", [*PRESETS, "landmarks"])
def test_the_encoder_is_exported_for_batches_of_any_size(kind: str, tmp_path: Path) -> None:
    model = small_network(kind, dropout=0.1).train()
    tokens = model.tokenizer.tokens
    graph = export_encoder(model).module()
    for batch in (1, 2, 5):
        signal = window(model.config, batch)
        with torch.no_grad():
            expected = model.encode(signal, torch.arange(tokens).expand(batch, -1))
            torch.testing.assert_close(graph(signal), expected, rtol=1e-5, atol=1e-5)
    if kind == "image":
        save_encoder(tmp_path / "encoder.pt2", model)
        program = torch.export.load(tmp_path / "encoder.pt2")
        assert not [name for name in program.state_dict if "decoder" in name]
        again = program.module()
        torch.testing.assert_close(again(signal), expected, rtol=1e-5, atol=1e-5)


def test_the_encoder_is_written_as_onnx(tmp_path: Path) -> None:
    path, model = tmp_path / "encoder.onnx", small_network("image")
    if importlib.util.find_spec("onnxscript") is None:
        with pytest.raises(InputError, match="is needed, which is not installed"):
            save_onnx(path, model)
        assert not list(tmp_path.iterdir())
        return
    runtime = pytest.importorskip("onnxruntime")
    save_onnx(path, model)
    session = runtime.InferenceSession(path)
    for batch in (1, 3):
        signal = window(model.config, batch)
        with torch.no_grad():
            expected = EncoderForExport(model)(signal)
        (found,) = session.run(["latents"], {"signal": signal.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-5, atol=1e-5)
    assert [each.name for each in tmp_path.iterdir()] == ["encoder.onnx"]


@pytest.mark.parametrize("loss", ["mse", "mae"])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_gives_the_loss_of_single(kind: str, loss: str) -> None:
    """bfloat16 keeps 8 bits: half a percent of the loss, and a gradient that points the same way.

    (But through landmarks: the pseudo-inverse multiplies what rounding did to queries and keys.)
    """
    single, wanted = _in_precision(kind, loss, None)
    assert single.dtype == torch.float32
    for precision in ("autocast", "whole"):
        found, gradient = _in_precision(kind, loss, precision)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, single, rtol=0.005, atol=0)
        alike = torch.cosine_similarity(gradient, wanted, dim=0)
        assert kind == "landmarks" or alike > 0.95


def _in_precision(kind: str, loss: str, precision: str | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradient of a small network, in float32 or two ways of bfloat16."""
    model = small_network(kind).train()
    sample = _sample(model)
    if precision == "whole":
        model.to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "autocast"):
        found = model(*sample, loss).loss
    found.backward()
    return found.detach(), _gradient(model)


def _gradient(model: MaskedAutoencoder) -> torch.Tensor:
    return torch.cat([parameter.grad.float().flatten() for parameter in model.parameters()])


def test_the_loss_is_summed_in_single_precision() -> None:
    """In bfloat16 a sum of many small errors would stop growing."""
    config = ModelConfig.from_dict({**small_config("image").to_dict(), "parcels": 200})
    model = MaskedAutoencoder(config, places(200)).to(torch.bfloat16)
    model.initialize(generator(0))  # guesses are 0
    signal = window(config, batch=8)
    covered = torch.ones(8, 200, dtype=torch.bool)
    mask = make_mask(model.tokenizer, covered, "random", 0.75, generator(1))
    with torch.no_grad():
        result = model(signal, mask)
    expected = result.truth.double().square().nanmean()
    assert float(result.loss) == pytest.approx(float(expected), rel=1e-5)
