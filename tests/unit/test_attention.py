"""All ways to compute attention give the same numbers, Nystrom's those of its authors' code."""

from __future__ import annotations

import functools
import sys
from types import ModuleType

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import NystromformerConfig
from transformers.models.nystromformer.modeling_nystromformer import NystromformerSelfAttention

from brainlm.errors import InputError
from brainlm.model import kernels
from brainlm.model.attention import attend
from brainlm.model.config import ModelConfig
from brainlm.model.kernels import CANDIDATES, Shape, attention_shapes, fastest_kernels, ranked
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import generator, make_mask
from brainlm.model.transformer import Attention

from .small_networks import KINDS, small_network, window

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def _parts(n: int = 11, m: int = 7, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    source = generator("parts")
    return [
        torch.randn(2, 3, length, 8, generator=source).to(dtype).requires_grad_()
        for length in (n, m, m)
    ]


def _with_gradients(**options) -> list[torch.Tensor]:
    parts = _parts()
    mixed = attend(*parts, **options)
    return [mixed, *torch.autograd.grad(mixed.square().sum(), parts)]


@pytest.mark.parametrize("kernel", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION, None])
def test_eager_attention_gives_the_numbers_of_each_fused_kernel(kernel) -> None:
    expected = _with_gradients(backend="eager")
    if kernel is None:
        found = _with_gradients()
    else:
        with sdpa_kernel(kernel):
            found = _with_gradients()
    torch.testing.assert_close(found, expected, **CLOSE)


def test_weights_are_handed_back_and_dropped_in_training_alone() -> None:
    query, key, value = _parts()
    weights: list[torch.Tensor] = []
    mixed = attend(query, key, value, weights=weights)
    torch.testing.assert_close(weights[0].sum(dim=-1), torch.ones(2, 3, 11))
    torch.testing.assert_close(weights[0] @ value, mixed)
    for backend in ("sdpa", "eager"):
        torch.manual_seed(0)
        mean = torch.stack(
            [attend(query, key, value, backend=backend, dropout=0.3) for _ in range(3000)]
        ).mean(dim=0)
        assert not torch.allclose(attend(query, key, value, backend=backend, dropout=0.3), mixed)
        torch.testing.assert_close(mean, mixed, rtol=0, atol=0.1)
    layer, x = Attention(32, 4, dropout=0.5), torch.randn(2, 9, 32, generator=generator("x"))
    for landmarks in (0, 3):
        layer.landmarks = landmarks
        assert not torch.allclose(layer.train()(x, x), layer(x, x))
        assert torch.equal(layer.eval()(x, x), layer(x, x))


def _flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False):
    """flash-attn's call with plain torch: (batch, n, heads, d) in and out, 16 bits."""
    assert softmax_scale is None and not causal
    assert q.shape[2] == k.shape[2] == v.shape[2] == 3 and k.shape == v.shape
    likeness = torch.einsum("bnhd,bmhd->bhnm", q.float(), k.float()) * q.shape[-1] ** -0.5
    shares = torch.nn.functional.dropout(likeness.softmax(-1), dropout_p)
    return torch.einsum("bhnm,bmhd->bnhd", shares, v.float()).to(q.dtype)


def test_the_flash_package_is_called_in_its_own_layout(monkeypatch) -> None:
    """The package needs a GPU; a stand-in with its signature shows that the layout is right."""
    package = ModuleType("flash_attn")
    package.flash_attn_func = _flash_attn_func
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    parts = _parts(dtype=torch.bfloat16)
    expected = attend(*parts, backend="eager")
    flash = functools.partial(attend, backend="flash")
    compiled = torch.compile(flash, fullgraph=True, backend="aot_eager")
    for call in (flash, compiled):
        torch.testing.assert_close(call(*parts), expected, rtol=2e-2, atol=2e-2)
    assert not torch.allclose(flash(*parts, dropout=0.5), expected, atol=0.1)
    with pytest.raises(InputError, match="16-bit floats"):
        attend(*_parts(), backend="flash")


