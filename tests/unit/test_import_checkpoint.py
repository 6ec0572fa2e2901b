"""A released model becomes a model of the study, whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from brainlm.cli.evaluate_reconstruction import evaluate_reconstruction
from brainlm.cli.finetune import finetune
from brainlm.cli.import_checkpoint import import_checkpoint
from brainlm.errors import DataError, InputError
from brainlm.layout import Study
from brainlm.model.checkpoint import load_model
from brainlm.provenance import sidecar_path

from . import synthetic_cohort


@pytest.fixture
def released(shared_data: Path, tmp_path: Path) -> Path:
    """A folder as the authors' repository has it."""
    folder = tmp_path / "released" / "vitmae_tiny"
    folder.mkdir(parents=True)
    source = shared_data / "parity" / "111m_tiny"
    config = json.loads((source / "meta.json").read_text())["config"]
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copyfile(source / "state_dict.safetensors", folder / "model.safetensors")
    return folder


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study of 424 parcels with shards."""
    monkeypatch.setattr(synthetic_cohort, "PARCELS", 424)
    study = synthetic_cohort.write_study(
        tmp_path / "study",
        {"train": 3, "val": 1, "test": 2},
        volumes=200,
        options={
            "pretrain": {"run": "released"},
            "finetune": {
                "targets": [{"name": "score", "kind": "regression"}],
                "epochs": 1,
                "freeze_encoder": True,
            },
        },
    )
    synthetic_cohort.make_shards(study)
    return study


def _weights(study: Study) -> dict[str, torch.Tensor]:
    return load_file(study.path("model", run="released"))


def test_it_is_loaded_as_any_other_model(study: Study, released: Path) -> None:
    import_checkpoint(str(released.parent), "vitmae_tiny", study.root)
    loaded = load_model(study.path("model", run="released").parent)
    assert loaded.config.tokenizer == "image" and loaded.config.padding == "square"
    assert loaded.card.split_sha256 is None
    about = json.loads(sidecar_path(study.path("model", run="released")).read_text())
    assert about["Released"]["subfolder"] == "vitmae_tiny"
    card = study.path("model", run="released").with_name("README.md").read_text()
    assert "CC BY-NC-ND 4.0" in card
    evaluate_reconstruction(study.root)
    scores = json.loads(study.path("reconstruction", run="released").read_text())
    assert scores["n_subjects"] == 2 and scores["metrics"]["mse"]["value"] > 0


def test_where_it_comes_from_stays_with_what_is_made_of_it(study: Study, released: Path) -> None:
    import_checkpoint(str(released.parent), "vitmae_tiny", study.root)
    finetune("score", study.root)
    for kind, fields in (("model", {}), ("finetuned", {"target": "score"})):
        folder = study.path(kind, run="released", **fields).parent
        about = load_model(folder).card.released
        assert about is not None and about["subfolder"] == "vitmae_tiny"
        assert 'license: "cc-by-nc-nd-4.0"' in (folder / "README.md").read_text()


def test_a_torch_file_gives_the_same_and_runs_no_code(study: Study, released: Path) -> None:
    import_checkpoint(str(released), None, study.root)
    before = _weights(study)
    state = load_file(released / "model.safetensors")
    (released / "model.safetensors").unlink()
    torch.save(state, released / "pytorch_model.bin")
    import_checkpoint(str(released), None, study.root)
    after = _weights(study)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    torch.save({"weights": Path("/")}, released / "pytorch_model.bin")
    with pytest.raises(DataError, match="cannot be read"):
        import_checkpoint(str(released), None, study.root)


def test_what_is_missing_is_told(study: Study, released: Path, monkeypatch) -> None:
    with pytest.raises(InputError, match=r"no config\.json") as told:
        import_checkpoint(str(released.parent), None, study.root)
    assert "vitmae_tiny" in str(told.value)
    with pytest.raises(InputError, match="Which model"):
        import_checkpoint(None, None, study.root)
    state = load_file(released / "model.safetensors")
    short = {
        name: value for name, value in state.items() if "layer.1.output.dense.bias" not in name
    }
    save_file(short, released / "model.safetensors")
    with pytest.raises(DataError, match=r"lacks the weights vit\.encoder\.layer\.1\.output"):
        import_checkpoint(str(released), None, study.root)
    (released / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match="cannot be read"):
        import_checkpoint(str(released), None, study.root)
    (released / "model.safetensors").unlink()
    for other in ([1, 2], {"model": state, "epoch": 3}):
        torch.save(other, released / "pytorch_model.bin")
        with pytest.raises(DataError, match="something else than weights"):
            import_checkpoint(str(released), None, study.root)
    (released / "config.json").write_text("[1]")
    with pytest.raises(DataError, match="no JSON object"):
        import_checkpoint(str(released), None, study.root)
    assert not study.path("model", run="released").exists()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="is no folder here"):
        import_checkpoint("nobody/nothing", None, study.root)
