"""Models go to the Hugging Face Hub and come back whole; transformers reads them rightly.

The Hub's own client speaks to a Hub on this machine. `test_with_transformers_4` runs all of it
again with the versions in `.venv-hf4` (`make hf4`).
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from brainlm.errors import DataError, InputError, ResourceError
from brainlm.model import BrainLM
from brainlm.model.card import model_card
from brainlm.model.checkpoint import load_model
from brainlm.model.repository import MODEL_FILES
from brainlm.model.transformer import Attention

from . import hub_server
from .small_model import AGE, series, write_model

huggingface_hub = pytest.importorskip("huggingface_hub")
transformers = pytest.importorskip("transformers")
hub_module = pytest.importorskip("brainlm.model.hub")

from transformers import AutoConfig, AutoModel  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
HF4 = ROOT / ".venv-hf4"
REPO = "lab/brain"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A Hub on this machine, which this process is logged in to."""
    from huggingface_hub import constants, file_download

    with hub_server.serving() as hub:
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (constants, file_download):  # older versions read the latter
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _with_card(write_model(tmp_path / "model"))


def _with_card(folder: Path) -> Path:
    config = load_model(folder).config
    card = model_card("small", config, n_parameters=1, counts={}, training={}, results={})
    (folder / "README.md").write_text(card)
    return folder


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _windows() -> torch.Tensor:
    return torch.randn(3, 8, 40, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def _latents(folder: Path, signal: torch.Tensor) -> torch.Tensor:
    """Of our own reader."""
    encoder = load_model(folder).autoencoder
    return encoder.encode(signal, torch.arange(32).expand(len(signal), -1))


def _forget_connections() -> None:
    """Let the Hub's client make its connections anew."""
    if reset := getattr(huggingface_hub.utils, "reset_sessions", None):
        reset()


@pytest.mark.parametrize("head", [None, AGE])
def test_auto_model_gives_our_numbers(tmp_path: Path, head: dict | None) -> None:
    folder = write_model(tmp_path / "model", head=head)
    config = AutoConfig.from_pretrained(folder)
    assert config.model_type == "brainlm" and config.model["hidden"] == 32
    model = AutoModel.from_pretrained(folder)
    assert type(model).__name__ == "BrainLMModel" and not model.training
    signal = _windows()
    with torch.no_grad():
        output = model(signal)
    assert torch.equal(output.last_hidden_state, _latents(folder, signal))
    torch.testing.assert_close(output.pooler_output, output.last_hidden_state.mean(1))
    assert output.attentions is None
    assert model.network.state_dict().keys() == load_model(folder).model.state_dict().keys()


def test_attention_comes_when_asked_for(folder: Path) -> None:
    model = AutoModel.from_pretrained(folder, output_attentions=True)
    with torch.no_grad():
        output = model(_windows())
        plain = model(_windows(), output_attentions=False)
        last, pooled, attentions = model(_windows(), return_dict=False)
    assert [tuple(one.shape) for one in output.attentions] == [(3, 2, 33, 33)] * 2
    torch.testing.assert_close(output.attentions[0].sum(-1), torch.ones(3, 2, 33))
    assert plain.attentions is None
    torch.testing.assert_close(plain.last_hidden_state, last, atol=1e-5, rtol=1e-5)
    assert pooled.shape == (3, 32) and len(attentions) == 2


def test_parcels_without_data_are_left_out(folder: Path) -> None:
    model, signal = AutoModel.from_pretrained(folder), _windows()
    signal[:, 2] = torch.nan
    with torch.no_grad():
        found = model(signal).last_hidden_state
    assert found.shape == (3, 1 + 28, 32) and found.isfinite().all()
    signal[0, 5] = torch.nan
    with pytest.raises(InputError, match="24 to 28 tokens"):
        model(signal)
    with torch.no_grad():
        assert model(signal, visible=torch.tensor([[0, 1]] * 3)).last_hidden_state.shape[1] == 3


def test_the_class_itself_does_as_auto_model(folder: Path) -> None:
    model = hub_module.BrainLMModel.from_pretrained(str(folder), output_attentions=True)
    with torch.no_grad():
        output = model(_windows())
    torch.testing.assert_close(output.last_hidden_state, _latents(folder, _windows()))
    assert len(output.attentions) == 2
    with pytest.raises(TypeError, match="knows no mask_tokens"):
        hub_module.BrainLMModel.from_pretrained(folder, mask_tokens=3)


def test_who_computes_attention(folder: Path) -> None:
    backends = [
        {module.backend for module in model.modules() if isinstance(module, Attention)}
        for model in (
            AutoModel.from_pretrained(folder),
            AutoModel.from_pretrained(folder, attn_implementation="eager"),
        )
    ]
    assert backends == [{"sdpa"}, {"eager"}]


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("kind", ["bfloat16", torch.float16])
def test_half_precision(folder: Path, name: str, kind: object) -> None:
    model = AutoModel.from_pretrained(folder, **{name: kind})
    assert model.dtype == getattr(torch, str(kind).removeprefix("torch."))
    with torch.no_grad():
        found = model(_windows()).last_hidden_state.float()
    wanted = _latents(folder, _windows())
    assert 0 < (found - wanted).norm() / wanted.norm() < 0.03


@pytest.mark.parametrize("where", ["cpu", {"": "cpu"}, "auto", torch.device("cpu")])
def test_one_device(folder: Path, where: object) -> None:
    model = AutoModel.from_pretrained(folder, device_map=where, dtype="auto")
    wanted = "cuda" if where == "auto" and torch.cuda.is_available() else "cpu"
    assert model.device.type == wanted and model.dtype == torch.float32


def test_what_cannot_be_done_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="one device"):
        AutoModel.from_pretrained(folder, device_map={"a": "cpu", "b": "meta"})
    with pytest.raises(TypeError, match="knows no mask_tokens"):
        AutoModel.from_pretrained(folder, mask_tokens=3)
    with pytest.raises(InputError, match="dtype"):
        AutoModel.from_pretrained(folder, dtype="int8")
    with pytest.raises(InputError, match="config alone"):
        AutoModel.from_config(AutoConfig.from_pretrained(folder))
    (folder / "parcels.tsv").write_text("name\tx\ty\tz\n")
    with pytest.raises(DataError, match=r"parcels\.tsv"):
        AutoModel.from_pretrained(folder)


