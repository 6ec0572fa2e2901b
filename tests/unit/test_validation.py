"""What a training measures on the val split while it runs."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brainlm.errors import InputError
from brainlm.model.checkpoint import build_model
from brainlm.model.config import ModelConfig
from brainlm.model.mask import generator
from brainlm.shards.reader import ShardReader
from brainlm.shards.sampler import Window, even_windows
from brainlm.train import validation
from brainlm.train.checkpointing import Checkpoints
from brainlm.train.distributed import ALONE, Ranks
from brainlm.train.label_scores import measured_labels
from brainlm.train.masking import Masking
from brainlm.train.pretrain import make_plan, pretrain
from brainlm.train.runtime import InterruptedTrainingError, StopRequest
from brainlm.train.validation import Tally, fixed_windows, group_rows, reconstruct, validate

from .small_training import SETTINGS
from .synthetic_cohort import NETWORK, make_shards, write_study
from .test_distributed import _in_processes

CONFIG = ModelConfig.from_dict({**NETWORK, "decoder_layers": 1, "dropout": 0.0})
NAMES = [f"r{number}" for number in range(6)]
TABLE = pd.DataFrame(
    {
        "dataset": ["one"] * 6,
        "site": ["A", "A", "A", "B", "B", None],
    },
    index=pd.Index(NAMES, name="recording_id"),
)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Seven val recordings of two sites."""
    torch.set_num_threads(1)
    study = write_study(
        tmp_path_factory.mktemp("val") / "study", {"train": 4, "val": 7, "test": 1}, volumes=85
    )
    reader = ShardReader(make_shards(study))
    val = reader.recordings("val").index
    reader.table.loc[val, "site"] = ["A", "A", "A", "B", "B", "B", "B"]
    return reader


@pytest.fixture(scope="module")
def model(reader):
    model = build_model(CONFIG, reader.parcels)
    model.initialize(generator(0))
    torch.nn.init.normal_(model.decoder.guess.weight, generator=generator(1))
    return model


def _validate(model, reader, ranks=ALONE, windows=None, passes=1):
    masking = Masking("random", 0.75, 8)
    windows = even_windows(reader.lengths("val"), 40) if windows is None else windows
    options = {"masking": masking, "seed": 1, "batch_size": 3, "ranks": ranks, "passes": passes}
    return validate(model, reader, windows, **options)


def test_sums_of_windows_give_the_scores_of_their_entries() -> None:
    rng = np.random.default_rng(0)
    truth, guess = rng.standard_normal((2, 4, 3, 50))  # windows, parcels, entries
    guess += 0.7 * truth
    terms = np.stack([np.ones_like(truth), truth, truth**2, guess, guess**2, truth * guess])
    sums = np.moveaxis(terms.sum(axis=-1), 0, -1)
    owners = ["r0", "r1", "r1", "r3"]
    windows = [Window(name, start) for start, name in enumerate(owners)]
    tally = Tally(windows, parcels=3)
    tally.add(owners[:3], sums[:3])
    tally.add(owners[3:], sums[3:])
    found = tally.measured(TABLE)

    def r2(y, p):
        return 1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum()

    assert found.row["val_loss"] == pytest.approx(((truth - guess) ** 2).mean())
    assert found.row["val_r2"] == pytest.approx(r2(truth, guess))
    assert found.row["val_pearson"] == pytest.approx(
        np.corrcoef(truth.ravel(), guess.ravel())[0, 1]
    )
    of_parcels = [r2(truth[:, parcel], guess[:, parcel]) for parcel in range(3)]
    assert found.parcel_r2 == pytest.approx(of_parcels)
    for percent, name in ((5, "q05"), (25, "q25"), (50, "median"), (75, "q75"), (95, "q95")):
        expected = np.percentile(of_parcels, percent)
        assert found.row[f"val_r2_parcel_{name}"] == pytest.approx(expected)
    assert (found.row["val_recordings"], found.row["val_windows"]) == (3, 4)
    of_a, of_b = found.groups
    assert (of_a["by"], of_a["group"], of_a["recordings"]) == ("site", "A", 2)
    assert of_a["r2"] == pytest.approx(r2(truth[:3], guess[:3]))
    assert of_b["mse"] == pytest.approx(((truth[3] - guess[3]) ** 2).mean())


