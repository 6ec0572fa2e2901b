"""Trackers are told all, once, and never stop a training."""

from __future__ import annotations

import importlib.util
import json
import shutil
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brainlm.cli._training_figures import due
from brainlm.cli._watching import flat, mlflow_store
from brainlm.cli.pretrain import pretrain as command
from brainlm.config import load_config
from brainlm.stages import GROUND_FLOOR, code_digest, source_modules
from brainlm.train.pretrain import Plan
from brainlm.train.tracking.notes import Notes
from brainlm.train.tracking.tensorboard import TensorBoard
from brainlm.train.tracking.trackers import Trackers, named, rows_between
from brainlm.train.tracking.wandb_run import WandbRun

from .synthetic_cohort import make_shards, write_study

SPLITS = {"train": 5, "val": 3, "test": 1}
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108020000"
    "00907753de0000000c4944415408d763f8ffff3f0005fe02fe0dcf46b80000000049454e44ae426082"
)


def absent(package: str) -> bool:
    return importlib.util.find_spec(package) is None


class Remembering:
    """A tracker that lists what it is told; `had` is what it says it has been told before."""

    name = "memory"

    def __init__(self, had: int = 0, fails_at: int | None = None):
        self.had, self.fails_at = had, fails_at
        self.told: list[tuple[int, dict]] = []
        self.pictures: list[tuple[int, str]] = []
        self.closed: int | None = None

    def start(self, step):
        return self.had

    def values(self, step, values):
        if step == self.fails_at:
            raise OSError("the disk is full\nand more")
        self.told.append((step, dict(values)))

    def picture(self, step, name, png):
        self.pictures.append((step, name))

    def flush(self, told):
        pass

    def close(self, told):
        self.closed = told


def _log(path: Path, steps: int, val_every: int = 3) -> list[dict]:
    rows = []
    for step in range(1, steps + 1):
        rows.append({"step": step, "epoch": 1, "lr": 0.1, "loss": 1 / step, "grad_norm": 0.5})
        if step % val_every == 0:
            rows.append({"step": step, "epoch": 1, "val_loss": 2 / step, "val_r2": None})
            about = {"split": "val", "by": "site", "group": "A/b", "recordings": 3}
            rows.append({"step": step, "epoch": 1, **about, "r2": 0.1})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def test_rows_have_names_that_trackers_can_group() -> None:
    step, val, site = (
        {"step": 3, "epoch": 1, "lr": 0.1, "loss": 0.3, "grad_norm": 0.5},
        {"step": 3, "epoch": 1, "val_loss": 0.6, "val_r2": None, "val_r2_parcel_q05": -0.1},
        {"step": 3, "epoch": 1, "split": "val", "by": "site", "group": "A/b é", "r2": 0.1},
    )
    assert named(step) == {"train/lr": 0.1, "train/loss": 0.3, "train/grad_norm": 0.5}
    assert named(val) == {"val/loss": 0.6, "val/r2_parcel_q05": -0.1}
    assert named(site) == {"val/site/A_b é/r2": 0.1}


@given(done=st.integers(0, 12), had=st.integers(0, 12))
def test_a_tracker_is_told_each_step_once_wherever_it_stopped(tmp_path_factory, done, had) -> None:
    """The training goes on after step `done`; the tracker has been told all of step `had`."""
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    rows = _log(path, 12)
    tracker = Remembering(had)
    trackers = Trackers([tracker], path, pytest.fail)
    for row in rows:
        if row["step"] > done:
            trackers.row(row)
    trackers.close(10)
    # Nothing of a training that is over is told any more: its log is whole.
    expected = [row for row in rows if row["step"] > had] if done < 12 else []
    assert tracker.told == [(row["step"], named(row)) for row in expected]
    if done < 12:
        assert tracker.closed == 12


def test_one_that_fails_is_left_with_a_word_and_the_others_go_on(tmp_path) -> None:
    rows = _log(tmp_path / "log", 6)
    bad, good = Remembering(fails_at=3), Remembering()
    words: list[str] = []
    trackers = Trackers([bad, good], tmp_path / "log", words.append)
    for row in rows:
        trackers.row(row)
    trackers.figure("map", 6, PNG)
    trackers.close(10)
    assert words == ["memory is told no more (OSError: the disk is full); the training goes on"]
    assert [step for step, _ in bad.told] == [1, 2]
    assert len(good.told) == len(rows)
    assert good.pictures == [(6, "map")]