@pytest.mark.parametrize("head", [None, AGE])
def test_saved_again_it_is_the_same_folder(tmp_path: Path, head: dict | None) -> None:
    folder = write_model(tmp_path / "model", head=head)
    model = AutoModel.from_pretrained(folder)
    model.save_pretrained(tmp_path / "again")
    assert _bytes(tmp_path / "again") == _bytes(folder)
    with torch.no_grad():
        model.autoencoder.cls += 1
    model.save_pretrained(tmp_path / "other")
    assert (tmp_path / "other/model.safetensors").read_bytes() != (
        folder / "model.safetensors"
    ).read_bytes()
    AutoModel.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    load_model(tmp_path / "half")
    (folder / "README.md").unlink()
    AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "bare")
    assert _bytes(tmp_path / "bare") == _bytes(folder)


def test_a_folder_without_a_card_can_be_read(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").unlink()
    AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "copy")
    assert _bytes(tmp_path / "copy") == _bytes(folder)


def test_no_older_weights_stay_beside_a_new_config(folder: Path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    model = AutoModel.from_pretrained(folder)
    monkeypatch.setattr("brainlm.model.auto.save_state", fail)
    with pytest.raises(OSError, match="full"):
        model.save_pretrained(folder)
    assert not (folder / "model.safetensors").exists()


def test_there_and_back(hub, folder: Path) -> None:
    (folder / "model.json").write_text("{}")  # provenance, which names recordings: stays here
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/last.safetensors").write_bytes(b"x")
    url = hub_module.upload_model(folder, REPO, message="first")
    assert url.startswith(f"{hub.address}/{REPO}/commit/") and hub.commits[0]["summary"] == "first"
    assert set(hub.files(REPO)) == set(MODEL_FILES)
    fetched = hub_module.fetch_model(REPO)
    assert _bytes(fetched) == hub.files(REPO)
    signal = _windows()
    with torch.no_grad():
        found = AutoModel.from_pretrained(REPO)(signal).last_hidden_state
    assert torch.equal(found, _latents(folder, signal))
    asked = len(hub.requests)
    hub_module.fetch_model(REPO)
    assert not any("/resolve/" in path for _, path in hub.requests[asked:])


def test_push_to_hub_of_a_transformers_model(hub, folder: Path) -> None:
    model = AutoModel.from_pretrained(folder)
    model.push_to_hub(REPO, private=True, revision="trial", commit_message="second")
    assert hub.repositories[REPO].private and not hub.files(REPO)
    assert hub.files(REPO, "trial") == _bytes(folder)
    hub.repositories[REPO].branches["main"] = {"README.md": b"nothing yet"}
    assert _bytes(hub_module.fetch_model(REPO, revision="trial")) == _bytes(folder)
    with pytest.raises(InputError, match=r"no config\.json"):
        hub_module.fetch_model(REPO)


def test_a_private_repository_needs_a_token(hub, folder: Path, monkeypatch, tmp_path) -> None:
    hub_module.upload_model(folder, REPO, private=True)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(InputError, match="no such repository"):
        hub_module.fetch_model(REPO)
    found = AutoModel.from_pretrained(REPO, token=hub_server.TOKEN)
    assert found.network.state_dict().keys() == load_model(folder).model.state_dict().keys()


def test_the_class_for_users_goes_there_and_back(hub, folder: Path) -> None:
    model = BrainLM.from_pretrained(folder)
    model.push_to_hub(REPO, message="mine")
    assert hub.commits[0]["summary"] == "mine" and set(hub.files(REPO)) == set(MODEL_FILES)
    again = BrainLM.from_pretrained(REPO)
    assert (again.embed(series(40)) == model.embed(series(40))).all()


def test_a_subfolder_and_released_weights(hub) -> None:
    files = {"a/config.json": b"{}", "a/pytorch_model.bin": b"w", "b/config.json": b"{}"}
    files |= {"b/model.safetensors": b"w", "b/pytorch_model.bin": b"w", "b/optimizer.bin": b"o"}
    hub.repositories[REPO] = hub_server.Repository(branches={"main": files})
    found = hub_module.fetch_model(REPO, "a")
    assert found.name == "a" and set(_bytes(found)) == {"config.json", "pytorch_model.bin"}
    assert set(_bytes(hub_module.fetch_model(REPO, "b"))) == {"config.json", "model.safetensors"}
    with pytest.raises(InputError, match=r"no c/config\.json") as told:
        hub_module.fetch_model(REPO, "c")
    assert "choose a subfolder: a, b" in str(told.value)


def test_what_the_hub_refuses_is_told(hub, folder: Path, monkeypatch) -> None:
    with pytest.raises(InputError, match="no such repository"):
        hub_module.fetch_model("lab/nothing")
    with pytest.raises(InputError, match="no such repository"):
        hub_module.fetch_model("a/path/of/folders")
    hub.repositories[REPO] = hub_server.Repository()
    with pytest.raises(InputError, match="no such revision"):
        hub_module.fetch_model(REPO, revision="v9")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(InputError, match="hf auth login") as told:
        hub_module.upload_model(folder, "lab/new")
    assert "hf_wrong" not in str(told.value)
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    (folder / "README.md").write_text("---\nlicense: mine\n---\n")
    with pytest.raises(InputError, match=r"refuses it .*no library"):
        hub_module.upload_model(folder, "lab/new")
    assert not hub.commits
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ResourceError, match="does not answer"):
        hub_module.fetch_model("lab/elsewhere")
    with pytest.raises(ResourceError, match="does not answer"):
        hub_module.upload_model(folder, "lab/elsewhere")