def test_a_backend_that_cannot_be_had_is_refused() -> None:
    model = small_network("parcels")
    assert "flash_attn" not in sys.modules
    with pytest.raises(InputError, match="flash-attn, which is not installed"):
        model.set_attention("flash")
    with pytest.raises(InputError, match="no attention backend 'fast'"):
        model.set_attention("fast")
    with pytest.raises(InputError, match="model with landmarks"):
        model.set_attention("nystrom")
    small_network("landmarks").set_attention("nystrom")


@pytest.mark.parametrize("kind", KINDS)
def test_the_backend_does_not_change_what_a_network_says(kind: str) -> None:
    model = small_network(kind)
    signal = window(model.config)
    covered = torch.ones(signal.shape[:2], dtype=torch.bool)
    mask = make_mask(model.tokenizer, covered, "random", 0.75, generator("mask"))
    found = {}
    for backend in ("sdpa", "eager"):
        model.set_attention(backend)
        found[backend] = model(signal, mask)
    torch.testing.assert_close(found["eager"], found["sdpa"], equal_nan=True, **CLOSE)


# Nystrom, against the code of transformers, which is its authors'


def _theirs(tokens: int, landmarks: int, conv: int | None) -> tuple:
    """Their attention and ours of equal weights, 4 heads of 8."""
    config = NystromformerConfig(
        hidden_size=32,
        num_attention_heads=4,
        segment_means_seq_len=tokens,
        num_landmarks=landmarks,
        conv_kernel_size=conv or 1,
        attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    theirs = NystromformerSelfAttention(config).eval()
    theirs.conv_kernel_size = conv  # its configuration does not take None, the layer does
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    exact = landmarks == tokens
    ours = Attention(32, 4, dropout=0.0, conv=conv or 0, landmarks=0 if exact else landmarks).eval()
    with torch.no_grad():
        ours.query.load_state_dict(theirs.query.state_dict())
        for name in ("weight", "bias"):
            both = [getattr(theirs.key, name), getattr(theirs.value, name)]
            getattr(ours.key_value, name).copy_(torch.cat(both))
        ours.out.weight.copy_(torch.eye(32))
        ours.out.bias.zero_()
        if ours.conv is not None:
            ours.conv.load_state_dict(theirs.conv.state_dict())
    return theirs, ours


@pytest.mark.parametrize("conv", [None, 5])
@pytest.mark.parametrize("landmarks", [4, 8, 24])
def test_nystrom_attention_gives_its_authors_numbers(landmarks: int, conv: int | None) -> None:
    """24 tokens by 4, 8 or as many landmarks; samples one by one (see `_pseudo_inverse`)."""
    theirs, ours = _theirs(24, landmarks, conv)
    x = torch.randn(3, 24, 32, generator=generator("x"))
    with torch.no_grad():
        found = ours(x, x)
        expected = torch.cat([theirs(sample)[0] for sample in x.split(1)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    exact = Attention(32, 4, dropout=0.0, conv=conv or 0).eval()
    exact.load_state_dict(ours.state_dict())
    with torch.no_grad():
        alike = torch.allclose(exact(x, x), found, atol=1e-5)
    assert alike == (landmarks == 24)


def test_nystrom_attention_of_a_recording_does_not_hang_on_its_neighbours() -> None:
    parts = [torch.cat([part, 5 * part]).detach() for part in _parts(20, 20)]
    together = attend(*parts, landmarks=6)
    apart = attend(*(part[:2] for part in parts), landmarks=6)
    torch.testing.assert_close(together[:2], apart, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokens", [17, 20, 23])
def test_nystrom_attention_takes_any_length_and_gives_its_weights(tokens: int) -> None:
    query, key, value = _parts(tokens, tokens)
    weights: list[torch.Tensor] = []
    mixed = attend(query, key, value, landmarks=5, weights=weights)
    assert weights[0].shape == (2, 3, tokens, tokens)
    torch.testing.assert_close(weights[0] @ value, mixed, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed, attend(query, key, value, backend="nystrom", landmarks=5))
    mixed.sum().backward()
    assert all(part.grad.isfinite().all() for part in (query, key, value))
    few = attend(query[:, :, :3], key, value, landmarks=5)  # less than one query for a landmark
    torch.testing.assert_close(few, attend(query[:, :, :3], key, value))
    short = attend(query, key, value, landmarks=tokens)
    torch.testing.assert_close(short, attend(query, key, value))


def test_nystrom_attention_stays_in_single_precision_under_autocast() -> None:
    parts = [part.detach() for part in _parts(20, 20)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attend(*parts, landmarks=6)
    assert torch.equal(found, attend(*parts, landmarks=6))


def test_nystrom_attention_nears_the_exact_one_as_landmarks_grow() -> None:
    """Smooth sequences, as the approximation assumes."""
    time = torch.linspace(0, 3, 64)
    rate = torch.randn(1, 2, 1, 8, generator=generator("rate"))
    query, key, value = (torch.sin(time[:, None] * rate + shift) for shift in (0.0, 0.1, 1.0))
    exact = attend(query, key, value)
    errors = [
        float((attend(query, key, value, landmarks=count) - exact).abs().max())
        for count in (2, 8, 32)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01


# The choice among PyTorch's kernels (the clock itself needs a GPU and was not run)


def test_kernels_are_ranked_by_time_over_all_layers() -> None:
    cudnn, flash, efficient = CANDIDATES
    shapes = (Shape(1, 1, 8, 8, 8, layers=10), Shape(1, 1, 64, 64, 8, layers=1))
    seconds = {
        (cudnn, 8): 1.0,
        (flash, 8): 2.0,
        (efficient, 8): 3.0,
        (cudnn, 64): 8.0,  # the slower one here, but there is one such layer alone
        (flash, 64): 5.0,
        (efficient, 64): float("inf"),
    }
    found = ranked(shapes, lambda kernel, shape: seconds[kernel, shape.queries])
    assert found == (cudnn, flash, efficient)


def test_without_a_gpu_no_kernel_is_preferred() -> None:
    model = small_network("image")
    tokens = model.tokenizer.tokens
    shapes = attention_shapes(model.config, tokens, batch=2, n_visible=3)
    assert [(s.queries, s.keys) for s in shapes] == [(4, 4), (tokens + 1, tokens + 1)]
    cross = attention_shapes(small_network("parcels").config, 32, batch=2, n_visible=8)
    assert [(s.queries, s.keys) for s in cross] == [(9, 9), (24, 9)]
    with fastest_kernels(shapes, torch.float32, torch.device("cpu")) as order:
        assert order == ()


def test_kernels_are_timed_once_and_not_when_told_to_be_deterministic(monkeypatch) -> None:
    """The clock is a stand-in: cuDNN is told to be the fastest."""
    cudnn = CANDIDATES[0]
    timed = []

    def seconds(kernel, shape, dtype, device) -> float:
        timed.append(kernel)
        return 1.0 if kernel == cudnn else 2.0

    monkeypatch.setattr(kernels, "_seconds", seconds)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "stand-in")
    # A training in an earlier test may have told this process to be deterministic.
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: False)
    shapes = [Shape(1, 3, 11, 7, 8, layers=2)]
    before = torch._C._get_sdp_priority_order()
    for _ in range(2):
        with fastest_kernels(shapes, torch.bfloat16, torch.device("cuda")) as order:
            assert order[0] == cudnn
            assert torch._C._get_sdp_priority_order()[0] == cudnn.value
            torch.testing.assert_close(attend(*_parts()), attend(*_parts(), backend="eager"))
    assert timed == list(CANDIDATES)
    assert torch._C._get_sdp_priority_order() == before
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    with fastest_kernels(shapes, torch.bfloat16, torch.device("cuda")) as order:
        assert order == ()


def test_landmarks_belong_to_the_architecture() -> None:
    config = small_network("landmarks").config
    assert ModelConfig.from_dict(config.to_dict()) == config and config.landmarks > 0
    with pytest.raises(InputError, match="landmarks must be at least 0"):
        ModelConfig.from_dict({**config.to_dict(), "landmarks": -1})
    model: MaskedAutoencoder = small_network("landmarks")
    counts = {m.landmarks for m in model.modules() if isinstance(m, Attention)}
    assert counts == {config.landmarks}