def test_one_that_hangs_is_not_waited_for(tmp_path) -> None:
    class Hanging(Remembering):
        def start(self, step):
            time.sleep(60)
            return 0

    words: list[str] = []
    trackers = Trackers([Hanging()], tmp_path / "log", words.append)
    before = time.monotonic()
    for row in _log(tmp_path / "log", 200):
        trackers.row(row)
    trackers.close(0.2)
    assert time.monotonic() - before < 5
    assert words == ["memory took longer than 0 s to finish and was left"]


def test_without_trackers_there_is_no_thread(tmp_path) -> None:
    count = threading.active_count()
    trackers = Trackers([], tmp_path / "log", pytest.fail)
    trackers.row({"step": 1, "loss": 1.0})
    Trackers([Remembering()], tmp_path / "log", pytest.fail).figure("map", 1, PNG)  # no news
    assert threading.active_count() == count
    trackers.close(1)


def test_a_log_that_grows_is_read_up_to_where_it_is_needed(tmp_path) -> None:
    path = tmp_path / "log"
    rows = _log(path, 5)
    with path.open("a") as handle:
        handle.write('{"step": 6, "lo')  # on its way
    assert list(rows_between(path, 1, 5)) == [row for row in rows if 1 < row["step"] < 5]
    assert list(rows_between(path, 5, 6)) == []


def test_notes_outlive_a_file_that_cannot_be_read(tmp_path) -> None:
    notes = Notes(tmp_path)
    assert notes.of("a") == {}
    notes.note("a", told=3)
    notes.note("b", id="x")
    notes.note("a", run="y")
    assert notes.of("a") == {"told": 3, "run": "y"}
    (tmp_path / "tracking.json").write_text("{")
    assert notes.of("a") == {}
    notes.note("a", told=4)
    assert Notes(tmp_path).of("a") == {"told": 4}


def _events(folder: Path) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Tag -> steps, as TensorBoard shows them: scalars, images."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    tags = found.Tags()
    return (
        {tag: [event.step for event in found.Scalars(tag)] for tag in tags["scalars"]},
        {tag: [event.step for event in found.Images(tag)] for tag in tags["images"]},
    )


@pytest.mark.skipif(absent("tensorboard"), reason="tensorboard is not installed")
def test_event_files_that_were_deleted_are_written_from_the_first_step_on(tmp_path) -> None:
    rows, folder = _log(tmp_path / "log", 12), tmp_path / "tensorboard"
    told: list[str] = []
    for first in (1, 7):
        board = TensorBoard(folder, Notes(tmp_path))
        trackers = Trackers([board], tmp_path / "log", told.append)
        for row in rows:
            if first <= row["step"] < first + 6:
                trackers.row(row)
        trackers.close(20)
        if first == 1:
            shutil.rmtree(folder)
    assert told == []
    assert _events(folder)[0]["train/loss"] == list(range(1, 13))


@pytest.mark.skipif(absent("tensorboard"), reason="tensorboard is not installed")
@pytest.mark.parametrize("closes", [True, False])
def test_tensorboard_shows_each_step_once_after_a_stop(tmp_path, closes) -> None:
    """Told of ten steps, resumed after the sixth; with a SIGKILL only some reached the disk."""
    rows = _log(tmp_path / "log", 12)
    notes, folder = Notes(tmp_path), tmp_path / "tensorboard"

    def told(first: int, last: int) -> TensorBoard:
        board = TensorBoard(folder, notes)
        had = board.start(first)
        assert had < first
        for row in rows:
            if had < row["step"] <= last:
                board.values(row["step"], named(row))
        board.picture(last, "map", PNG)
        return board

    first = told(1, 10)
    if closes:
        first.close(10)
    else:
        first.flush(4)  # up to where it is known to be whole; the rest was written nevertheless
    time.sleep(1.1)  # files are told apart by the second
    told(7, 12).close(12)
    scalars, images = _events(folder)
    assert scalars["train/loss"] == list(range(1, 13))
    assert scalars["val/loss"] == scalars["val/site/A_b/r2"] == [3, 6, 9, 12]
    assert images["figures/map"] == [12]
    assert notes.of("TensorBoard") == {"told": 12}


