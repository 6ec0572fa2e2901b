"""A released model becomes a model of the study, whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from brainlm.cli.embed import embed
from brainlm.cli.evaluate_clinical import evaluate_clinical
from brainlm.cli.evaluate_reconstruction import evaluate_reconstruction
from brainlm.cli.finetune import finetune
from brainlm.cli.import_checkpoint import import_checkpoint
from brainlm.errors import DataError, InputError
from brainlm.layout import Study
from brainlm.model import BrainLM, fit_scaler
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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of 424 parcels with shards, for each test to copy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_cohort, "PARCELS", 424)
        study = synthetic_cohort.write_study(
            tmp_path_factory.mktemp("made") / "study",
            {"train": 3, "val": 1, "test": 2},
            volumes=200,
            options={
                "pretrain": {"run": "released"},
                "finetune": {
                    "targets": [{"name": "score", "kind": "regression"}],
                    "epochs": 1,
                    "mode": "head",
                },
            },
        )
        synthetic_cohort.make_shards(study)
    return study.root


@pytest.fixture
def study(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study of 424 parcels with shards."""
    monkeypatch.setattr(synthetic_cohort, "PARCELS", 424)
    shutil.copytree(made, tmp_path / "study")
    return Study(tmp_path / "study")


@pytest.fixture
def finetuned(shared_data: Path, tmp_path: Path) -> Path:
    """A released folder whose model has a head on CLS."""
    folder = tmp_path / "released" / "finetuned"
    folder.mkdir(parents=True)
    source = shared_data / "parity" / "finetune_tiny"
    config = json.loads((source / "meta.json").read_text())["config"]
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copyfile(source / "state_dict.safetensors", folder / "model.safetensors")
    return folder


def _change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


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


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, "ft_mse_cls"),
        ({"use_mean_pooling": True}, "ft_mse_mean"),
        ({"sigmoid_outputs": True}, "ft_mse_sigmoid"),
    ],
)
def test_a_released_folder_predicts_as_its_authors_do(
    shared_data: Path, finetuned: Path, changes: dict, key: str
) -> None:
    _change_config(finetuned, **changes)
    io = load_file(shared_data / "parity" / "finetune_tiny" / "io.safetensors")
    model = BrainLM.from_pretrained(finetuned)
    assert model.scaler is None and model.head is not None and model.head.unit == "as released"
    assert list(model.parcels["name"][:2]) == ["R_V1_ROI", "R_MST_ROI"]
    kept = int((io["patch_mask"][0] == 0).sum())
    rows = model.autoencoder.tokenizer.inverse  # theirs are an image's rows already
    for row in range(2):
        visible = io["noise"][row].argsort(stable=True)[:kept]
        series = io["signal"][row][rows].T.float() * model.config.input_scale
        found = model.predict(series, visible=visible, scaled=True)
        assert found == pytest.approx(float(io[f"{key}.logits"][row]), rel=1e-5)
    with pytest.raises(InputError, match="has no scaler"):
        model.predict(series.numpy() * 100)
    with pytest.raises(InputError, match="has no scaler"):
        model.save_pretrained(finetuned.parent / "copy")


def test_a_released_model_with_ones_own_scaler_is_whole_but_not_to_be_passed_on(
    study: Study, finetuned: Path, tmp_path: Path
) -> None:
    raw = synthetic_cohort.simulate(0.3, 200, np.random.default_rng(3))
    model = BrainLM.from_pretrained(finetuned)
    own = model.with_scaler(fit_scaler([raw, raw[::-1]], list(model.parcels["name"])))
    own.save_pretrained(tmp_path / "own")
    again = BrainLM.from_pretrained(tmp_path / "own")
    assert again.predict(raw) == own.predict(raw) and again.head == model.head
    with pytest.raises(InputError, match="must not be passed on"):
        again.push_to_hub("somebody/own")
    with pytest.raises(InputError, match="fitted on other parcels"):  # this study's atlas is none
        model.with_scaler(study.path("scaler"))


