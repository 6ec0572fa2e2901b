"""`brainlm pretrain`: what it writes, and when it starts afresh."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch

from brainlm.cli import pretrain as pretrain_command
from brainlm.cli._pretraining import made_of_all
from brainlm.cli.pretrain import pretrain as command
from brainlm.model.checkpoint import load_model
from brainlm.shards.reader import ShardReader

from .small_training import SPLITS, KilledError
from .synthetic_cohort import FIELDS, make_shards, params, write_study


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = write_study(tmp_path_factory.mktemp("pretrain") / "study", SPLITS)
    make_shards(study)
    return study


def test_the_command_writes_a_whole_folder_and_starts_afresh_on_changes(study, capsys) -> None:
    command(study.root, params(study, "pretrain"))
    folder = study.path("model", run="brainlm").parent
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "checkpoints",
        "config.json",
        "metrics.json",
        "metrics.jsonl",
        "model.json",
        "model.safetensors",
        "normalization.safetensors",
        "parcels.tsv",
    }
    loaded = load_model(folder)
    assert loaded.config.parcels == 8
    assert "never for decisions about a person" in (folder / "README.md").read_text()
    sidecar = json.loads((folder / "model.json").read_text())
    assert sidecar["Device"] == "cpu"
    assert "shards/index.parquet" in sidecar["Sources"]
    assert str(study.root) not in (folder / "model.json").read_text()
    files = [path for path in folder.iterdir() if path.is_file()]
    before = {path.name: path.read_bytes() for path in files}

    for path in files:
        path.unlink()
    capsys.readouterr()
    command(study.root, params(study, "pretrain"))
    assert "Going on from step-00000006" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in files} == before

    config = study.path("config")
    text = config.read_text()
    config.write_text(text.replace('"epochs": 2, "batch_size"', '"epochs": 1, "batch_size"'))
    command(study.root)
    config.write_text(text)
    assert "starts afresh" in capsys.readouterr().out
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["epoch"] == 1


@pytest.mark.parametrize(
    ("decay", "steps", "told"),
    [
        (0.999, 50, "95% are still the untrained ones after its 50 steps; 0.912 at most"),
        (0.999, 5000, ""),
        (0.912, 50, ""),
        (0.0, 1, ""),
    ],
)
def test_a_mean_of_mostly_untrained_weights_is_told(capsys, decay, steps, told) -> None:
    pretrain_command._warn_of_an_untrained_mean(decay, steps)
    output = capsys.readouterr()
    said = " ".join((output.out + output.err).split())
    assert told in said
    assert bool(said) == bool(told)


def test_labels_do_not_decide_a_pretraining_but_all_else_of_the_index_does(study) -> None:
    """A corrected age must not cost days of another training."""
    reader = ShardReader(study.path("shards_index").parent)
    options = json.loads(params(study, "pretrain"))

    def made_of(table: pd.DataFrame) -> dict:
        reader.table = table
        return made_of_all(reader, options, "code", {})

    table = reader.table
    before = made_of(table)
    assert made_of(table.assign(label_age=40.0)) == before
    assert made_of(table.assign(label_age=41.0, label_new="a")) == before
    assert made_of(table.iloc[1:]) != before
    assert made_of(table.assign(split="train")) != before


def test_moved_parcels_start_afresh(tmp_path, capsys) -> None:
    study = write_study(tmp_path / "study", SPLITS)
    make_shards(study)
    command(study.root)
    index = study.path("shards_index").read_bytes()
    atlas = study.path("atlas_table", **FIELDS)
    table = pd.read_csv(atlas, sep="\t")
    table.assign(y=table["x"]).to_csv(atlas, sep="\t", index=False)
    make_shards(study)
    assert study.path("shards_index").read_bytes() == index
    capsys.readouterr()
    command(study.root)
    assert "Going on from" not in capsys.readouterr().out


def test_older_weights_never_stand_beside_a_newer_config(study, monkeypatch) -> None:
    def killed(*arguments: object) -> None:
        raise KilledError

    command(study.root)
    weights = study.path("model", run="brainlm")
    monkeypatch.setattr(pretrain_command.shutil, "copyfile", killed)
    with pytest.raises(KilledError):
        command(study.root)
    assert weights.with_name("config.json").exists()
    assert not weights.exists()