@pytest.mark.skipif(absent("mlflow"), reason="mlflow is not installed")
def test_mlflow_has_each_step_once_after_a_stop(tmp_path) -> None:
    from brainlm.train.tracking.mlflow_run import MlflowRun

    rows = _log(tmp_path / "log", 12)
    for first, done in ((1, 10), (7, 12)):
        run = MlflowRun(
            str(tmp_path / "store"), "study", "brainlm", {"pretrain.epochs": 3}, Notes(tmp_path)
        )
        trackers = Trackers([run], tmp_path / "log", pytest.fail)
        for row in rows:
            if first <= row["step"] <= done:
                trackers.row(row)
        trackers.figure("map", done, PNG)
        trackers.close(120)
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'store/mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "study"]
    (found,) = client.search_runs([experiment.experiment_id])
    steps = [metric.step for metric in client.get_metric_history(found.info.run_id, "train/loss")]
    assert sorted(steps) == list(range(1, 13))
    vals = [metric.step for metric in client.get_metric_history(found.info.run_id, "val/loss")]
    assert sorted(vals) == [3, 6, 9, 12]
    assert found.info.status == "FINISHED"
    assert found.data.params == {"pretrain.epochs": "3"}
    assert not {"mlflow.user", "mlflow.source.name"} & set(found.data.tags)
    pictures = [each.path for each in client.list_artifacts(found.info.run_id, "figures")]
    assert pictures == ["figures/map-00000010.png", "figures/map-00000012.png"]


@pytest.mark.skipif(absent("wandb"), reason="wandb is not installed")
def test_offline_each_start_of_wandb_tells_everything(tmp_path) -> None:
    rows = _log(tmp_path / "log", 12)
    for first, done in ((1, 10), (7, 12)):
        run = WandbRun("p", "brainlm", {"seed": 1}, tmp_path, Notes(tmp_path), offline=True)
        trackers = Trackers([run], tmp_path / "log", pytest.fail)
        for row in rows:
            if first <= row["step"] <= done:
                trackers.row(row)
        trackers.figure("map", done, PNG)
        trackers.close(120)
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    # Of two starts within a second the later one's folder gets a number after its name.
    assert {folder.name.split("-")[3] for folder in folders} == {Notes(tmp_path).of("W&B")["id"]}
    newest = max(
        (tmp_path / "wandb").glob("offline-run-*/*.wandb"), key=lambda f: f.stat().st_mtime
    )
    assert _wandb_steps(newest) == Counter(range(1, 13))
    assert not list((tmp_path / "wandb").glob("*/files/wandb-metadata.json"))
    assert not list((tmp_path / "wandb").glob("*/files/requirements.txt"))


