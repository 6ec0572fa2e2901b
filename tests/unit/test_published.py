"""The released models' numbers, from tiny ones that their authors' own code made."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import NystromformerConfig
from transformers.models.nystromformer.modeling_nystromformer import NystromformerLayer

from brainlm.config import Model, load_preset
from brainlm.errors import DataError
from brainlm.model.config import ModelConfig
from brainlm.model.heads import MlpHead
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import split_tokens
from brainlm.model.published import Published, folded_parameters, read_published
from brainlm.model.released import read_released

ROWS = torch.stack([torch.zeros(424), torch.arange(424.0), torch.zeros(424)], dim=1)


def _read(folder: Path, name: str) -> tuple[Published, dict[str, torch.Tensor], dict]:
    about = json.loads((folder / name / "meta.json").read_text())
    state = load_file(folder / name / "state_dict.safetensors")
    return (
        read_published(about["config"], state),
        load_file(folder / name / "io.safetensors"),
        about,
    )


@pytest.mark.parametrize("name", ["13m_tiny", "111m_tiny", "650m_tiny", "111m_tiny_predict_last"])
def test_a_released_model_gives_its_authors_numbers(shared_data: Path, name: str) -> None:
    published, io, about = _read(shared_data / "parity", name)
    image = published.config.tokenizer == "image"
    model = MaskedAutoencoder(published.config, ROWS if image else io["xyz_vectors"]).eval()
    model.load_state_dict(published.state, strict=True)
    signal = io["signal" if image else "signal_vectors"].float() * published.config.input_scale
    available = model.tokenizer.available(torch.ones(2, 424, dtype=torch.bool))
    order = io["ids_restore"].long().argsort(dim=1)
    n_visible = io["last_hidden_state"].shape[1] - 1
    mask = split_tokens(available, order, n_visible)
    weights: list[torch.Tensor] = []
    with torch.no_grad():
        latents = model.encode(signal, mask.visible, weights)
        result = model(signal, mask)
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(latents, io["last_hidden_state"], **close)
    torch.testing.assert_close(latents[:, 0], io["cls_token"], **close)
    for layer, row in enumerate(weights):
        torch.testing.assert_close(row[:, :, 0], io[f"attn_cls_row.{layer}"], **close)
    masked = io["mask"].bool().reshape(2, 424, 200 if image else -1)
    guessed = model.tokenizer.paste(result.predicted, mask.hidden) / published.config.input_scale
    logits = io["logits"].reshape(2, 424, 200)
    if not image:
        masked = masked.repeat_interleave(20, dim=2)
    torch.testing.assert_close(guessed[masked], logits[masked], **close)
    assert guessed.isnan()[~masked].all()
    assert float(result.loss) == pytest.approx(about["loss"], rel=1e-5)


def test_the_last_timepoints_are_withheld_to_the_pixel(shared_data: Path) -> None:
    published, io, about = _read(shared_data / "parity", "111m_tiny_predict_last_pixel")
    model = MaskedAutoencoder(published.config, ROWS).eval()
    model.load_state_dict(published.state)
    signal, scale = io["signal"].float(), published.config.input_scale
    with torch.no_grad():
        found = model.forecast(signal * scale, 150) / scale
        spoilt = signal.clone()
        spoilt[:, :, 50:] = 99.0
        again = model.forecast(spoilt * scale, 150) / scale
    torch.testing.assert_close(found, io["logits"][:, :, 50:], rtol=1e-5, atol=1e-5)
    assert torch.equal(found, again)
    loss = float((found - signal[:, :, 50:]).square().mean())
    assert loss == pytest.approx(about["loss"], rel=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_released_head_gives_its_authors_numbers(shared_data: Path, pooling: str) -> None:
    published, io, _ = _read(shared_data / "parity", "finetune_tiny")
    assert published.head is not None and published.unused == ()
    model = MaskedAutoencoder(published.config, ROWS).eval()
    model.load_state_dict(published.state)
    head = MlpHead(published.config.hidden, dropout=0.1).eval()
    head.load_state_dict(published.head)
    order = io["noise"].argsort(dim=1, stable=True)
    visible = order[:, : int((io["patch_mask"] == 0).sum(dim=1)[0])]
    with torch.no_grad():
        latents = model.encode(io["signal"].float() * published.config.input_scale, visible)
        pooled = latents[:, 0] if pooling == "cls" else latents.mean(dim=1)
        found = head(pooled)
    torch.testing.assert_close(found, io[f"ft_mse_{pooling}.logits"], rtol=1e-5, atol=1e-6)


def test_weights_without_use_are_named_and_missing_ones_refused(shared_data: Path) -> None:
    folder = shared_data / "parity" / "13m_tiny"
    config = json.loads((folder / "meta.json").read_text())["config"]
    state = load_file(folder / "state_dict.safetensors")
    unused = read_published(config, state).unused
    assert unused == ("decoder.decoder_pred.bias", "decoder.decoder_pred.weight")
    conv = "vit.encoder.layer.1.attention.self.conv.weight"
    for name in (conv, "vit.layernorm.weight"):
        del state[name]
    with pytest.raises(DataError, match=rf"lacks the weights {conv}, vit\.layernorm\.weight\n"):
        read_published(config, state)
    image = shared_data / "parity" / "111m_tiny"
    config = json.loads((image / "meta.json").read_text())["config"]
    state = load_file(image / "state_dict.safetensors")
    state["vit.embeddings.position_embeddings"][0, 5, 3] += 0.01
    with pytest.raises(DataError, match="position_embeddings are not the fixed"):
        read_published(config, state)


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("111m_tiny", {"image_size": [448, 448]}, r"images are \[448, 448\].*make \[432, 432\]"),
        ("111m_tiny", {"image_size": 224}, "images are 224"),
        ("111m_tiny", {"num_channels": 1}, "of 1 channels"),
        ("111m_tiny", {"hidden_act": "relu"}, "hidden_act 'relu'; released models have 'gelu'"),
        ("111m_tiny", {"norm_pix_loss": True}, "norm_pix_loss True"),
        ("111m_tiny", {"num_hidden_layers": 1}, r"more layers vit\.encoder\.layer than the 1"),
        ("13m_tiny", {"decoder_num_hidden_layers": 1}, r"more layers decoder\.decoder_layers"),
        ("13m_tiny", {"use_tanh_decoder": True}, "use_tanh_decoder True"),
    ],
)
def test_what_would_make_other_numbers_of_the_weights_is_refused(
    shared_data: Path, tmp_path: Path, name: str, changes: dict, told: str
) -> None:
    folder = shared_data / "parity" / name
    config = json.loads((folder / "meta.json").read_text())["config"]
    shutil.copy(folder / "state_dict.safetensors", tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(DataError, match=told) as error:
        read_released(tmp_path)
    assert error.value.file == str(tmp_path) and error.value.fix


def test_ends_of_another_shape_are_refused(shared_data: Path) -> None:
    folder = shared_data / "parity" / "111m_tiny"
    config = json.loads((folder / "meta.json").read_text())["config"]
    for name in ("vit.embeddings.patch_embeddings.projection", "decoder.decoder_pred"):
        state = load_file(folder / "state_dict.safetensors")
        state[f"{name}.weight"] = state[f"{name}.weight"][..., :10][:10]
        with pytest.raises(DataError, match="of another shape than 3 squares of 16"):
            read_published(config, state)


@pytest.mark.parametrize(
    ("preset", "published"), [("13m", 13_429_292), ("111m", 111_655_680), ("650m", 656_613_964)]
)
def test_presets_have_the_published_numbers_of_parameters(preset: str, published: int) -> None:
    config = ModelConfig.from_dict(load_preset(Model(preset=preset)))
    ours, full = (_parameters(one) for one in (config, replace(config, decoder="full")))
    marks = config.patch**2 if config.missing == "learned" else 0  # theirs are constants
    assert full - marks + folded_parameters(config) == published
    norms = config.decoder_layers * 2 * config.decoder_hidden  # of what is looked at
    assert ours - full == (norms if config.decoder == "cross" else 0)


def _parameters(config: ModelConfig) -> int:
    with torch.device("meta"):
        model = MaskedAutoencoder(config, torch.zeros(424, 3))
    return sum(parameter.numel() for parameter in model.parameters())


def test_fewer_landmarks_than_tokens_give_the_numbers_of_transformers_layers(
    shared_data: Path,
) -> None:
    """The 13M's layers approximate where their configuration says so: 64 tokens by 8 landmarks."""
    folder = shared_data / "parity" / "13m_tiny"
    about = json.loads((folder / "meta.json").read_text())["config"]
    about |= {"num_landmarks": 8, "segment_means_seq_len": 64}
    state = load_file(folder / "state_dict.safetensors")
    io = load_file(folder / "io.safetensors")
    published = read_published(about, state)
    assert published.config.landmarks == 8
    model = MaskedAutoencoder(published.config, io["xyz_vectors"]).eval()
    model.load_state_dict(published.state)
    names = ("hidden_size", "num_attention_heads", "intermediate_size", "hidden_act")
    names += ("num_landmarks", "segment_means_seq_len", "conv_kernel_size", "layer_norm_eps")
    config = NystromformerConfig(**{name: about[name] for name in names})
    signal, visible = io["signal_vectors"].float()[:1], torch.arange(0, 630, 10)[None]
    with torch.no_grad():
        patches = model.tokenizer.cut(signal)[:, visible[0]]
        x = torch.cat([model.cls, model.tokenizer(patches, visible)], dim=1)
        for number in range(published.config.layers):
            layer = NystromformerLayer(config).eval()
            start = f"vit.encoder.layer.{number}."
            layer.load_state_dict(
                {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
            )
            x = layer(x)[0]
        expected = model.encoder_norm(x)
        found = model.encode(signal, visible)
        assert not torch.allclose(_exactly(published, io).encode(signal, visible), found, atol=1e-3)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def _exactly(published: Published, io: dict[str, torch.Tensor]) -> MaskedAutoencoder:
    """The same network with exact attention."""
    config = replace(published.config, landmarks=0)
    model = MaskedAutoencoder(config, io["xyz_vectors"]).eval()
    model.load_state_dict(published.state)
    return model
