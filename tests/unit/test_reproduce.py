"""`brainlm reproduce`: a study is done again, and what is not as recorded is found."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainlm.atlas.table import load_table
from brainlm.cli._reproduce_recordings import prepare_scratch, remove_scratch
from brainlm.cli.adopt_parcels import adopt_parcels
from brainlm.cli.cohort import cohort
from brainlm.cli.index_shards import index_shards
from brainlm.cli.onboard import Engine, onboard
from brainlm.cli.prepare_atlas import prepare_atlas
from brainlm.cli.pretrain import pretrain
from brainlm.cli.reproduce import reproduce
from brainlm.cli.scale import scale
from brainlm.cli.write_shard import write_shard
from brainlm.cluster.family import descendants
from brainlm.errors import BrainLMError, DataError, InputError, ResourceError
from brainlm.evaluate.statistics import labels_with_ci
from brainlm.layout import Study
from brainlm.reproduce.compare import Distance, Verdict, compare_files, judge
from brainlm.reproduce.sample import draw
from brainlm.reproduce.scores import compare_scores_of
from brainlm.reproduce.tolerances import Tolerance
from brainlm.train.label_scores import SCORERS

NAMES = load_table()["name"].tolist()
SETTINGS = [
    "atlas.name=A424approx",
    "space.template=MNI152NLin2009aSym",
    "derivatives.tr=2",
    "eligibility.min_volumes=20",
    "split.table=splits.tsv",
    "model.overrides={timepoints: 20, hidden: 16, heads: 2, mlp: 16, layers: 1, "
    "decoder_hidden: 16}",
    "pretrain.epochs=3",
    "pretrain.batch_size=1",
    "pretrain.device=cpu",
    "tracking.tensorboard=false",
    "tracking.figures=0",
]
SPLITS = {"01": "train", "02": "train", "03": "val", "04": "test"}
FIRST = "sub-02_task-rest"  # the draw's


def series_of(study: Path, name: str) -> Path:
    return next(study.glob(f"derivatives/brainlm/*/func/{name}_*_timeseries.parquet"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tables of parcels, a study of them up to its model, and a finished scratch."""
    root = tmp_path_factory.mktemp("reproduce")
    (root / "tables").mkdir()
    random = np.random.default_rng(3)
    for subject in SPLITS:
        series = 100 + random.standard_normal((24, len(NAMES)))
        path = root / "tables" / f"sub-{subject}_task-rest_timeseries.tsv"
        pd.DataFrame(series, columns=NAMES).to_csv(path, sep="\t", index=False)
    study = root / "study"
    onboard(root / "tables", study, settings=SETTINGS, engine=Engine.derivatives)
    rows = "".join(f"{subject}\t{split}\n" for subject, split in SPLITS.items())
    (study / "splits.tsv").write_text("subject\tsplit\n" + rows)
    prepare_atlas(study, table_only=True)
    for subject in SPLITS:
        adopt_parcels(f"sub-{subject}_task-rest", study)
    for stage in (cohort, scale):
        stage(study)
    write_shard(None, study)
    index_shards(study)
    pretrain(study)
    again(study, root / "scratch")
    return root


def again(study: Path, scratch: Path, **options) -> dict:
    try:
        reproduce(study, **{"sample": 2, "keep": scratch, "training_steps": 2, **options})
    finally:
        path = study / "reports/reproduce.json"
        content = json.loads(path.read_text()) if path.exists() else {}
    return content


