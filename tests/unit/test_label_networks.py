"""Networks that read a label from windows, trained from nothing."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from brainlm.cli.embed import embed
from brainlm.cli.evaluate_clinical import evaluate_clinical
from brainlm.cli.finetune import finetune
from brainlm.cli.predict_label import predict_label
from brainlm.cli.pretrain import pretrain
from brainlm.errors import DataError, InputError, NotMadeError
from brainlm.evaluate.baselines.recording_networks import NETWORKS, graph_of
from brainlm.evaluate.from_nothing import NetworkPace
from brainlm.evaluate.label_networks import predict_by_network
from brainlm.shards.reader import ShardReader
from brainlm.train.label_scores import binary_scores, regression_scores
from brainlm.train.labelled import labelled_data

from .synthetic_cohort import make_shards, write_recording, write_study
from .tuning_study import GROUP, SCORE, around_of, make_study


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> ShardReader:
    study = make_study(tmp_path_factory.mktemp("label networks"), runs=2)
    return ShardReader(study.path("shards_index"))


def _predict(method, reader, data, folder, kind="regression"):
    return predict_by_network(
        method,
        reader,
        data,
        kind=kind,
        class_weights="balanced",
        window=40,
        pace=NetworkPace(epochs=60, patience=60, batch_size=8),
        search=False,
        seed=1,
        device=torch.device("cpu"),
        around=lambda name: around_of(folder / name),
    )


@pytest.mark.parametrize("method", ["lstm", "gcn"])
def test_a_planted_score_is_found(reader, tmp_path, method) -> None:
    """It is how much one end swings: a network must make powers of what it reads."""
    data = labelled_data(reader, SCORE, 40)
    names, guess, chosen = _predict(method, reader, data, tmp_path)
    assert names == sorted(data.lengths["test"])
    assert regression_scores(data.truth(names), guess)["r2"] > 0.3
    assert set(chosen) == {"rate", "epoch", "tried"}


def test_a_planted_course_is_found_by_the_perceptron(tmp_path) -> None:
    """It reads entries at their places: a course that all people share, the larger the score."""
    study = write_study(tmp_path / "study", {"train": 24, "val": 8, "test": 8}, volumes=40)
    rng = np.random.default_rng(0)
    course = np.outer(np.sin(np.arange(40) / 3), np.linspace(-1, 1, 8))
    table = pd.read_parquet(study.path("recordings"))
    for row in table.itertuples():
        series = 100 + row.label_score * course + rng.standard_normal((40, 8))
        write_recording(study, row.recording_id, series.astype(np.float32))
    reader = ShardReader(make_shards(study))
    data = labelled_data(reader, SCORE, 40)
    names, guess, _ = _predict("mlp-raw", reader, data, tmp_path)
    assert regression_scores(data.truth(names), guess)["r2"] > 0.5


def test_a_class_is_told_by_its_chance(reader, tmp_path) -> None:
    data = labelled_data(reader, GROUP, 40)
    names, chance, _ = _predict("lstm", reader, data, tmp_path, kind="binary")
    assert ((chance >= 0) & (chance <= 1)).all()
    assert binary_scores(data.truth(names), chance)["auroc"] > 0.75


@pytest.mark.parametrize("method", sorted(NETWORKS))
@pytest.mark.parametrize("outputs", [1, 3])
def test_it_begins_with_the_mean_and_reads_no_holes(method, outputs) -> None:
    torch.manual_seed(0)
    network = NETWORKS[method](6, 20, outputs, graph_of(torch.eye(6))).eval()
    signal = torch.randn(4, 6, 20)
    signal[2, 1] = torch.nan
    shape = (4,) if outputs == 1 else (4, 3)
    assert torch.equal(network(signal), torch.zeros(shape))
    torch.nn.init.normal_(network.head.weight)
    found = network(signal)
    assert found.isfinite().all()
    torch.testing.assert_close(network(signal[1:2]), found[1:2])
    filled = signal.clone()
    filled[2, 1] = 0
    assert torch.equal(network(filled), found)


def test_the_graph_by_hand() -> None:
    """Four of eight parcels lie close together, and four: each is joined to two of its own."""
    places = torch.tensor([0.0, 1.0, 2.1, 3.3, 20.0, 21.0, 22.1, 23.3])
    graph = graph_of(-(places[:, None] - places).abs())
    torch.testing.assert_close(graph, graph.T)
    joined = graph > 0
    assert not joined[:4, 4:].any()
    assert joined[0].tolist() == [True, True, True, *[False] * 5]
    assert joined[1].tolist() == [True] * 4 + [False] * 4
    assert graph[0, 1] == pytest.approx(1 / (3 * 4) ** 0.5)
    assert graph[1, 1] == pytest.approx(1 / 4)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Pretrained and fine-tuned, with networks of a few steps asked for."""
    options = {
        "pretrain": {"epochs": 1},
        "finetune": {"epochs": 1},
        "networks": {"methods": ["lstm", "gcn"], "search": False, "epochs": 2},
    }
    folder = tmp_path_factory.mktemp("networks beside") / "study"
    study = write_study(folder, {"train": 10, "val": 3, "test": 6}, options=options)
    make_shards(study)
    pretrain(study.root)
    finetune("score", study.root)
    embed(study.root)
    return study