def test_a_head_comes_along_in_the_labels_unit(study: Study, finetuned: Path, capsys) -> None:
    def imported(**options: object) -> BrainLM:
        import_checkpoint(str(finetuned), None, study.root, **options)
        target = str(options.get("target", "released"))
        return BrainLM.from_pretrained(
            study.path("finetuned", run="released", target=target).parent
        )

    raw = synthetic_cohort.simulate(0.3, 200, np.random.default_rng(3))
    plain = imported()
    assert "nobody knows the unit" in capsys.readouterr().err
    output = plain.predict(raw)
    assert imported(target="age", mean=50.0, sd=8.0).predict(raw) == pytest.approx(50 + 8 * output)
    assert "nobody knows" not in capsys.readouterr().err
    found = imported(target="gad7", smallest=1.0, largest=21.0, log="log1p").predict(raw)
    low, high = np.log1p([1.0, 21.0])
    assert found == pytest.approx(np.expm1(low + (high - low) * output))
    sex = imported(target="sex", kind="binary", positive="F")
    assert sex.head is not None and sex.head.positive == "F"
    assert sex.predict(raw) == pytest.approx(1 / (1 + np.exp(-output)))
    with pytest.raises(InputError, match=r"head\.kind must be"):
        imported(target="age", kind="ordinal")
    with pytest.raises(InputError, match=r"head\.sd must be"):
        imported(target="age", mean=50.0, sd=0.0)
    _change_config(finetuned, loss_fn="bce")
    assert imported(target="sex").head.kind == "binary"
    body = load_model(study.path("model", run="released").parent)
    assert body.card.head is None and body.card.released == sex.loaded.card.released
    about = json.loads(
        sidecar_path(study.path("finetuned", run="released", target="age")).read_text()
    )
    assert about["Head"]["sd"] == 8.0 and about["Released"]["source"] == str(finetuned)


def test_a_released_head_is_scored_in_the_labels_unit(study: Study, finetuned: Path) -> None:
    import_checkpoint(str(finetuned), None, study.root, target="score")
    embed(study.root)
    with pytest.raises(DataError, match="is not known to predict score") as told:
        evaluate_clinical("score", study.root)
    assert "--mean and --sd" in str(told.value)
    import_checkpoint(str(finetuned), None, study.root, target="score", mean=36.0, sd=4.0)
    with pytest.raises(DataError, match="9 SD away: another unit"):  # years, say, for decades
        evaluate_clinical("score", study.root)
    import_checkpoint(str(finetuned), None, study.root, target="score", mean=3.0, sd=0.5)
    evaluate_clinical("score", study.root)
    table = pd.read_parquet(study.path("clinical_predictions", run="released", target="score"))
    model = BrainLM.from_pretrained(study.path("finetuned", run="released", target="score").parent)
    raw = pd.read_parquet(synthetic_cohort.series_path(study, table["recording_id"][0]))
    # Looks are drawn anew, and shards hold float16.
    assert table["brainlm"][0] == pytest.approx(model.predict(raw), abs=0.01)
    assert abs(table["brainlm"] - 3.0).max() < 0.5 and len(table) == 2


def test_what_is_refused_leaves_nothing_behind(study: Study, finetuned: Path) -> None:
    state = load_file(finetuned / "model.safetensors")
    with pytest.raises(InputError, match=r"head\.sd must be"):
        import_checkpoint(str(finetuned), None, study.root, target="age", mean=50.0, sd=0.0)
    save_file({**state, "mlp_pred_head.lin3.bias": torch.zeros(2)}, finetuned / "model.safetensors")
    with pytest.raises(DataError, match=r"another shape: head\.6\.bias"):
        import_checkpoint(str(finetuned), None, study.root)
    assert not (study.root / "models").exists()


@pytest.mark.parametrize("name", ["13m_tiny", "111m_tiny", "650m_tiny"])
def test_a_released_folder_encodes_as_its_authors_do(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    """What comes out of the class that people use: parcels in atlas order, tokens by number."""
    source = shared_data / "parity" / name
    config = json.loads((source / "meta.json").read_text())["config"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copyfile(source / "state_dict.safetensors", tmp_path / "model.safetensors")
    io = load_file(source / "io.safetensors")
    model = BrainLM.from_pretrained(tmp_path)
    tokenizer = model.autoencoder.tokenizer
    signal = io.get("signal", io.get("signal_vectors"))[1].float()
    if model.config.tokenizer == "image":  # theirs are an image's rows already
        signal = signal[tokenizer.inverse] * model.config.input_scale
    wanted = io["last_hidden_state"][1].numpy()
    visible = io["ids_restore"][1].long().argsort()[: len(wanted) - 1].tolist()
    about = {"visible": visible, "scaled": True, "unit_check": False}
    found = model.latents(signal.T, **about)
    np.testing.assert_allclose(found.cls[0], wanted[0], atol=1e-5)
    np.testing.assert_allclose(found.tokens[0, visible], wanted[1:], atol=1e-5)
    np.testing.assert_allclose(model.embed(signal.T, **about), wanted.mean(axis=0), atol=1e-5)
    row = np.zeros((2, tokenizer.tokens))
    row[:, visible] = io["attn_cls_row.1"][1][:, 1:]
    looks_at = model.attention(signal.T, head="all", **about)
    token_of = model.token_of
    for parcel in (0, 7, 423):
        own = np.intersect1d(np.unique(token_of[:, parcel]), visible)
        parts = [row[:, t] / len(np.unique(np.nonzero(token_of == t)[1])) for t in own]
        wanted_here = np.mean(parts, axis=0) if parts else np.full(2, np.nan)
        np.testing.assert_allclose(looks_at[:, parcel], wanted_here, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mean": 5.0}, "--mean and --sd go together"),
        ({"target": "age", "smallest": 5.0}, "--min and --max go together"),
        ({"mean": 5.0, "sd": 1.0}, "--target NAME"),
        ({"target": "age", "mean": 5.0, "sd": 1.0, "smallest": 0.0, "largest": 1.0}, "either"),
        ({"target": "age", "log": "log"}, "--log if"),
        ({"target": "age", "log": "ln"}, "--log must be"),
        ({"kind": "binary"}, "go with --target"),
        ({"target": "sex", "positive": "F"}, "goes with --kind binary"),
        ({"target": "a/b"}, "letters, digits and _"),
        ({"target": "age", "kind": "binary", "mean": 5.0, "sd": 1.0}, "has no scale"),
        ({"target": "age", "smallest": 0.0, "largest": 1.0, "log": "log"}, "--min 0 has no log"),
    ],
)
def test_what_is_told_of_a_label_must_fit(tmp_path: Path, options: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        import_checkpoint("source", None, tmp_path, **options)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"hidden_act": "relu"}, "says hidden_act 'relu'; released models have 'gelu'"),
        ({"qkv_bias": False}, "says qkv_bias False"),
        ({"num_channels": 1}, "of 1 channels"),
        ({"image_size": [448, 448]}, r"images are \[448, 448\].* make \[432, 432\]"),
        ({"image_size": [432, 448]}, r"make \[432, 432\]"),
        ({"hidden_size": 30}, "must be multiples of 4"),
        ({"hidden_size": "wide"}, "do not fit together"),
        ({"patch_size": None}, "do not fit together"),
    ],
)
def test_settings_that_would_give_other_numbers_are_refused(
    released: Path, changes: dict, told: str
) -> None:
    """The weights alone would fit: nobody would notice."""
    _change_config(released, **changes)
    with pytest.raises(DataError, match=told) as error:
        BrainLM.from_pretrained(released)
    assert error.value.file == str(released) and error.value.fix