def test_without_network_the_cache_serves(hub, folder: Path, monkeypatch) -> None:
    hub_module.upload_model(folder, REPO)
    hub_module.fetch_model(REPO)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _forget_connections()  # older versions ask for it when they make one
    asked = len(hub.requests)
    assert _bytes(hub_module.fetch_model(REPO)) == hub.files(REPO)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        hub_module.fetch_model("lab/nothing")
    assert len(hub.requests) == asked
    monkeypatch.undo()
    _forget_connections()


def test_released_weights_are_not_passed_on(hub, tmp_path: Path) -> None:
    about = {"source": "vandijklab/brainlm"}
    folder = _with_card(write_model(tmp_path / "released", released=about))
    older = write_model(tmp_path / "older")
    (older / "model.json").write_text(json.dumps({"Released": about}))
    for one in (folder, older):
        with pytest.raises(InputError, match="CC BY-NC-ND"):
            hub_module.upload_model(one, REPO)
    with pytest.raises(InputError, match="CC BY-NC-ND"):
        AutoModel.from_pretrained(folder).push_to_hub(REPO)
    assert not hub.requests
    hub.repositories["lab/public"] = hub_server.Repository()
    with pytest.raises(InputError, match="exists and is public"):
        hub_module.upload_model(folder, "lab/public", private=True)
    assert not hub.commits
    hub_module.upload_model(folder, "lab/mine", private=True)
    assert hub.repositories["lab/mine"].private and hub.files("lab/mine")


def test_nor_by_way_of_a_library(hub, tmp_path: Path) -> None:
    """An older folder tells of them in the weights' sidecar alone, which is not saved again."""
    older = _with_card(write_model(tmp_path / "older"))
    (older / "model.json").write_text(json.dumps({"Released": {"source": "vandijklab/brainlm"}}))
    for kind in (AutoModel, BrainLM):
        with pytest.raises(InputError, match="must not be passed on"):
            kind.from_pretrained(older).push_to_hub("lab/mine")
    assert not hub.requests


def test_a_folder_that_is_not_whole_is_not_uploaded(hub, folder: Path) -> None:
    (folder / "parcels.tsv").write_text("changed\n")
    with pytest.raises(DataError, match=r"parcels\.tsv is not the one"):
        hub_module.upload_model(folder, REPO)
    (folder / "parcels.tsv").unlink()
    with pytest.raises(InputError, match=r"parcels\.tsv is not there"):
        hub_module.upload_model(folder, REPO)
    assert not hub.requests


def test_the_token_is_told_to_nobody(hub, folder: Path, caplog, capsys) -> None:
    caplog.set_level(logging.DEBUG)
    hub_module.upload_model(folder, REPO)
    hub_module.fetch_model(REPO)
    hub.status = 500
    with pytest.raises(ResourceError) as told:
        hub_module.upload_model(folder, REPO)
    said = capsys.readouterr()
    assert hub_server.TOKEN not in caplog.text + said.out + said.err + repr(
        told.getrepr(chain=True)
    )


@pytest.mark.slow
@pytest.mark.skipif(transformers.__version__.startswith("4."), reason="these are they")
def test_with_transformers_4() -> None:
    if not HF4.is_dir():
        pytest.skip("transformers 4 is not here: make hf4")
    path = os.pathsep.join([str(HF4), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", __file__],
        env={**os.environ, "PYTHONPATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