def _wandb_steps(path: Path) -> Counter:
    """How often each step's training loss is in a file of W&B."""
    from wandb.proto import wandb_internal_pb2

    found: Counter = Counter()
    for content in _records_of(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        values = {
            item.key or "/".join(item.nested_key): item.value_json for item in record.history.item
        }
        if "train/loss" in values:
            found[int(values.get("_step", record.history.step.num))] += 1
    return found


def _records_of(content: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format, behind W&B's 7 bytes: blocks of 32 KiB."""
    place, parts = 7, []
    while place < len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        size, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts.append(content[place + 7 : place + 7 + size])
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield b"".join(parts)
            parts = []


def test_without_the_network_a_server_gives_way_to_a_folder(tmp_path) -> None:
    server, folder = "https://mlflow.lab.org", tmp_path / "fingerprint"
    assert mlflow_store(server, tmp_path, folder, offline=False) == server
    assert mlflow_store(server, tmp_path, folder, offline=True) == str(folder / "mlflow")
    assert mlflow_store("databricks", tmp_path, folder, offline=True) == str(folder / "mlflow")
    assert mlflow_store("runs", tmp_path, folder, offline=True) == str(tmp_path / "runs")
    local = "sqlite:////data/runs.db"
    assert mlflow_store(local, tmp_path, folder, offline=True) == local


def test_options_are_told_as_one_level_without_lists() -> None:
    params = {"a": {"b": 1, "c": None, "d": ["sub-01"]}, "seed": 2, "e": {"f": {"g": "x"}}}
    assert flat(params) == {"a.b": 1, "seed": 2, "e.f.g": "x"}


@given(
    per_epoch=st.integers(1, 9),
    epochs=st.integers(1, 30),
    every=st.one_of(st.none(), st.integers(1, 20)),
    most=st.integers(1, 30),
)
def test_so_many_validations_are_drawn_and_the_last_always(per_epoch, epochs, every, most) -> None:
    total = per_epoch * epochs
    plan = Plan({}, [], None, None, per_epoch, total, 1, every or per_epoch)  # type: ignore[arg-type]
    validated = [step for step in range(1, total + 1) if plan.validates(step)]
    drawn = [step for step in validated if due(plan, step, most)]
    assert len(drawn) <= most
    assert drawn[-1] == total
    if len(validated) <= most and total % most == 0:
        assert len(drawn) >= min(len(validated), most) // 2


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    torch.set_num_threads(1)
    study = write_study(
        tmp_path_factory.mktemp("tracking") / "study",
        SPLITS,
        options={"tracking": {"tensorboard": True, "figures": 1}},
    )
    make_shards(study)
    return study


def test_watching_changes_nothing_of_the_result(study, capsys, monkeypatch) -> None:
    """With figures and TensorBoard, without, and with a tracker that is not there."""
    folder = study.path("model", run="brainlm").parent
    config = study.path("config")
    text = config.read_text()
    names = ("model.safetensors", "metrics.jsonl", "model.json", "README.md")
    command(study.root)
    (own,) = (folder / "checkpoints").iterdir()
    watched = {name: (folder / name).read_bytes() for name in names}
    pictures = {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}
    expected = {
        f"{n}.{s}" for n in ("reconstruction", "scatter", "parcels", "map") for s in ("png", "svg")
    }
    assert set(pictures) == expected
    ids = [str(name) for name in load_table(study)]
    assert not any(name.encode() in content for name in ids for content in pictures.values())
    if not absent("tensorboard"):
        scalars, images = _events(own / "tensorboard")
        assert scalars["train/loss"] == [1, 2, 3, 4, 5, 6]
        assert scalars["val/loss"] == [3, 6]
        assert set(images) == {
            f"figures/{n}" for n in ("reconstruction", "scatter", "parcels", "map")
        }

    _forget(folder)
    options = {"tensorboard": False, "figures": 0, "wandb": "nowhere", "offline": True}
    config.write_text(json.dumps({**json.loads(text), "tracking": options}))
    assert load_config(config).tracking.figures == 0
    monkeypatch.setattr("brainlm.cli._watching.importlib.util.find_spec", lambda name: None)
    capsys.readouterr()
    command(study.root)
    assert "The package wandb is not installed: W&B is told nothing" in capsys.readouterr().out
    assert {name: (folder / name).read_bytes() for name in names} == watched
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [own.name]
    assert not (folder / "figures").exists()
    monkeypatch.undo()

    _forget(folder)
    config.write_text(text)
    command(study.root)
    assert {path.name: path.read_bytes() for path in (folder / "figures").iterdir()} == pictures


def load_table(study):
    from brainlm.shards.reader import ShardReader

    return ShardReader(study.path("shards_index")).table.index


def _forget(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


def test_a_figure_that_fails_is_told_of_and_passed_over(study, capsys, monkeypatch) -> None:
    from brainlm.report import training_figures

    def broken(*given):
        raise ValueError("no font")

    monkeypatch.setattr(training_figures, "scatter", broken)
    folder = study.path("model", run="brainlm").parent
    _forget(folder)
    command(study.root)
    told = capsys.readouterr().err
    assert told.count("A figure could not be made (ValueError: no font)") == 1
    assert {path.name for path in (folder / "figures").glob("*.png")} == {
        "reconstruction.png",
        "parcels.png",
        "map.png",
    }


def test_who_watches_is_no_part_of_the_stage() -> None:
    """An edit of a picture or a tracker starts no training afresh."""
    watching = ("tracking", "training_figures", "tuning_figures", "_watching", "_progress")
    modules = source_modules("brainlm.cli.pretrain") | source_modules("brainlm.cli.finetune")
    assert not [module for module in modules if any(name in module for name in watching)]
    assert "brainlm.cli._watching" in GROUND_FLOOR
    assert "brainlm.train.validation" in source_modules("brainlm.cli.pretrain")
    assert code_digest("pretrain")


@pytest.mark.skipif(absent("tensorboard"), reason="tensorboard is not installed")
def test_each_repeat_of_a_fine_tuning_is_watched(study) -> None:
    """Scores in the label's unit, pictures of the epoch that is kept, event files of its own."""
    from brainlm.cli.finetune import finetune

    config = study.path("config")
    text = config.read_text()
    content = json.loads(text)
    content["finetune"] |= {"repeats": 2}
    config.write_text(json.dumps(content))
    command(study.root)
    finetune("score", study.root)
    config.write_text(text)
    folder = study.path("finetuned", run="brainlm", target="score").parent
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    validated = [row for row in rows if "val_loss" in row]
    assert [(row["repeat"], row["epoch"]) for row in validated] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert all(row["val_mae"] > 0 and row["val_recordings"] == 3 for row in validated)
    for number in (1, 2):
        names = {path.name for path in (folder / f"figures/repeat-{number}").glob("*.png")}
        assert names == {"labels.png", "map.png"}
        (board,) = folder.glob(f"checkpoints/*/repeat-{number}/tensorboard")
        scalars, images = _events(board)
        steps = [row["step"] for row in validated if row["repeat"] == number]
        assert scalars["val/loss"] == scalars["val/mae"] == steps
        assert images["figures/kept/labels"] == images["figures/kept/map"] == [steps[-1]]
        assert set(images.get("figures/labels", ())) <= set(steps)