def test_networks_stand_beside_the_model(study) -> None:
    with pytest.raises(NotMadeError, match="network-lstm"):
        evaluate_clinical("score", study.root)
    for method in ("lstm", "gcn"):
        predict_label("score", method, study.root)
    evaluate_clinical("score", study.root)
    found = json.loads(study.path("clinical", run="brainlm", target="score").read_text())
    assert {"lstm", "gcn"} <= set(found["baselines"]) & set(found["tests"])
    path = study.path("label_network", run="brainlm", target="score", method="lstm")
    told = pd.read_parquet(path).set_index("recording_id")["guess_0"]
    table = pd.read_parquet(study.path("clinical_predictions", run="brainlm", target="score"))
    assert (table["lstm"].to_numpy() == told[table["recording_id"]].to_numpy()).all()
    error = np.mean((table["lstm"] - table["true"]) ** 2)
    assert found["baselines"]["lstm"]["mse"]["value"] == pytest.approx(error)
    before = path.read_bytes()
    predict_label("score", "lstm", study.root)
    assert path.read_bytes() == before


def test_predictions_of_other_recordings_are_refused(study, tmp_path) -> None:
    copy = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    predict_label("score", "gcn", copy.root)
    predict_label("score", "lstm", copy.root)
    path = copy.path("label_network", run="brainlm", target="score", method="lstm")
    pd.read_parquet(path).iloc[1:].to_parquet(path, index=False)
    with pytest.raises(DataError, match="of other test recordings"):
        evaluate_clinical("score", copy.root)


def test_predictions_from_other_shards_or_of_other_chances_are_refused(study, tmp_path) -> None:
    """The same recordings: what the label was then, and what its chances mean, is told apart."""
    copy = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    for method in ("gcn", "lstm"):
        predict_label("score", method, copy.root)
    config = json.loads(copy.path("config").read_text())
    config["finetune"]["class_weights"] = "none"
    copy.path("config").write_text(json.dumps(config))
    with pytest.raises(DataError, match="class_weights: balanced, the config says none"):
        evaluate_clinical("score", copy.root)
    finetune("score", copy.root)
    with pytest.raises(DataError, match="other options of the label") as told:
        evaluate_clinical("score", copy.root)
    assert "brainlm predict-label --target score --method lstm" in str(told.value.fix)
    predict_label("score", "lstm", copy.root)
    predict_label("score", "gcn", copy.root)
    evaluate_clinical("score", copy.root)
    index = pd.read_parquet(copy.path("shards_index"))
    index["mean_fd"] += 0.01
    index.to_parquet(copy.path("shards_index"))
    embed(copy.root)
    with pytest.raises(DataError, match="of other shards"):
        evaluate_clinical("score", copy.root)


def test_a_network_that_is_none_is_named(study) -> None:
    with pytest.raises(InputError, match="oracle"):
        predict_label("score", "oracle", study.root)


def test_networks_of_other_windows_are_not_taken_up(study, tmp_path) -> None:
    copy = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    predict_label("score", "lstm", copy.root)
    folder = copy.path("label_network", run="brainlm", target="score", method="lstm").parent
    before = {path.name for path in folder.glob("checkpoints/lstm/*/*")}
    config = json.loads(copy.path("config").read_text())
    config["model"]["overrides"]["timepoints"] = 20
    copy.path("config").write_text(json.dumps(config))
    predict_label("score", "lstm", copy.root)
    assert len({path.name for path in folder.glob("checkpoints/lstm/*/*")} - before) == 1