@pytest.fixture
def copy(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    """The folder copied, and `reproduce` in it; the workflow has run in the scratch study."""
    shutil.copytree(whole, tmp_path / "copy", symlinks=True)
    shutil.rmtree(tmp_path / "copy/study/reports")
    mark = tmp_path / "copy/scratch/.brainlm-reproduce.json"
    mark.write_text(json.dumps({"study": str(tmp_path / "copy/study")}))
    monkeypatch.setattr("brainlm.cli.run_batch.work_on_batch", lambda *given, **named: 0)
    monkeypatch.chdir(tmp_path / "copy")
    return lambda **options: again(tmp_path / "copy/study", tmp_path / "copy/scratch", **options)


def test_a_study_is_had_again_byte_for_byte(whole: Path) -> None:
    content = json.loads((whole / "study/reports/reproduce.json").read_text())
    assert (content["kind"], content["verdict"]) == ("reproduction", "bitwise")
    assert content["differences"] == content["other_options"] == []
    assert [one["split"] for one in content["sample"]] == ["train", "val"]
    assert content["training"] == "The first 2 of 6 steps."
    counts = {one["stage"]: one["counts"]["bitwise"] for one in content["stages"]}
    expected = {"adopt-parcels": 6, "prepare-atlas": 1, "cohort": 2, "write-shard": 2}
    assert counts == expected | {
        "pretrain": 5
    }  # loss, rate, gradient; val_loss and val_r2 after the first epoch
    text = (whole / "study/reports/reproduce.json").read_text()
    assert str(whole) not in text  # nothing in it tells of this machine


def test_nothing_else_is_written_into_the_study(whole: Path, copy) -> None:
    def content(study: Path) -> dict[str, bytes]:
        return {str(p.relative_to(study)): p.read_bytes() for p in study.rglob("*") if p.is_file()}

    before = content(Path("study"))
    copy(training_steps=99)
    after = content(Path("study"))
    told = json.loads(after.pop("reports/reproduce.json"))
    assert after == before
    assert told["training"].startswith("All 6 steps")
    assert {"pretrain": 6}.items() <= {
        one["stage"]: one["counts"].get("bitwise") for one in told["stages"]
    }.items()  # and the weights


def test_a_series_that_was_tampered_with_is_found(copy) -> None:
    path = series_of(Path("study"), FIRST)
    table = pd.read_parquet(path)
    table[NAMES[7]] = table[NAMES[7]][::-1].to_numpy()
    table.to_parquet(path)
    with pytest.raises(DataError, match=f"1 result could not be had again.*{path.name}") as caught:
        copy(sample=0, recording=[FIRST], training_steps=0)
    assert caught.value.exit_code == 3
    (found,) = json.loads(Path("study/reports/reproduce.json").read_text())["differences"]
    assert found["what"] == path.relative_to("study").as_posix()
    assert found["verdict"] == "beyond tolerance" and found["min_correlation"] < 0.9


def test_a_tensor_and_a_curve_that_were_tampered_with_are_found(copy) -> None:
    log = Path("study/models/brainlm/metrics.jsonl")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    rows[1]["loss"] *= 1.5
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    name = (
        pd.read_parquet("study/shards/index.parquet").set_index("recording_id").at[FIRST, "shard"]
    )
    shard = Path("study/shards") / name
    data = bytearray(shard.read_bytes())
    data[-4000:] = bytes(4000)
    shard.write_bytes(data)
    with pytest.raises(DataError):
        copy(sample=0, recording=[FIRST])
    found = json.loads(Path("study/reports/reproduce.json").read_text())
    assert found["verdict"] == "beyond tolerance"
    assert {one["stage"] for one in found["differences"]} == {"write-shard", "pretrain"}


def test_other_options_and_other_code_are_told_and_the_recorded_ones_are_used(copy) -> None:
    path = Path("study/config/config.yaml")
    text = path.read_text()
    assert "min_coverage: 0.5" in text and "epochs: 3\n" in text
    path.write_text(text.replace("min_coverage: 0.5", "min_coverage: 0.9"))
    sidecar = series_of(Path("study"), FIRST).with_suffix(".json")
    sidecar.write_text(sidecar.read_text().replace('"CodeDigest": "', '"CodeDigest": "0ld'))
    content = copy(sample=0, recording=[FIRST])
    assert (content["kind"], content["verdict"]) == ("comparison", "bitwise")
    assert [one["stage"] for one in content["other_code"]] == ["adopt-parcels"]
    (option,) = content["other_options"]
    assert option == {"option": "parcellate.min_coverage", "recorded": 0.5, "now": 0.9}
    assert "min_coverage: 0.5" in Path("scratch/config/config.yaml").read_text()


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "changed"])
def test_raw_data_that_are_not_as_they_were(copy, gone: bool) -> None:
    path = Path("tables") / f"{FIRST}_timeseries.tsv"
    if gone:
        path.unlink()
    else:
        path.write_text(path.read_text().replace("1", "2", 1))
    with pytest.raises((InputError, DataError), match="gone" if gone else "has changed") as caught:
        copy(sample=0, recording=[FIRST])
    assert caught.value.file is not None and caught.value.file.endswith(str(path))
    assert not Path("study/reports").exists()


