"""Fine-tuning finds a planted label, keeps its best epoch, and refuses what cannot be learned."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from brainlm.cli.evaluate_clinical import evaluate_clinical
from brainlm.cli.finetune import finetune as command
from brainlm.cli.pretrain import pretrain as pretrain_command
from brainlm.config import load_config
from brainlm.errors import DataError, InputError
from brainlm.model import BrainLM
from brainlm.model.checkpoint import load_model
from brainlm.model.mask import generator
from brainlm.shards.reader import ShardReader
from brainlm.train.finetune import predict
from brainlm.train.labelled import labelled_data

from .tuning_study import CONFIG, GROUP, SCORE, make_study, tune, untrained


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = make_study(tmp_path_factory.mktemp("finetune"))
    pretrain_command(study.root)
    return study


@pytest.fixture(scope="module")
def reader(study):
    return ShardReader(study.path("shards_index"))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def _outputs(model, reader, lengths) -> np.ndarray:
    found = predict(model, reader, lengths, mask_ratio=0.5, seed=1, batch_size=4)
    assert list(found) == sorted(lengths)
    return np.array(list(found.values()))


def test_a_planted_score_is_found_in_new_subjects(reader) -> None:
    model, data, rows = tune(reader, SCORE)
    test = data.lengths["test"]
    truth = np.array([data.values[name] for name in sorted(test)])
    guess = data.scale.to_label(_outputs(model, reader, test))
    assert np.corrcoef(truth, guess)[0, 1] > 0.7
    assert min(row["val_loss"] for row in rows) < 0.6


def test_a_planted_class_is_found_in_new_subjects(reader) -> None:
    model, data, _ = tune(reader, GROUP)
    test = data.lengths["test"]
    truth = np.array([data.values[name] for name in sorted(test)])
    logits = _outputs(model, reader, test)
    assert logits[truth == 1].mean() > logits[truth == 0].mean() + 0.5


def _poor(series: np.ndarray) -> np.ndarray:
    """The recording with data in two of its parcels alone."""
    return np.where(np.arange(series.shape[1]) < 2, series, np.float32(np.nan))


def test_a_prediction_does_not_depend_on_who_else_is_predicted(study, reader, monkeypatch) -> None:
    """To the last bit, also beside a recording of few parcels; and `BrainLM` says the same."""
    model = untrained()
    model.initialize_head(generator(0))
    torch.nn.init.normal_(model.head[-1].weight, generator=generator(1))
    lengths = labelled_data(reader, SCORE, CONFIG.timepoints).lengths["test"]
    place = {"mask_ratio": 0.5, "seed": 1, "batch_size": 5}
    together = predict(model, reader, lengths, **place)
    assert np.std(list(together.values())) > 0.01
    for name, length in lengths.items():
        assert predict(model, reader, {name: length}, **place)[name] == together[name]

    poorest, plain = min(lengths), reader.series
    monkeypatch.setattr(
        reader, "series", lambda name: _poor(plain(name)) if name == poorest else plain(name)
    )
    beside = predict(model, reader, lengths, **place)
    assert beside.pop(poorest) != together.pop(poorest)
    assert beside == together


def test_the_command_predicts_what_the_python_interface_does(study, tmp_path) -> None:
    own = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    command("score", own.root)
    evaluate_clinical("score", own.root)
    table = pd.read_parquet(own.path("clinical_predictions", run="brainlm", target="score"))
    model = BrainLM.from_pretrained(own.path("finetuned", run="brainlm", target="score").parent)
    reader, seed = ShardReader(own.path("shards_index")), load_config(own.path("config")).seed
    for row in table.itertuples():
        scaled = reader.series(row.recording_id)
        assert model.predict(scaled, scaled=True, seed=seed) == row.brainlm


def test_the_best_epoch_is_kept(reader) -> None:
    model, data, rows = tune(reader, SCORE, learning_rate=0.03, epochs=25)
    assert min(rows, key=lambda row: row["val_loss"])["epoch"] < rows[-1]["epoch"]
    truth = np.array([data.values[name] for name in sorted(data.lengths["val"])])
    outputs = _outputs(model, reader, data.lengths["val"])
    error = np.mean((outputs - data.scale.to_model(truth)) ** 2)
    assert error == pytest.approx(min(row["val_loss"] for row in rows), rel=1e-4)


def test_a_frozen_encoder_stays_as_it_was(reader) -> None:
    model, _, _ = tune(reader, SCORE, mode="head", epochs=2)
    before = untrained().state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("autoencoder."), name


def test_the_scale_is_that_of_the_train_split(reader) -> None:
    data = labelled_data(reader, SCORE, CONFIG.timepoints)
    train = reader.recordings("train")["label_score"].astype(float)
    assert data.scale.mean == pytest.approx(train.mean())
    assert data.scale.sd == pytest.approx(train.std(ddof=0))
    assert data.n_missing == 0


@pytest.mark.parametrize(
    ("change", "target", "told"),
    [
        (lambda t: t.assign(label_score=3.0), SCORE, "is constant in the train split"),
        (lambda t: t.assign(label_group="patient"), GROUP, "has one class only"),
        (
            lambda t: t.assign(label_score=t["label_score"].where(t["subject"].isin(["01", "25"]))),
            SCORE,
            "Too few subjects have the label score: 1 to train on",
        ),
        (
            lambda t: t.assign(label_score=t["label_score"].where(t["split"] != "val")),
            SCORE,
            "0 recordings to validate on",
        ),
    ],
)
def test_labels_nothing_can_be_learned_from_are_refused(
    study, reader, monkeypatch, change, target, told
) -> None:
    monkeypatch.setattr(reader, "table", change(reader.table))
    with pytest.raises(DataError, match=told):
        labelled_data(reader, target, CONFIG.timepoints)


def test_missing_labels_are_left_out_and_counted(reader, monkeypatch) -> None:
    table = reader.table
    monkeypatch.setattr(
        reader,
        "table",
        table.assign(label_score=table["label_score"].where(~table["subject"].isin(["01", "25"]))),
    )
    data = labelled_data(reader, SCORE, CONFIG.timepoints)
    assert data.missing == {"train": 1, "val": 1, "test": 0}
    assert data.told_missing == "2 recordings (1 train, 1 val)"
    assert len(data.lengths["train"]) == 23
    assert len(data.lengths["val"]) == 7


def test_the_command_repeats_itself_and_says_what_its_output_means(study) -> None:
    command("score", study.root)
    folder = study.path("finetuned", run="brainlm", target="score").parent
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    shutil.rmtree(folder / "checkpoints")
    command("score", study.root)
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after == before
    loaded = load_model(folder)
    assert loaded.card.head is not None
    assert loaded.card.head["name"] == "score"
    train = ShardReader(study.path("shards_index")).recordings("train")["label_score"]
    assert loaded.card.head["mean"] == pytest.approx(float(train.astype(float).mean()))
    rows = [json.loads(line) for line in before["metrics.jsonl"].decode().splitlines()]
    assert set(rows[0]) == {"repeat", "step", "epoch", "lr", "loss", "grad_norm"}
    assert any("val_loss" in row for row in rows)
    with pytest.raises(InputError, match=r"age is not among the targets.*score, group"):
        command("age", study.root)


def test_the_command_goes_on_from_the_pretrained_encoder(study, tmp_path) -> None:
    copy = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    config = json.loads(copy.path("config").read_text())
    config["finetune"]["mode"] = "head"
    copy.path("config").write_text(json.dumps(config))
    command("score", copy.root)
    pretrained = load_model(copy.path("model", run="brainlm").parent)
    tuned = load_model(copy.path("finetuned", run="brainlm", target="score").parent)
    found = tuned.autoencoder.state_dict()
    for name, value in pretrained.autoencoder.state_dict().items():
        assert torch.equal(value, found[name]), name
