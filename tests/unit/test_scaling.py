"""Scaling curves: nested shares of subjects, equal work, one test for all, known power laws."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.cli.compare_scaling import compare_scaling as compare_command
from brainlm.cli.evaluate_reconstruction import evaluate_reconstruction
from brainlm.cli.pretrain import pretrain
from brainlm.cli.train_scaling import train_scaling
from brainlm.config import Config, load_config, scaling_points
from brainlm.errors import DataError, InputError
from brainlm.evaluate.scaling import Point, compare_scaling, fit_power_law, tokens_of
from brainlm.evaluate.scaling_subjects import with_as_many_windows, with_share
from brainlm.evaluate.tally import SUM_COLUMNS
from brainlm.model.checkpoint import load_model
from brainlm.provenance import read_sidecar
from brainlm.report.evaluation.scaling import _cut, _held
from brainlm.shards.reader import ShardReader
from brainlm.stages import stage_params
from brainlm.train.pretrain import make_plan

from .small_networks import small_config
from .small_training import CONFIG, SETTINGS, with_
from .synthetic_cohort import NETWORK, make_shards, write_study

SCALING = {
    "sizes": [
        {"name": "small", "overrides": {**NETWORK, "hidden": 16, "mlp": 16, "decoder_hidden": 16}},
        {"name": "large", "overrides": NETWORK, "learning_rate": 0.002},
    ],
    "shares": [0.25, 0.5, 1],
    "steps": 6,
}
POINTS = ["small-0.25", "small-0.5", "small-1", "large-0.25", "large-0.5", "large-1"]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    torch.set_num_threads(1)
    study = write_study(
        tmp_path_factory.mktemp("scaling") / "study",
        {"train": 8, "val": 2, "test": 10},
        runs=2,
        options={"scaling": SCALING},
    )
    make_shards(study)
    for point in POINTS:
        train_scaling(point, study.root)
    return study


def test_shares_are_nested_and_touch_train_alone(study) -> None:
    reader = ShardReader(study.path("shards_index"))
    shares = [0.01, 0.25, 0.3, 0.5, 0.9, 1.0]
    drawn = [with_share(reader, share, 1) for share in shares]
    subjects = [set(part.recordings("train")["subject"]) for part in drawn]
    assert [len(some) for some in subjects] == [1, 2, 2, 4, 7, 8]
    assert all(one <= other for one, other in pairwise(subjects))
    for part in drawn:
        for split in ("val", "test"):
            assert part.lengths(split) == reader.lengths(split)
        # whoever is in is in with all recordings
        assert len(part.recordings("train")) == 2 * part.recordings("train")["subject"].nunique()
    assert len(reader.recordings("train")) == 16  # the reader itself stays whole
    assert subjects[3] != set(with_share(reader, 0.5, 2).recordings("train")["subject"])


def test_all_shares_take_equal_steps_of_equally_many_windows(study) -> None:
    reader = ShardReader(study.path("shards_index"))
    settings = with_(batch_size=4, epochs=3)
    whole = make_plan(reader, CONFIG, settings)
    assert whole.total_steps == 12
    for share in (0.25, 0.5, 1.0):
        part = with_share(reader, share, 1)
        own = with_as_many_windows(settings, part, reader, CONFIG.timepoints)
        plan = make_plan(part, CONFIG, own, 12)
        assert (plan.total_steps, plan.windows_per_epoch) == (12, whole.windows_per_epoch)
        assert plan.val_windows == whole.val_windows


@given(st.integers(1, 300), st.integers(1, 40))
@settings(max_examples=50)
def test_a_budget_is_kept_and_its_last_step_is_validated(study, budget, batch) -> None:
    reader = ShardReader(study.path("shards_index"))
    plan = make_plan(reader, CONFIG, replace(SETTINGS, batch_size=batch), budget)
    validated = [step for step in range(1, budget + 1) if plan.validates(step)]
    assert plan.total_steps == budget
    assert validated[-1] == budget and len(validated) <= 10


def test_points_are_trained_and_scored_alike(study) -> None:
    about = {
        name: read_sidecar(study.path("scaling_sums", run="brainlm", point=name))["Point"]
        for name in POINTS
    }
    assert {each["steps"] for each in about.values()} == {6}
    assert {each["windows"] for each in about.values()} == {12}
    assert [about[name]["n_train_subjects"] for name in POINTS[:3]] == [2, 4, 8]
    assert about["small-1"]["parameters"] < about["large-1"]["parameters"]
    tables = {
        name: pd.read_parquet(study.path("scaling_sums", run="brainlm", point=name))
        for name in POINTS
    }
    for table in tables.values():
        assert (table[["n", "truth"]] == tables["small-1"][["n", "truth"]]).all(axis=None)
    loaded = load_model(study.path("scaled_model", run="brainlm", point="large-0.5").parent)
    assert loaded.config.hidden == NETWORK["hidden"]
    log = study.path("scaled_log", run="brainlm", point="large-0.5").read_text().splitlines()
    rates = [json.loads(line)["lr"] for line in log if '"lr"' in line]
    assert len(rates) == 6 and max(rates) == pytest.approx(0.002)


def test_the_whole_share_is_what_pretraining_makes(study, tmp_path) -> None:
    """Equal steps, all subjects, the same network: the same weights and the same score."""
    options = json.loads(study.path("config").read_text())
    options["scaling"] = {"sizes": [{"name": "same", "overrides": NETWORK}], "shares": [1]}
    own = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    own.path("config").write_text(json.dumps(options))
    train_scaling("same-1", own.root)
    pretrain(own.root)
    model, point = (
        own.path("model", run="brainlm"),
        own.path("scaled_model", run="brainlm", point="same-1"),
    )
    assert model.read_bytes() == point.read_bytes()
    compare_command(own.root)
    evaluate_reconstruction(own.root)
    scaling = json.loads(own.path("scaling", run="brainlm").read_text())["cohorts"][0]
    found = json.loads(own.path("reconstruction", run="brainlm").read_text())
    assert scaling["points"]["same-1"] == found["metrics"]
    assert scaling["baselines"] == found["baselines"]
    assert scaling["laws"] == []  # of one point


def test_a_point_that_is_trained_is_not_trained_again(study, tmp_path, monkeypatch) -> None:
    own = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    before = own.path("scaled_model", run="brainlm", point="small-1").read_bytes()
    options = json.loads(own.path("config").read_text())
    options["evaluate"]["bootstrap"] = 200  # nor when others are added, or the test changes
    options["scaling"]["shares"].append(0.75)
    own.path("config").write_text(json.dumps(options))
    monkeypatch.setattr("brainlm.train.pretrain._train_step", None)
    train_scaling("small-1", own.root)
    assert own.path("scaled_model", run="brainlm", point="small-1").read_bytes() == before
    with pytest.raises(TypeError):
        train_scaling("small-0.75", own.root)


def test_curves_are_put_together(study) -> None:
    compare_command(study.root)
    path = study.path("scaling", run="brainlm")
    found = json.loads(path.read_text())
    assert [point["point"] for point in found["points"]] == POINTS
    (cohort,) = found["cohorts"]
    assert set(cohort["points"]) == set(POINTS) and cohort["n_subjects"] == 10
    assert set(cohort["baselines"]) == {"zero", "interpolation"}
    for scores in cohort["points"].values():
        assert scores["r2"]["ci_low"] <= scores["r2"]["value"] <= scores["r2"]["ci_high"]
    # three shares of each size; of two sizes no law is told
    assert [(law["over"], law["size"]) for law in cohort["laws"]] == [
        ("n_train_subjects", "small"),
        ("n_train_subjects", "large"),
    ]
    before = path.read_bytes()
    compare_command(study.root)
    assert path.read_bytes() == before


def test_bad_wishes_are_refused(study, tmp_path) -> None:
    with pytest.raises(InputError, match=r"no point small-0\.1 .*it has small-0\.25"):
        train_scaling("small-0.1", study.root)
    own = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    options = json.loads(own.path("config").read_text())
    options["scaling"]["sizes"] = []
    own.path("config").write_text(json.dumps(options))
    for call in (compare_command, lambda root: train_scaling("small-1", root)):
        with pytest.raises(InputError, match=r"scaling\.sizes is empty"):
            call(own.root)
    released = {"scaling": SCALING, "released": {"source": "somewhere"}}
    with pytest.raises(ValueError, match="scaling trains models of several sizes"):
        Config.model_validate(released)
    twice = {"scaling": {**SCALING, "shares": [0.5, 0.5]}}
    with pytest.raises(ValueError, match="must not name one twice"):
        Config.model_validate(twice)


def test_options_of_a_point_are_its_own(study) -> None:
    section = stage_params("train-scaling", load_config(study.path("config")))["scaling"]
    points = scaling_points(section)
    assert list(points) == POINTS
    own = points["large-0.5"]
    assert (len(own["sizes"]), own["shares"], own["steps"]) == (1, [0.5], 6)
    assert own["sizes"][0]["model"]["hidden"] == NETWORK["hidden"]  # the preset's file counts


# --- power laws ------------------------------------------------------------------------------


def test_a_planted_power_law_is_found() -> None:
    x = np.array([10.0, 30, 100, 300])
    y = np.stack([2.5 * x**-0.3, 0.1 * x**0.0], axis=1)
    exponent, factor, fit = fit_power_law(x, y)
    np.testing.assert_allclose(exponent, [0.3, 0], atol=1e-12)
    np.testing.assert_allclose(factor, [2.5, 0.1])
    assert fit[0] == pytest.approx(1)


def _point(name: str, subjects: int, parameters: int, errors: np.ndarray, **other):
    """A point whose squared error in each test subject is known; truth has variance 1."""
    about = Point(
        point=name,
        size=other.pop("size", "one"),
        share=other.pop("share", 1.0),
        parameters=parameters,
        timepoints=other.pop("timepoints", 40),
        tokens=other.pop("tokens", "10 time points of a parcel"),
        mask_ratio=0.75,
        n_train_subjects=subjects,
        n_train_recordings=subjects,
        steps=1,
        windows=1,
        val_loss=1.0,
        lowest_val_loss=1.0,
    )
    n = other.pop("n", 100.0)
    rows = {
        "n": n,
        "truth": 0.0,
        "truth2": n,
        "guess": 0.0,
        "guess2": n * errors,  # unrelated to the truth: error = 1 + guess2
        "product": 0.0,
    }
    table = pd.DataFrame(rows)[list(SUM_COLUMNS)]
    table.insert(0, "subject", [f"{number:02d}" for number in range(len(errors))])
    table.insert(0, "method", "brainlm")
    table.insert(0, "external", False)
    table.insert(0, "cohort", "all")
    return about, table


def test_laws_over_subjects_and_over_parameters() -> None:
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.8, 1.2, 40)
    spread /= spread.mean()
    grid = [
        _point(
            f"{size}-{share}",
            int(100 * share),
            parameters,
            3.0 * spread * (100 * share) ** -0.2 * parameters**-0.1 + spread - 1,
            size=size,
            share=share,
        )
        for size, parameters in (("s", 100), ("m", 1000), ("l", 10000))
        for share in (0.1, 0.5, 1.0)
    ]
    for about, table in grid:  # error = spread x law, exactly
        law = 3.0 * (100 * about.share) ** -0.2 * about.parameters**-0.1
        table["guess2"] = 100 * (spread * law - 1)
    found = compare_scaling(grid, bootstrap=200, seed=0)["cohorts"][0]["laws"]
    exponents = {(law["over"], law.get("size", law.get("share"))): law["exponent"] for law in found}
    assert len(exponents) == 6
    for (over, _), exponent in exponents.items():
        planted = 0.2 if over == "n_train_subjects" else 0.1
        assert exponent["value"] == pytest.approx(planted)
        # all points have the same subjects: what differs between these says nothing of the law
        assert exponent["ci_high"] - exponent["ci_low"] < 1e-6


def test_points_of_other_tests_are_refused() -> None:
    errors = np.ones(12)
    one = _point("a", 1, 1, errors)
    for other in (_point("b", 2, 2, errors[:11]), _point("b", 2, 2, errors, timepoints=200)):
        with pytest.raises(DataError, match="not scored on the same windows"):
            compare_scaling([one, other], bootstrap=100, seed=0)
    other = _point("b", 2, 2, errors, n=90.0)  # the same people, but other entries hidden
    with pytest.raises(DataError, match="a and b were not scored on the same windows"):
        compare_scaling([one, other], bootstrap=100, seed=0)
    about, table = _point("b", 2, 2, errors)
    with pytest.raises(DataError, match="a was trained for 1 steps, b for 2"):
        compare_scaling([one, (replace(about, steps=2), table)], bootstrap=100, seed=0)


def test_sizes_that_cut_windows_in_other_ways_share_no_law() -> None:
    spread = np.linspace(0.8, 1.2, 12)
    ways = {"a": ("cut one", 100.0), "b": ("cut two", 90.0)}
    grid = [
        _point(
            f"{way}{parameters}",
            50,
            parameters,
            spread * parameters**-0.1,
            size=f"{way}{parameters}",
            tokens=tokens,
            n=n,
        )
        for way, (tokens, n) in ways.items()
        for parameters in (100, 1000, 10000)
    ]
    found = compare_scaling(grid, bootstrap=100, seed=0)
    laws = found["cohorts"][0]["laws"]
    assert [(law["tokens"], law["points"]) for law in laws] == [
        ("cut one", ["a100", "a1000", "a10000"]),
        ("cut two", ["b100", "b1000", "b10000"]),
    ]
    mixed = compare_scaling([grid[0], grid[1], grid[5]], bootstrap=100, seed=0)
    assert mixed["cohorts"][0]["laws"] == []  # three sizes, but not of one kind
    assert "different questions" in _cut(found["points"])
    assert _cut(found["points"][:3]) == ""
    assert _held(laws[1], found["points"]) == "share 1.0, cut two"
    kinds = {tokens_of(small_config(kind)) for kind in ("parcels", "image", "square")}
    assert len(kinds) == 3