def test_a_scratch_study_of_something_else_is_left_alone(copy, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not empty"):
        reproduce(Path("study"), keep=tmp_path / "mine")
    with pytest.raises(InputError, match="would lie in the study"):
        reproduce(Path("study"), keep=Path("study/again"))
    with pytest.raises(BrainLMError, match="sub-77_task-rest has not been finished"):
        copy(recording=["sub-77_task-rest"])


def start(study: Path, scratch: Path, folder: Path) -> tuple[subprocess.Popen, Path]:
    """`brainlm reproduce` in a process of its own, without training; and where its lines go."""
    lines = folder / f"{time.monotonic_ns()}.log"
    command = [sys.executable, "-m", "brainlm", "reproduce", "--study", study]
    command += ["--keep", scratch, "--sample", "2", "--training-steps", "0"]
    with lines.open("w") as out:
        return subprocess.Popen([*map(str, command)], stdout=out, stderr=out), lines


def is_running(pid: int) -> bool:
    """And no zombie, whose end nobody has asked for yet."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@pytest.mark.slow  # four starts of Snakemake
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_halfway_it_goes_on_and_leaves_all_else_alone(
    whole: Path, tmp_path: Path, how: signal.Signals
) -> None:
    shutil.copytree(whole, tmp_path, symlinks=True, dirs_exist_ok=True)
    study, scratch = tmp_path / "study", tmp_path / "anew"
    (study / "reports/reproduce.json").unlink()
    (tmp_path / "mine.txt").write_text("years of work")
    before = {path: path.read_bytes() for path in sorted(study.rglob("*")) if path.is_file()}
    process, lines = start(study, scratch, tmp_path)
    while process.poll() is None and not any(scratch.glob("derivatives/brainlm/*/func/*.json")):
        time.sleep(0.02)
    assert process.poll() is None, lines.read_text()
    below = [process.pid, *descendants(process.pid)]
    process.send_signal(how)
    assert process.wait(60) != 0
    until = time.monotonic() + 60
    while any(map(is_running, below)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_running, below))
    now = {path: path.read_bytes() for path in sorted(study.rglob("*")) if path.is_file()}
    assert now == before  # no verdict, and nothing else
    process, lines = start(study, scratch, tmp_path)
    assert process.wait(300) == 0, lines.read_text()
    assert "going on in" in lines.read_text()
    told = json.loads((study / "reports/reproduce.json").read_text())
    assert (told["verdict"], told["differences"]) == ("bitwise", [])
    assert (tmp_path / "mine.txt").read_text() == "years of work"
    assert not list(study.rglob(".tmp-*"))


def test_a_scratch_study_killed_while_it_was_made_or_removed_is_begun_anew(
    copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, place = Study(tmp_path / "copy/study"), tmp_path / "place"
    place.mkdir()
    (place / ".tmp-node-17-.brainlm-reproduce.json").write_text("{")  # killed at its first file
    scratch = prepare_scratch(study, place)
    half = scratch.root / "derivatives/half.parquet"
    half.parent.mkdir()
    half.write_text("half")
    assert prepare_scratch(study, place) == scratch and half.exists()  # gone on with

    def killed(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("brainlm.cli._reproduce_recordings.shutil.rmtree", killed)
        remove_scratch(scratch)
    assert half.exists()
    prepare_scratch(study, place)
    assert not half.exists() and scratch.path("recordings").exists()
    remove_scratch(scratch)
    assert not place.exists()


def test_a_full_disk_leaves_no_table_that_is_taken_for_whole(
    copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:200])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    study = Study(tmp_path / "copy/study")
    with monkeypatch.context() as patched, pytest.raises(ResourceError, match="No space"):
        patched.setattr(Path, "write_bytes", full)
        prepare_scratch(study, tmp_path / "place")
    assert not (tmp_path / "place/onboarding/recordings.parquet").exists()
    scratch = prepare_scratch(study, tmp_path / "place")
    assert scratch.path("recordings").read_bytes() == study.path("recordings").read_bytes()


def test_a_recording_that_is_given_up_now_is_told_with_its_reason(copy) -> None:
    (failure := Path("scratch/qc/failures") / f"{FIRST}.json").parent.mkdir(parents=True)
    failure.write_text(json.dumps({"stage": "adopt-parcels", "what": "it holds NaN", "fix": None}))
    series_of(Path("scratch"), FIRST).write_bytes(b"")
    with pytest.raises(DataError, match="given up now, at adopt-parcels: it holds NaN"):
        copy(sample=0, recording=[FIRST], training_steps=0)


def test_the_draw_goes_round_the_splits_and_grows() -> None:
    splits = {f"r{n}": ("train", "train", "val", "test", "")[n % 5] for n in range(40)}
    drawn = draw(splits, 6, seed=1)
    assert [splits[name] for name in drawn] == ["train", "val", "test", "", "train", "val"]
    assert draw(splits, 3, seed=1) == drawn[:3] != draw(splits, 3, seed=2)
    assert sorted(draw(splits, 99, seed=1)) == sorted(splits)


def test_distances_are_judged_column_by_column(tmp_path: Path) -> None:
    near = Tolerance(0.01, 0.999, "")
    x = np.random.default_rng(0).standard_normal(500)
    other = {"a": x, "b": x + 0.005}
    found = judge("motion", "f", Distance.between({"a": x, "b": x}, other), near)
    assert found.verdict is Verdict.within and found.distance.max_abs == pytest.approx(0.005)
    assert judge("s", "f", Distance.between({"a": x}, {"a": -x}), near).verdict is Verdict.beyond
    holed = np.where(x > 2, np.nan, x)
    assert "missing in other places" in Distance.between({"a": x}, {"a": holed})
    assert "shape" in Distance.between({"a": x}, {"a": x[1:]})
    assert "other columns" in Distance.between({"a": x}, {"b": x})
    assert "other texts" in Distance.between({"a": np.array(["p"])}, {"a": np.array(["q"])})
    for name, text in (("old", "Parameters: 1 0 0.5\n"), ("new", "Parameters: 1 0 0.9\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    paths = tmp_path / "old.txt", tmp_path / "new.txt"
    moved = compare_files("motion", "x", *paths, near)
    assert moved.verdict is Verdict.beyond and moved.distance.max_abs == pytest.approx(0.4)
    missing = compare_files("motion", "x", paths[0], tmp_path / "none.txt", near)
    assert missing.verdict is Verdict.not_made


def test_scores_of_recorded_predictions(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    truth, subjects = random.standard_normal(30), np.array([f"s{n // 2}" for n in range(30)])
    guess = truth + random.standard_normal(30)
    scores = labels_with_ci(SCORERS["regression"], truth, guess, subjects, n_draws=50, seed=4)
    about = {"kind": "regression", "metrics": scores, "baselines": {}, "bootstrap": 50, "seed": 4}
    metrics, predictions = tmp_path / "metrics.json", tmp_path / "predictions.parquet"
    columns = {"recording_id": subjects, "subject": subjects, "true": truth, "brainlm": guess}
    pd.DataFrame(columns).to_parquet(predictions)
    metrics.write_text(json.dumps(about))
    (found,) = compare_scores_of("m.json", metrics, predictions)
    assert found.verdict is Verdict.bitwise
    scores["r2"]["ci_low"] += 0.01
    metrics.write_text(json.dumps(about))
    (found,) = compare_scores_of("m.json", metrics, predictions)
    assert found.verdict is Verdict.beyond and found.what == "m.json#brainlm"
