"""Fine-tuning finds a planted label, keeps its best epoch, and refuses what cannot be learned."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from brainlm.cli.embed import embed
from brainlm.cli.evaluate_clinical import evaluate_clinical
from brainlm.cli.finetune import finetune as command
from brainlm.cli.pretrain import pretrain as pretrain_command
from brainlm.config import Finetune, load_config
from brainlm.errors import DataError, InputError
from brainlm.evaluate.baselines.connectivity import predict_from_features, span_of_train
from brainlm.evaluate.embeddings import embed_series
from brainlm.evaluate.label_baselines import groups_of
from brainlm.model import BrainLM
from brainlm.model.checkpoint import load_model
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import generator
from brainlm.shards.reader import ShardReader
from brainlm.train.finetune import predict
from brainlm.train.label_scores import regression_scores
from brainlm.train.labelled import labelled_data, loss_function
from brainlm.train.settings import read_finetune

from .synthetic_cohort import make_shards, write_recordings, write_study
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
    monkeypatch.setattr(reader, "series", lambda name: np.full((60, 8), np.nan, np.float32))
    with pytest.raises(DataError, match=f"{poorest} has no parcel with data"):
        predict(model, reader, lengths, **place | {"mask_ratio": 0.0})


def test_the_command_predicts_what_the_python_interface_does(study, tmp_path) -> None:
    own = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    command("score", own.root)
    embed(own.root)
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


def test_a_class_that_train_has_not_is_left_out_where_it_is(reader, monkeypatch) -> None:
    table = reader.table.copy()
    table["label_three"] = np.resize(["a", "b", "c"], len(table))
    test = table.index[table["split"] == "test"]
    table.loc[test[:2], "label_three"] = "unheard of"
    monkeypatch.setattr(reader, "table", table)
    three = replace(SCORE, name="three", kind="classes")
    data = labelled_data(reader, three, CONFIG.timepoints)
    assert data.classes == ("a", "b", "c")
    assert data.missing == {"train": 0, "val": 0, "test": 2}
    assert not set(test[:2]) & set(data.lengths["test"])


def test_visits_keep_their_own_labels_and_a_subject_its_side(tmp_path) -> None:
    """Two recordings of a person may lie years apart; they are never on two sides of a fit."""
    study = write_study(tmp_path / "study", {"train": 6, "val": 2, "test": 2}, runs=2)
    table = pd.read_parquet(study.path("recordings"))
    table["label_age"] = 50.0 + np.arange(len(table)) % 2 * 4 + table["subject"].astype(int)
    write_recordings(study, table)
    reader = ShardReader(make_shards(study))
    data = labelled_data(reader, replace(SCORE, name="age"), CONFIG.timepoints)
    told = table.set_index("recording_id")["label_age"]
    assert data.values == told.to_dict()
    first, second = (f"sub-01_task-rest_run-{run}" for run in (1, 2))
    assert data.values[second] - data.values[first] == 4
    train = sorted(data.lengths["train"])
    assert len(train) == 12
    groups = groups_of(reader, train)
    assert groups[train.index(first)] == groups[train.index(second)] == "01"
    errors = loss_function("regression", data, "none")(torch.zeros(2), (first, second))
    expected = data.scale.to_model(data.truth([first, second])) ** 2
    assert float(errors.total) == pytest.approx(expected.sum(), rel=1e-5)


@pytest.mark.parametrize("weights", ["balanced", "none"])
@pytest.mark.parametrize("kind", ["regression", "binary", "classes"])
def test_a_loss_may_be_put_together_from_parts(reader, monkeypatch, kind, weights) -> None:
    """And a class weighs as the train split has it."""
    table = reader.table.copy()
    values = {"regression": [1.0, 5, 2, 9], "binary": [0, 0, 0, 1], "classes": list("aaabc")}
    table["label_y"] = np.resize(values[kind], len(table))
    monkeypatch.setattr(reader, "table", table)
    data = labelled_data(reader, replace(SCORE, name="y", kind=kind), CONFIG.timepoints)
    names = sorted(data.lengths["val"])
    shape = (len(names), 3) if kind == "classes" else (len(names),)
    outputs = torch.randn(shape, generator=generator(0))
    loss_of = loss_function(kind, data, weights)
    whole = loss_of(outputs, names)
    parts = (loss_of(outputs[:3], names[:3]), loss_of(outputs[3:], names[3:]))
    total, weight = (sum(part[number] for part in parts) for number in range(2))
    assert float(total / weight) == pytest.approx(float(whole.mean), rel=1e-5)
    truth = data.truth(names)
    if kind == "classes":
        chance = outputs.softmax(1)[torch.arange(len(names)), truth.astype(int)].log()
        share = np.bincount(data.truth(sorted(data.lengths["train"])).astype(int))
        of_class = share.sum() / (3 * share) if weights == "balanced" else np.ones(3)
        of_each = torch.from_numpy(of_class[truth.astype(int)])
        expected = -(of_each * chance).sum() / of_each.sum()
        assert float(whole.mean) == pytest.approx(float(expected), rel=1e-5)


def test_the_command_repeats_itself_and_says_what_its_output_means(study) -> None:
    command("score", study.root)
    embed(study.root)
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


def test_nothing_is_kept_of_what_damaged_shards_taught(study, tmp_path) -> None:
    copy = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    (shard,) = copy.path("shards_index").parent.glob("train-*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match="its bytes have changed since the shard was written"):
        command("group", copy.root)
    folder = copy.path("finetuned", run="brainlm", target="group").parent
    assert not list(folder.rglob("step-*"))


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


# --- what few labels teach --------------------------------------------------------------------


def _default(**changes) -> dict:
    """Section finetune as it is by default, with changes."""
    return {**vars(read_finetune(Finetune().model_dump(mode="json"))), **changes}


def _r2(model, reader, data, mask_ratio: float) -> float:
    found = predict(
        model, reader, data.lengths["test"], mask_ratio=mask_ratio, seed=1, batch_size=4
    )
    guess = data.scale.to_label(np.array(list(found.values())))
    return regression_scores(data.truth(list(found)), guess)["r2"]


def test_by_default_few_labels_teach_as_much_as_a_probe_reads(reader) -> None:
    model, data, _ = tune(reader, SCORE, **_default())
    train, test = (sorted(data.lengths[split]) for split in ("train", "test"))
    assert len(train) == 24
    frozen = untrained().autoencoder.eval()
    features, test_features = span_of_train(
        *(
            np.stack([embed_series(frozen, reader.series(name)).pooled["mean"] for name in names])
            for names in (train, test)
        )
    )
    probed = predict_from_features(
        features, data.truth(train), train, test_features, kind="regression"
    )
    probe = regression_scores(data.truth(test), probed)["r2"]
    assert probe > 0.5  # there is something to be read
    assert _r2(model, reader, data, 0.0) > probe - 0.1


def test_a_head_that_sees_single_quarters_of_windows_learns_slowly(reader) -> None:
    """Why whole windows are the default."""
    given = _default(mask_ratio=0.75, epochs=40, learning_rate=0.001)
    model, data, _ = tune(reader, SCORE, **given)
    assert _r2(model, reader, data, 0.75) < 0.5


def test_whole_windows_are_shown_whole_and_in_order(reader, monkeypatch) -> None:
    shown = []
    encode = MaskedAutoencoder.encode

    def spied(self, signal, visible, weights=None):
        shown.append(visible)
        return encode(self, signal, visible, weights)

    monkeypatch.setattr(MaskedAutoencoder, "encode", spied)
    tune(reader, SCORE, mask_ratio=0.0, epochs=1)
    tokens = torch.arange(8 * CONFIG.timepoints // CONFIG.patch)
    assert shown
    for visible in shown:
        assert torch.equal(visible, tokens.expand(len(visible), -1))


def test_a_head_is_shown_what_it_was_trained_on(study, tmp_path, monkeypatch) -> None:
    """Also where the network was pretrained on less; an older folder's head: what that was."""
    command("score", study.root)
    embed(study.root)
    folder = study.path("finetuned", run="brainlm", target="score").parent
    card = load_model(folder).card
    assert (card.mask_ratio, card.head_mask_ratio) == (0.75, 0.0)
    asked = []
    monkeypatch.setattr(
        "brainlm.evaluate.clinical.predict",
        lambda *_, mask_ratio, **__: asked.append(mask_ratio) or {},
    )
    with pytest.raises(KeyError):
        evaluate_clinical("score", study.root)
    assert asked == [0.0]
    older = shutil.copytree(folder, tmp_path / "older")
    content = json.loads((older / "config.json").read_text())
    del content["head"]["mask_ratio"]
    (older / "config.json").write_text(json.dumps(content))
    assert load_model(older).card.head_mask_ratio == 0.75
