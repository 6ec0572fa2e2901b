"""What a training tells while it runs, and what it notes when it goes on from something else."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from brainlm.cli import _progress
from brainlm.cli._progress import duration, step_line
from brainlm.cli.pretrain import pretrain as command
from brainlm.errors import DataError, InputError
from brainlm.model.config import ModelConfig
from brainlm.train.lineage import changed, inherit, inherited
from brainlm.train.masking import Masking
from brainlm.train.speed import Speed, Speedometer, peak_of, training_flops

from .small_training import KilledError
from .synthetic_cohort import NETWORK, make_shards, write_study

SPLITS = {"train": 5, "val": 2, "test": 2}
ROW = {"step": 7, "epoch": 1, "loss": 0.51234, "lr": 3e-4, "grad_norm": 0.4}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    torch.set_num_threads(1)
    study = write_study(tmp_path_factory.mktemp("progress") / "study", SPLITS)
    make_shards(study)
    return study


def test_speed_is_that_of_the_last_steps() -> None:
    """100 windows a step; two seconds for each step at first, then half a second."""
    now = [0.0]
    meter = Speedometer(1000, 100, 3e9, 1e12, clock=lambda: now[0])
    assert meter.note(11) is None  # resumed there: what came before is not known
    for step in range(12, 200):
        now[0] += 2.0 if step < 100 else 0.5
        speed = meter.note(step)
        if step == 20:
            assert speed is not None
            assert speed.recordings_per_s == pytest.approx(50)
            assert speed.seconds_left == pytest.approx(980 * 2)
    assert speed is not None
    assert speed.recordings_per_s == pytest.approx(200)
    assert speed.utilisation == pytest.approx(0.6)
    assert speed.seconds_left == pytest.approx(801 * 0.5)


def test_what_training_costs_is_three_times_a_look() -> None:
    config = ModelConfig.from_dict({**NETWORK, "decoder_layers": 1, "dropout": 0.0})
    from brainlm.model.flops import forward_flops

    masking = Masking("random", 0.75, n_visible=8)
    assert training_flops(config, masking) == 3 * forward_flops(config, 8)
    a_quarter = masking.asking(0.25, config.decoder)
    assert training_flops(config, a_quarter) == 3 * forward_flops(config, 8, 24 // 4)
    assert peak_of(torch.device("cpu"), 2) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(5.4, "5 s"), (65, "1 min 05 s"), (7500, "2 h 05 min"), (190000, "2 d 04 h")],
)
def test_durations_are_told_in_two_units(seconds, words) -> None:
    assert duration(seconds) == words


def test_a_line_tells_what_is_known() -> None:
    start = "step 7/90, loss 0.5123, lr 3.00e-04, grad norm 0.400"
    assert step_line(ROW, 90, None) == start
    assert (
        step_line(ROW, 90, Speed(12.34, None, 61)) == f"{start}, 12.3 recordings/s, 1 min 01 s left"
    )
    assert ", MFU 41%, " in step_line(ROW, 90, Speed(12.34, 0.412, 61))


def test_a_log_gets_lines_and_a_terminal_a_bar(study, capsys, monkeypatch) -> None:
    folder = study.path("model", run="brainlm").parent
    command(study.root)
    told = capsys.readouterr().out
    assert "step 1/6, loss " in told
    assert "step 6/6" not in told  # at most a line in half a minute
    assert "epoch 2: val_loss" in told
    shutil.rmtree(folder)

    monkeypatch.setattr(_progress, "_EVERY", 0.0)
    command(study.root)
    assert "step 6/6, loss " in capsys.readouterr().out
    (timings,) = folder.glob("checkpoints/*/timings.jsonl")
    assert json.loads(timings.read_text().splitlines()[-1])["recordings_per_s"] > 0
    assert "seconds" not in (folder / "metrics.jsonl").read_text()
    shutil.rmtree(folder)

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    command(study.root)
    assert "step 6/6, loss " in capsys.readouterr().err


def test_changes_are_named_to_the_leaf() -> None:
    before = {"options": {"pretrain": {"epochs": 1, "seed": 2}}, "code": "a", "gone": 1}
    now = {"options": {"pretrain": {"epochs": 3, "seed": 2}}, "code": "a", "new": {"b": 1}}
    assert changed(before, now) == ["gone", "new", "options.pretrain.epochs"]
    assert changed(now, now) == []


def test_going_on_with_other_options_is_noted(study, capsys) -> None:
    config = study.path("config")
    text = config.read_text()
    folder = study.path("model", run="brainlm").parent
    shutil.rmtree(folder, ignore_errors=True)
    command(study.root)
    (first,) = (folder / "checkpoints").iterdir()
    config.write_text(text.replace('"epochs": 2, "batch_size"', '"epochs": 3, "batch_size"'))
    capsys.readouterr()
    command(study.root, go_on_from=first)
    told = capsys.readouterr().out
    assert "starts afresh (--go-on-from takes an older one up" in told
    assert "Going on from step-00000006" in told
    noted = json.loads((folder / "model.json").read_text())["WentOnFrom"]
    assert noted == {
        "From": first.name,
        "AtMostStep": 6,
        "Changed": ["options.pretrain.epochs"],
        "Before": None,
    }
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows if "val_loss" in row] == [1, 2, 3]

    config.write_text(text.replace('"epochs": 2, "batch_size"', '"epochs": 1, "batch_size"'))
    with pytest.raises(InputError, match="step 6, but there are only 3 steps to do") as caught:
        command(study.root, go_on_from=first)
    taken_over = Path(caught.value.file)  # what is to be deleted before it can start afresh
    assert taken_over.parent == first.parent
    assert taken_over != first
    overrides = text.replace('"mlp": 32', '"mlp": 64', 1)
    config.write_text(overrides)
    with pytest.raises(DataError, match="The checkpoint is of another model") as caught:
        command(study.root, go_on_from=first)
    assert Path(caught.value.file).name == "step-00000006.safetensors"
    config.write_text(text)


def test_how_the_work_is_done_needs_no_fresh_start(study, capsys) -> None:
    config = study.path("config")
    text = config.read_text()
    command(study.root)
    config.write_text(text.replace('"batch_size": 2', '"batch_size": 2, "data": "resident"'))
    capsys.readouterr()
    command(study.root)
    assert "Going on from" in capsys.readouterr().out
    config.write_text(text)


@pytest.mark.parametrize("copied", range(4))
def test_killed_while_taking_over_nothing_is_taken_up_without_its_origin(
    tmp_path, monkeypatch, copied
) -> None:
    other, own = tmp_path / "other", tmp_path / "own"
    other.mkdir()
    names = ["step-00000002.safetensors", "step-00000004.safetensors", "step-00000006.safetensors"]
    for name in ("metrics.jsonl", "made-of.json", *names):
        (other / name).write_text("{}")
    copy, calls = shutil.copyfile, []

    def killed(*given) -> None:
        calls.append(given)
        if len(calls) > copied:
            raise KilledError
        copy(*given)

    monkeypatch.setattr(shutil, "copyfile", killed)
    with pytest.raises(KilledError):
        inherit(own, other, {"new": 1})
    found = {path.name for path in own.glob("step-*")}
    assert not found or (names[-1] in found and inherited(own) is not None)
    monkeypatch.undo()
    inherit(own, other, {"new": 1})
    noted = inherited(own)
    assert noted is not None
    assert noted["Changed"] == ["new"]
    assert (own / names[-1]).exists()
    assert (own / "metrics.jsonl").exists()


def test_there_must_be_something_to_go_on_from(tmp_path) -> None:
    with pytest.raises(InputError, match="no checkpoint to go on from"):
        inherit(tmp_path / "own", tmp_path / "nothing", {})