def test_what_is_not_defined_is_null_and_what_is_bad_is_not_clipped() -> None:
    constant = np.array([[10.0, 0.0, 0.0, 20.0, 40.0, 0.0]] * 2)  # truth 0, guess 2
    tally = Tally([Window("r0", 0)], parcels=2)
    tally.add(["r0"], constant[None])
    row = tally.measured(TABLE).row
    assert row["val_loss"] == 4
    assert row["val_r2"] is row["val_pearson"] is row["val_r2_parcel_q05"] is None
    json.dumps(row, allow_nan=False)
    varied = Tally([Window("r0", 0)], parcels=2)
    varied.add(["r0"], np.array([[[10.0, 0.0, 10.0, 200.0, 4010.0, 10.0]] * 2]))
    assert varied.measured(TABLE).row["val_r2_parcel_median"] < -100


def test_recordings_of_no_site_belong_to_none_and_one_group_is_no_group() -> None:
    rows = group_rows(TABLE, NAMES, lambda places: {"places": places.tolist()})
    assert [(row["by"], row["group"], row["recordings"]) for row in rows] == [
        ("site", "A", 3),
        ("site", "B", 2),
    ]
    assert [row["places"] for row in rows] == [[0, 1, 2], [3, 4]]
    assert group_rows(TABLE, NAMES[:3], lambda places: {}) == []


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    most=st.integers(1, 40),
    length=st.integers(10, 35),
)
def test_fixed_windows_are_few_different_and_from_all_sites(sizes, most, length) -> None:
    sites = [f"s{number}" for number, size in enumerate(sizes) for _ in range(size)]
    names = [f"r{number:02d}" for number in range(len(sites))]
    table = pd.DataFrame({"dataset": "d", "site": sites}, index=names)
    lengths = dict.fromkeys(names, length)
    every = even_windows(lengths, 10)
    chosen = fixed_windows(table, lengths, 10, most)
    assert len(chosen) == len(set(chosen)) == min(most, len(every))
    assert set(chosen) <= set(every)
    assert fixed_windows(table.iloc[::-1], dict(reversed(lengths.items())), 10, most) == chosen
    per_recording = len(every) / len(names)
    for number, size in enumerate(sizes):
        own = sum(table.loc[window.recording_id, "site"] == f"s{number}" for window in chosen)
        assert abs(own - len(chosen) * size * per_recording / len(every)) <= 1


def test_validation_is_told_by_site_and_adds_up(reader, model) -> None:
    found = _validate(model, reader)
    assert [row["recordings"] for row in found.groups] == [3, 4]
    assert {row["split"] for row in found.groups} == {"val"}
    every = even_windows(reader.lengths("val"), 40)
    assert found.row["val_windows"] == len(every) == 14
    lengths = {**reader.lengths("val")}
    tested = set(reader.recordings("test").index)
    assert not tested & set(lengths)
    assert found.row["val_loss"] == pytest.approx(
        np.average([row["mse"] for row in found.groups], weights=[3, 4])  # all masks are alike
    )


def _validate_and_tell(reader, model, folder, ranks: Ranks) -> None:
    found = _validate(model, reader, ranks)
    told = {"row": found.row, "groups": found.groups, "parcels": found.parcel_r2.tolist()}
    (folder / f"told-{ranks.rank}.json").write_text(json.dumps(told))


