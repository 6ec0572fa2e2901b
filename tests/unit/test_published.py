"""The released models' numbers, from tiny ones that their authors' own code made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import split_tokens
from brainlm.model.published import Published, read_published

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
