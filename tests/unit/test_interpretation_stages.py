"""The stages on networks and attention, from shards to their sections of the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from brainlm.cli.evaluate_attention import evaluate_attention
from brainlm.cli.evaluate_networks import evaluate_networks
from brainlm.cli.evaluation_page import evaluation_page
from brainlm.cli.pretrain import pretrain
from brainlm.errors import DataError
from brainlm.evaluate.attention import cls_maps
from brainlm.evaluate.attention_recordings import drawn_recordings, mean_attention, signal_of
from brainlm.evaluate.from_nothing import NetworkPace
from brainlm.evaluate.parcel_networks_trained import Hiding, fit_autoencoder
from brainlm.evaluate.statistics import mean_with_ci
from brainlm.layout import Study
from brainlm.report.evaluation import attention, networks
from brainlm.report.evaluation.parts import Material
from brainlm.shards.reader import ShardReader
from brainlm.train.runtime import InterruptedTrainingError, StopRequest

from .small_networks import small_network
from .synthetic_cohort import FIELDS, PARCELS, make_shards, write_study
from .tuning_study import around_of

OPTIONS = {
    "parcel_networks": {"epochs": 2, "search": False, "batch_size": 4},
    "attention": {
        "permutations": 200,
        "contrasts": [
            {"name": "run", "column": "run", "high": ["1"], "low": ["2"]},
            {"name": "score", "label": "score", "share": 0.4},
        ],
    },
    "evaluate": {"bootstrap": 100, "tasks": ["networks", "attention"]},
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """Two runs of each of 12 test subjects; the left half of the parcels is one network."""
    folder = tmp_path_factory.mktemp("interpretation") / "study"
    made = write_study(folder, {"train": 6, "val": 3, "test": 12}, runs=2, options=OPTIONS)
    path = made.path("atlas_table", **FIELDS)
    parcels = pd.read_csv(path, sep="\t")
    parcels["yeo7_network"] = ["left"] * 4 + ["right"] * 4
    parcels.to_csv(path, sep="\t", index=False)
    make_shards(made)
    pretrain(made.root)
    evaluate_networks(made.root)
    evaluate_attention(made.root)
    return made


def _metrics(study: Study, kind: str) -> dict:
    return json.loads(study.path(kind, run="brainlm").read_text())


def test_all_methods_are_asked_for_the_same_parcels(study: Study) -> None:
    told = pd.read_parquet(study.path("networks_predictions", run="brainlm"))
    metrics = _metrics(study, "networks")
    methods = {"attention", "raw", "vae", "gcn", "connectivity", "position", "permuted", "majority"}
    assert set(told["method"]) == methods
    assert set(told["scheme"]) == {"random", "apart"}
    asked = told.groupby(["method", "scheme", "recording_id"])["parcel"].agg(tuple)
    for name, sets in asked.groupby("recording_id"):
        assert len(set(sets)) == 1, name
        assert len(sets.iloc[0]) == 2  # one of each network of four
    assert told["recording_id"].nunique() == 24
    assert (told["true"] == (told["parcel"] >= 4)).all()
    whole = metrics["cohorts"][0]
    assert (whole["n_subjects"], whole["n_recordings"]) == (12, 24)
    found = whole["schemes"]["random"]
    # The two ends of the line follow other factors: whoever looks at the series sees it.
    assert found["connectivity"]["metrics"]["accuracy"]["value"] > 0.9
    assert found["majority"]["metrics"]["balanced_accuracy"]["value"] == pytest.approx(0.5)
    per_recording = told[(told["scheme"] == "random") & (told["method"] == "raw")]
    right = (per_recording["true"] == per_recording["told"]).mean()
    assert found["raw"]["metrics"]["accuracy"]["value"] == pytest.approx(right)
    assert found["raw"]["metrics"]["accuracy"]["ci_low"] is not None
    rows = told[(told["scheme"] == "random") & (told["method"] == "attention")]
    sums = (rows["true"] == rows["told"]).groupby(rows["subject"]).sum().to_numpy(float)
    shown = found["attention"]["metrics"]["accuracy"]
    interval = mean_with_ci(sums / 2, np.full(12, 2), 100, metrics["seed"])
    assert (shown["ci_low"], shown["ci_high"]) == (interval["ci_low"], interval["ci_high"])
    assert {"p", "p_holm", "less_than_reference"} <= set(found["raw"])
    assert metrics["attention"]["chosen"] in metrics["attention"]["tried"]
    assert metrics["autoencoders"]["vae"]["size"] == 32
    counts = np.array(metrics["confusion"]["random"]["raw"])
    assert counts.sum() == 48 and counts.trace() == round(48 * right)


def test_maps_are_multiples_of_an_even_look(study: Study) -> None:
    maps = pd.read_parquet(study.path("attention_maps", run="brainlm"))
    assert list(maps.columns) == ["recording_id", "subject", *(f"P{n}" for n in range(1, 9))]
    np.testing.assert_allclose(maps.iloc[:, 2:].mean(axis=1), 1.0, rtol=1e-5)
    metrics = _metrics(study, "attention")
    by_subject = maps.groupby("subject").mean(numeric_only=True)
    np.testing.assert_allclose(metrics["cohorts"][0]["mean"], by_subject.mean(), rtol=1e-5)
    left = by_subject.iloc[:, :4].mean(axis=1).mean()
    assert metrics["cohorts"][0]["networks"]["left"]["value"] == pytest.approx(left, rel=1e-5)
    of_left = by_subject.iloc[:, :4].mean(axis=1).to_numpy(float)
    interval = mean_with_ci(of_left, np.ones(12), 100, metrics["seed"])
    shown = metrics["cohorts"][0]["networks"]["left"]
    assert shown["ci_low"] == pytest.approx(interval["ci_low"], rel=1e-5)
    runs, score = metrics["contrasts"]
    assert (runs["design"], runs["n_subjects"]) == ("paired", 12)
    assert (score["design"], score["n_high"], score["n_low"]) == ("groups", 5, 5)
    first = maps["recording_id"].str.endswith("1")
    change = maps[first].iloc[:, 2:].to_numpy() - maps[~first].iloc[:, 2:].to_numpy()
    np.testing.assert_allclose(runs["parcels"]["difference"], change.mean(axis=0), atol=1e-6)


def test_the_page_shows_both(study: Study) -> None:
    material = Material(study, {**FIELDS, "run": "brainlm"}, ())
    one, other = networks.section(material), attention.section(material)
    assert one is not None and other is not None
    assert "bands of the brain" not in one.text  # a token is of one parcel
    first = one.tables[0]
    assert [row[0] for row in first.rows][:4] == [
        "BrainLM, attention weights",
        "Raw series",
        "VAE",
        "GCN",
    ]
    assert "VAE and GCN were trained" in one.text
    assert networks._autoencoders([]) == "" and "graph" not in networks._autoencoders(["vae"])
    assert first.name == "table-3-networks" and one.tables[1].name == "table-3-networks-apart"
    assert {row.metric for row in one.rows} == {"accuracy", "balanced_accuracy"}
    assert len(one.rows) == 2 * 2 * 8
    tested = [row for row in other.rows if row.metric == "effect"]
    assert len(tested) == 2 * (PARCELS + 2)
    assert all(row.p is not None and row.p_corrected is not None for row in tested)
    assert set(other.links.values()) == {f"views/{stem}.html" for stem in other.views}
    text = json.dumps([table.rows for section in (one, other) for table in section.tables])
    assert "sub-" not in text  # nobody is named


@pytest.mark.slow
def test_the_page_is_written_with_them(study: Study) -> None:
    evaluation_page(study.root)
    folder = study.path("evaluation_page", run="brainlm").parent
    assert (folder / "views" / "attention-run.html").exists()
    assert (folder / "figures" / "networks-confusion.svg").exists()
    assert "Where attention differs" in (folder / "index.html").read_text()


def test_whole_subjects_are_drawn(study: Study) -> None:
    reader = ShardReader(study.path("shards_index"))
    names = drawn_recordings(reader, "test", 40, 7, seed=1)
    assert len(names) == 6 and len({name[:6] for name in names}) == 3
    assert names != drawn_recordings(reader, "test", 40, 7, seed=2)
    assert len(drawn_recordings(reader, "test", 40, 1, seed=1)) == 2
    assert len(drawn_recordings(reader, "test", 40, 1000, seed=1)) == 24


def test_images_have_maps_too(study: Study) -> None:
    """Squares that parcels share: every parcel has its part."""
    model = small_network("image")
    rng = np.random.default_rng(0)
    signal = torch.from_numpy(rng.standard_normal((21, 64))).float()
    signal[3] = torch.nan
    found = mean_attention(model, signal, "cls")
    assert found.shape == (21,) and np.isnan(found[3]) and (found[4:] > 0).all()
    first, last = (mean_attention(model, signal[:, s : s + 30], "cls") for s in (0, 34))
    np.testing.assert_allclose(found, (first + last) / 2, rtol=1e-5)


def test_a_map_of_the_study_is_the_models_own(study: Study) -> None:
    from brainlm.model.checkpoint import load_model

    reader = ShardReader(study.path("shards_index"))
    model = load_model(study.path("model", run="brainlm").parent).autoencoder
    maps = pd.read_parquet(study.path("attention_maps", run="brainlm")).set_index("recording_id")
    name = str(maps.index[3])
    mine = cls_maps(model, reader, [name], -1).loc[name].to_numpy()
    np.testing.assert_allclose(maps.loc[name].iloc[1:].to_numpy(float), mine, rtol=1e-5)
    raw = mean_attention(model, signal_of(model, reader, name), "cls")
    np.testing.assert_allclose(mine, raw / raw.mean())


@pytest.mark.parametrize("method", ["vae", "gcn"])
def test_an_autoencoder_that_was_killed_goes_on_to_the_same(study, tmp_path: Path, method) -> None:
    reader = ShardReader(study.path("shards_index"))

    def fit(folder: Path, stop: StopRequest | None = None, seen: list | None = None):
        def report(row: dict) -> None:
            if stop is not None and row["step"] >= 4:
                stop.signal = "SIGUSR1"

        network, chosen = fit_autoencoder(
            method,
            reader,
            Hiding(40, 10, 0.75),
            NetworkPace(epochs=3, patience=3, batch_size=4),
            most=100,
            search=False,
            seed=3,
            device=torch.device("cpu"),
            around=lambda name: around_of(folder / name, report, stop),
        )
        return network.state_dict(), chosen

    whole, chosen = fit(tmp_path / "whole")
    with pytest.raises(InterruptedTrainingError):
        fit(tmp_path / "cut", StopRequest())
    again, same = fit(tmp_path / "cut")
    assert same == chosen
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_squares_of_images_share_their_attention_and_the_page_says_so(study, tmp_path) -> None:
    model = small_network("image")
    signal = torch.from_numpy(np.random.default_rng(0).standard_normal((21, 64))).float()
    rows = mean_attention(model, signal, "parcels")
    assert len(np.unique(rows.round(7), axis=0)) == model.tokenizer.rows.count < 21
    own = Study(shutil.copytree(study.root, tmp_path / "study"))
    path = own.path("networks", run="brainlm")
    content = json.loads(path.read_text())
    assert content["attention"]["parcels_of_a_token"] == 1
    content["attention"]["parcels_of_a_token"] = 8
    path.write_text(json.dumps(content))
    found = networks.section(Material(own, {**FIELDS, "run": "brainlm"}, ()))
    assert found is not None and "8 parcels, neighbours from back to front" in found.text


@pytest.mark.parametrize("kind", ["parcels", "image"])
def test_attention_that_is_no_number_is_refused(kind) -> None:
    model = small_network(kind)
    count = model.config.parcels
    signal = torch.from_numpy(np.random.default_rng(0).standard_normal((count, 80))).float()
    signal[2] = torch.nan
    for of in ("cls", "parcels"):
        for layer in (-1, "mean", "all"):
            assert np.isfinite(mean_attention(model, signal, of, layer)).any()
    with torch.no_grad():
        model.tokenizer.signal_projection.weight[0] = torch.nan
    for of in ("cls", "parcels"):
        with pytest.raises(DataError, match="is no number"):
            mean_attention(model, signal, of)


def test_an_atlas_without_networks_stops_nothing(tmp_path: Path) -> None:
    made = write_study(tmp_path / "study", {"train": 3, "val": 1, "test": 2}, options=OPTIONS)
    make_shards(made)
    pretrain(made.root)
    evaluate_networks(made.root)
    assert not len(pd.read_parquet(made.path("networks_predictions", run="brainlm")))
    found = networks.section(Material(made, {**FIELDS, "run": "brainlm"}, ()))
    assert found is not None and "too few parcels" in found.text and not found.tables
    evaluate_attention(made.root)
    looked = _metrics(made, "attention")
    assert looked["cohorts"][0]["networks"] == {}
    np.testing.assert_allclose(np.mean(looked["cohorts"][0]["mean"]), 1.0)
    shown = attention.section(Material(made, {**FIELDS, "run": "brainlm"}, ()))
    assert shown is not None and "attention-networks" not in [one.name for one in shown.tables]