def test_two_processes_find_what_one_does(reader, model, tmp_path) -> None:
    """14 windows in batches of 3: the last turn has a batch for one of them alone."""
    _validate_and_tell(reader, model, tmp_path, ALONE)
    alone = json.loads((tmp_path / "told-0.json").read_text())
    _in_processes(2, _validate_and_tell, reader, model, tmp_path)
    first, second = (json.loads((tmp_path / f"told-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["row"] == pytest.approx(alone["row"], rel=1e-9)
    assert first["parcels"] == pytest.approx(alone["parcels"], rel=1e-9)
    for row, expected in zip(first["groups"], alone["groups"], strict=True):
        assert (row["group"], row["recordings"]) == (expected["group"], expected["recordings"])
        for name in ("mse", "r2", "pearson"):
            assert row[name] == pytest.approx(expected[name], rel=1e-9)


@pytest.mark.parametrize("passes", [2, 3, 5])
def test_in_several_passes_it_finds_the_same(reader, model, monkeypatch, passes) -> None:
    """14 windows in batches of 3, the last of 2; each batch in equally many passes (FSDP)."""
    expected = _validate(model, reader)
    shown: list[int] = []

    def note(model, signal, mask):
        shown.append(len(signal))
        return reconstruct(model, signal, mask)

    monkeypatch.setattr(validation, "reconstruct", note)
    found = _validate(model, reader, passes=passes)
    assert len(shown) == 5 * passes
    assert max(shown) == math.ceil(3 / passes)
    assert found.row == pytest.approx(expected.row, rel=1e-6)
    for row, other in zip(found.groups, expected.groups, strict=True):
        assert row["mse"] == pytest.approx(other["mse"], rel=1e-6)


def test_a_validation_takes_no_more_windows_at_once_than_a_step(
    reader, tmp_path, monkeypatch
) -> None:
    shown: list[int] = []

    def note(model, signal, mask):
        shown.append(len(signal))
        return reconstruct(model, signal, mask)

    monkeypatch.setattr(validation, "reconstruct", note)
    _train(reader, tmp_path, replace(SETTINGS, batch_size=4, accumulate=4, epochs=1))
    assert set(shown) == {1}


def _train(reader, folder, settings, *, look=None, report=lambda row: None, stop=None):
    pretrain(
        reader,
        CONFIG,
        settings,
        seed=3,
        device=torch.device("cpu"),
        checkpoints=Checkpoints(folder, str),
        report=report,
        stop=stop or StopRequest(),
        look=look,
    )
    return (folder / "metrics.jsonl").read_bytes()


def test_it_validates_within_epochs_too_and_a_stop_changes_nothing(reader, tmp_path) -> None:
    """Epochs of 4 steps, a validation after each third: the log is the same to the byte."""
    settings = replace(SETTINGS, batch_size=1, epochs=3, validate_every=3, validate_windows=5)
    seen = []
    log = _train(reader, tmp_path / "a", settings, look=lambda *given: seen.append(given))
    rows = [json.loads(line) for line in log.splitlines()]
    assert [row["step"] for row in rows if "val_loss" in row] == [3, 4, 6, 8, 9, 12]
    assert {row["val_windows"] for row in rows if "val_loss" in row} == {5}
    assert [step for step, _, _ in seen] == [3, 4, 6, 8, 9, 12]
    assert all(found.row["val_loss"] > 0 for _, _, found in seen)
    tidy = [row for row in rows if "by" in row]
    assert {(row["by"], row["group"]) for row in tidy} == {("site", "A"), ("site", "B")}
    assert len(tidy) == 2 * 6

    stop = StopRequest()

    def halt(row) -> None:
        if row["step"] == 6 and "val_loss" in row:
            stop.signal = "SIGTERM"

    with pytest.raises(InterruptedTrainingError):
        _train(reader, tmp_path / "b", settings, report=halt, stop=stop)
    assert _train(reader, tmp_path / "b", settings) == log


def test_a_bounded_validation_takes_the_same_windows_whatever_the_seed(reader) -> None:
    plan = make_plan(reader, CONFIG, replace(SETTINGS, validate_windows=6))
    assert len(plan.val_windows) == 6
    sites = [reader.table.loc[window.recording_id, "site"] for window in plan.val_windows]
    assert sorted(sites) == ["A"] * 3 + ["B"] * 3 or sorted(sites) == ["A"] * 2 + ["B"] * 4


def test_labels_are_scored_in_their_own_unit_and_by_site() -> None:
    truth = np.array([20.0, 30, 40, 50, 60, 70])
    guess = truth + np.array([1.0, -1, 1, -1, 1, -1])
    found = measured_labels("regression", 0.5, NAMES, truth, guess, TABLE)
    assert found.row["val_loss"] == 0.5
    assert found.row["val_mae"] == pytest.approx(1)
    assert found.row["val_r2"] == pytest.approx(1 - 6 / ((truth - 45) ** 2).sum())
    assert [row["recordings"] for row in found.groups] == [3, 2]
    assert found.groups[1]["r2"] is None  # two recordings tell nothing of it
    assert found.labels["true"].tolist() == truth.tolist()
    one_class = measured_labels("binary", 0.1, NAMES, np.ones(6), np.full(6, 0.7), TABLE)
    assert one_class.row["val_accuracy"] == 1
    assert one_class.row["val_auroc"] is one_class.row["val_balanced_accuracy"] is None
    chances = np.eye(3)[[0, 1, 2, 0, 1, 1]] * 0.8 + 0.1
    classes = np.array([0.0, 1, 2, 0, 1, 2])
    several = measured_labels("classes", 0.1, NAMES, classes, chances, TABLE)
    assert several.row["val_balanced_accuracy"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert {"guessed_0", "guessed_2"} <= set(several.labels.columns)
    json.dumps([several.row, *several.groups, one_class.row], allow_nan=False)


def test_no_window_at_all_is_refused_as_an_option(tmp_path) -> None:
    from brainlm.config import parse_config

    for name in ("validate_windows", "validate_every"):
        with pytest.raises(InputError, match=name):
            parse_config({"pretrain": {name: 0}}, source=tmp_path)