def test_a_released_model_knows_its_tr(released: Path) -> None:
    model = BrainLM.from_pretrained(released)
    scaled = np.random.default_rng(0).standard_normal((200, 424))
    assert model.tr == 0.735
    with pytest.raises(DataError, match=r"TR of 2 s, the model was trained at 0\.735 s"):
        model.embed(scaled, tr=2.0, scaled=True)
    model.embed(scaled, tr=0.735, scaled=True)
    with pytest.raises(InputError, match=r"fitted on series with a TR of 2 s"):
        model.with_scaler(fit_scaler([scaled], list(model.parcels["name"]), tr=2.0))


def test_data_unlike_theirs_are_told(study: Study, released: Path, capsys) -> None:
    import_checkpoint(str(released), None, study.root)
    told = " ".join(capsys.readouterr().err.split())
    assert "a TR of 2 s, the released models were trained at 0.735 s" in told
    assert "not those of A424" in told


def test_two_classes_have_no_scale(study: Study, finetuned: Path) -> None:
    _change_config(finetuned, loss_fn="bce")
    with pytest.raises(InputError, match="two classes"):
        import_checkpoint(str(finetuned), None, study.root, target="age", mean=5.0, sd=1.0)


def test_as_much_is_hidden_as_config_json_tells(released: Path) -> None:
    _change_config(released, mask_ratio=0.9)
    assert BrainLM.from_pretrained(released).loaded.card.mask_ratio == 0.9


def test_a_label_without_a_head_is_refused(study: Study, released: Path) -> None:
    with pytest.raises(InputError, match="has no head"):
        import_checkpoint(str(released), None, study.root, target="age", mean=5.0, sd=1.0)
    assert not study.path("model", run="released").exists()


def test_weights_that_are_not_known_or_not_there_are_all_named(
    study: Study, released: Path, capsys
) -> None:
    state = load_file(released / "model.safetensors")
    save_file({**state, "vit.extra": torch.zeros(1)}, released / "model.safetensors")
    with pytest.warns(UserWarning, match=r"not known, and not used: vit\.extra"):
        BrainLM.from_pretrained(released)
    import_checkpoint(str(released), None, study.root)
    assert "not known, and not used: vit.extra" in capsys.readouterr().err
    gone = ("decoder.decoder_pred.bias", "vit.embeddings.cls_token", "vit.layernorm.weight")
    few = {name: value for name, value in state.items() if name not in gone}
    save_file(few, released / "model.safetensors")
    with pytest.raises(DataError, match=f"lacks the weights {', '.join(gone)}\n"):
        import_checkpoint(str(released), None, study.root)
    wide = {**state, "vit.layernorm.weight": torch.zeros(7)}
    save_file(wide, released / "model.safetensors")
    with pytest.raises(DataError, match=r"another shape: encoder_norm\.weight \(7,\), expected"):
        import_checkpoint(str(released), None, study.root)
