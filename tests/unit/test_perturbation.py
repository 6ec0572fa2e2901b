"""What a change of the past does to a forecast: known exactly where the system is linear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.cli.evaluate_perturbation import evaluate_perturbation
from brainlm.cli.pretrain import pretrain
from brainlm.errors import DataError, InputError
from brainlm.evaluate.baselines.vector_autoregression import VectorAutoRegression
from brainlm.evaluate.forecasters import Horizon
from brainlm.evaluate.perturbation import (
    Effects,
    Experiment,
    Laboratory,
    default_experiments,
    draw_windows,
)
from brainlm.evaluate.perturbation_scores import (
    effects_table,
    experiment_scores,
    outside_size,
    sham_size,
)
from brainlm.files import read_json
from brainlm.model import BrainLM
from brainlm.model.perturbation import Change, networks_of, parcel_rows, spread_of
from brainlm.report.evaluation.parts import Material
from brainlm.report.evaluation.perturbation import section
from brainlm.shards.reader import ShardReader

from .small_model import series, write_model
from .synthetic_cohort import FIELDS, make_shards, parcel_table, write_study

WINDOW, FUTURE = 40, 5
HORIZON = Horizon(WINDOW, FUTURE, 3, torch.device("cpu"))
PEOPLE = np.array([f"{number:02}" for number in range(12)])  # each counts as one
HOW = {"units": PEOPLE, "bootstrap": 200, "seed": 0}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = write_study(
        tmp_path_factory.mktemp("perturb") / "study",
        {"train": 3, "val": 1, "test": 12},
        volumes=90,
        runs=2,
        options={"finetune": {"forecast_timepoints": FUTURE}},
    )
    make_shards(study)
    return study


@pytest.fixture(scope="module")
def reader(study) -> ShardReader:
    return ShardReader(study.path("shards_index"))


def _laboratory(reader, forecaster, most: int = 100) -> Laboratory:
    return Laboratory(forecaster, reader, draw_windows(reader, WINDOW, most, 0), HORIZON)


def _system(seed: int = 0) -> VectorAutoRegression:
    """x(t) = x(t - 1) A: parcels 0 to 3 drive 4 and 5, and nothing else goes across."""
    rng = np.random.default_rng(seed)
    weights = np.diag(rng.uniform(0.3, 0.9, 8))
    weights[:4, 4:6] = rng.uniform(0.2, 0.5, (4, 2))
    return VectorAutoRegression(weights[None])


floats = st.floats(-3, 3, allow_nan=False, width=32)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=1, unique=True),
    st.none() | st.integers(1, 12),
    st.sampled_from(["factor", "value", "other"]),
    floats,
    st.integers(0, 5),
)
def test_a_change_changes_what_it_names_and_nothing_else(rows, last, kind, number, hole) -> None:
    generator = torch.Generator().manual_seed(1)
    past = 5 + torch.randn(2, 6, 12, generator=generator)
    other = torch.randn(2, 6, 12, generator=generator)
    past[:, hole] = torch.nan
    told = {} if kind == "other" else {kind: number}
    before = past.clone()
    change = Change(np.array(sorted(rows)), last=last, **told)
    after = change(past, other)
    assert torch.equal(past.nan_to_num(), before.nan_to_num())  # what is given stays
    assert after[:, hole].isnan().all()
    same = torch.ones(6, 12, dtype=torch.bool)
    same[sorted(rows), 12 - (last or 12) :] = False
    assert torch.equal(after[:, same].nan_to_num(), past[:, same].nan_to_num())
    for row in set(rows) - {hole}:
        part, mean = past[:, row], past[:, row].mean(dim=1, keepdim=True)
        expected = {
            "factor": mean + number * (part - mean),
            "value": (mean + number * part.std(dim=1, keepdim=True)).expand(-1, 12),
            "other": other[:, row],
        }[kind][:, 12 - (last or 12) :]
        torch.testing.assert_close(after[:, row, 12 - (last or 12) :], expected)


def test_a_factor_of_one_is_exactly_nothing() -> None:
    past = 1e3 + torch.randn(3, 5, 20)
    assert torch.equal(Change(np.arange(5), factor=1.0)(past), past)


def test_effects_of_a_linear_system_are_the_analytic_ones(reader) -> None:
    """x(t + s) = x(t) A^s: a change d of the last time point has the effect d A^s."""
    system = _system()
    laboratory = _laboratory(reader, system)
    change = Change(np.array([1, 2]), factor=0.0, last=3)
    [found] = laboratory.run([Experiment("some", change)])
    weights, expected, sizes = system.coefficients[0], {}, {}
    for window in laboratory.windows:
        past = reader.window(window.recording_id, window.start, WINDOW)[:-FUTURE].astype(float)
        moved = np.zeros(8)
        moved[[1, 2]] = (past.mean(axis=0) - past[-1])[[1, 2]]
        effect = np.stack([moved @ np.linalg.matrix_power(weights, s) for s in range(1, 6)])
        owner = str(reader.table.loc[window.recording_id, "subject"])
        expected.setdefault(owner, []).append(effect)
        sizes.setdefault(owner, []).append(effect**2)
    means = np.stack([np.mean(expected[subject], axis=0) for subject in laboratory.subjects])
    power = np.stack([np.mean(sizes[subject], axis=0) for subject in laboratory.subjects])
    np.testing.assert_allclose(found.mean, means.mean(axis=1), atol=2e-6)
    np.testing.assert_allclose(found.steps, means.mean(axis=0), atol=2e-6)
    np.testing.assert_allclose(found.size**2, power.mean(axis=1), atol=2e-6)
    np.testing.assert_allclose(found.power, power.mean(axis=0), atol=2e-6)
    assert (found.size[:, [0, 3, 6, 7]] == 0).all()  # nothing leads there
    assert (found.size[:, [4, 5]] > 0).all()


def test_a_push_has_a_side_and_is_found_where_it_leads(reader) -> None:
    """Held at 2 SD above the mean: parcels that are driven go up, in every subject."""
    experiment = Experiment("push", Change(np.array([0]), value=2.0))
    laboratory = _laboratory(reader, _system())
    sham = Experiment("push, sham 1", Change(np.array([7]), value=2.0))
    found, beside = laboratory.run([experiment, sham])
    table = effects_table(experiment, found, [(sham, beside)], parcel_table(), **HOW)
    assert list(table["perturbed"]) == [True] + [False] * 7
    assert set(np.flatnonzero(table["q"] < 0.05)) == {4, 5}
    assert (table["effect"][[4, 5]] > 0).all() and (table["ci_low"][[4, 5]] > 0).all()
    assert np.isnan(table["q"][0]) and table["effect"][0] != 0
    # parcel 7 leads nowhere, and is itself no parcel that the sham leaves alone
    np.testing.assert_array_equal(table["p_sham"], [0.5, 1, 1, 1, 0.5, 0.5, 1, np.nan])
    steps = table[[f"step_{step}" for step in range(1, FUTURE + 1)]].to_numpy()
    np.testing.assert_allclose(steps.mean(axis=1), table["effect"], atol=1e-12)
    scores = experiment_scores(experiment, found, [(sham, beside)], table, parcel_table(), **HOW)
    assert scores["n_significant"] == scores["n_above_shams"] == 2
    assert (scores["n_above_shams_by_chance"], scores["n_beside_shams"]) == (3.0, 6)
    assert scores["size"]["ci_low"] < scores["size"]["value"] < scores["size"]["ci_high"]
    assert scores["sham"]["mean"] == 0
    assert scores["sham"]["p"] == 0.5  # one sham tells no more


def test_silence_has_a_size_but_no_side(reader) -> None:
    experiment = Experiment("silent", Change(np.array([0, 1, 2, 3]), factor=0.0))
    [found] = _laboratory(reader, _system()).run([experiment])
    table = effects_table(experiment, found, [], parcel_table(), **HOW)
    assert not (table["q"] < 0.05).any()
    assert (table["size"][[4, 5]] > 0.1).all()
    assert table[["sham", "p_sham", "q_sham"]].isna().all(axis=None)


def test_parcels_that_are_missing_count_for_nobody(reader, monkeypatch) -> None:
    real, view = ShardReader.stack, ShardReader.view
    holed = str(sorted(reader.lengths("test"))[0])
    subject = str(reader.table.loc[holed, "subject"])

    def stack(self, some, length):
        stored = real(self, some, length).copy()
        for row, window in enumerate(some):
            if window.recording_id.startswith(f"sub-{subject}_"):
                stored[row][:, 4] = np.nan
        return stored

    def viewed(self, name):
        values = view(self, name).copy()
        if name.startswith(f"sub-{subject}_"):
            values[:, 4] = np.nan
        return values

    experiment = Experiment("push", Change(np.array([0]), value=2.0))
    [whole] = _laboratory(reader, _system()).run([experiment])
    monkeypatch.setattr(ShardReader, "stack", stack)
    monkeypatch.setattr(ShardReader, "view", viewed)
    laboratory = _laboratory(reader, _system())
    [found] = laboratory.run([experiment])
    place = laboratory.subjects.index(subject)
    assert np.isnan(found.mean[place, 4]) and np.isnan(found.mean).sum() == 1
    others = np.arange(12) != place
    np.testing.assert_allclose(found.mean[others], whole.mean[others], rtol=1e-5)
    np.testing.assert_allclose(found.steps[:, 4].mean(), whole.mean[others, 4].mean(), rtol=1e-5)
    table = effects_table(experiment, found, [], parcel_table(), **HOW)
    assert list(table["n_subjects"]) == [12] * 4 + [11] + [12] * 3
    assert table["p"][4] < 0.01


def test_shams_are_as_many_parcels_and_their_own_are_left_out(reader) -> None:
    experiment = Experiment("some", Change(np.array([0, 5]), factor=0.0, last=4))
    shams = [experiment.sham(8, number, seed=3) for number in range(30)]
    rows = np.array([one.change.rows for one in shams])
    assert rows.shape == (30, 2) and (rows[:, 0] < rows[:, 1]).all()
    assert len({tuple(row) for row in rows}) > 10
    assert {(one.change.factor, one.change.last) for one in shams} == {(0.0, 4)}
    assert experiment.sham(8, 1, seed=3).change.rows.tolist() == rows[1].tolist()
    sham = Experiment("sham", Change(np.array([0]), value=2.0))
    [found] = _laboratory(reader, _system()).run([sham])
    assert np.isnan(sham_size([(sham, found)])[:, 0]).all()
    left = np.sqrt((found.size[:, 1:] ** 2).mean(axis=1))
    np.testing.assert_allclose(outside_size(sham, found), left)
    assert np.isfinite(found.size[:, 0]).all()


def test_a_random_set_answers_as_shams_do(reader) -> None:
    """Sets differ in all subjects alike, which must not pass for more than chance."""
    rng = np.random.default_rng(0)
    people, parcels, shams = 40, 100, 20
    table = pd.DataFrame({"index": np.arange(1, 101), "name": [f"P{n}" for n in range(1, 101)]})
    chance, above, places = [], [], []
    for _ in range(20):
        found = []
        for number in range(1 + shams):
            rows = np.sort(rng.choice(parcels, 10, replace=False))
            of_set = np.exp(0.5 * rng.standard_normal(parcels))  # the same in everybody
            size = of_set * np.exp(0.1 * rng.standard_normal((people, parcels)))
            effects = Effects(size, size, size, size[:5], size[:5])
            found.append((Experiment(f"{number}", Change(rows, factor=0.0)), effects))
        (one, effects), *beside = found
        how = {"units": np.arange(people).astype(str), "bootstrap": 100, "seed": 0}
        own = effects_table(one, effects, beside, table, **how)
        told = experiment_scores(one, effects, beside, own, table, **how)
        chance.append(told["n_above_shams_by_chance"])
        above.append(told["n_above_shams"])
        places.append(own.loc[~own["perturbed"], "p_sham"].to_numpy())
        assert not (own["q_sham"] < 0.05).any()
    assert np.mean(chance) == pytest.approx(90 / 19, rel=0.1)  # some shams touch a parcel
    assert np.mean(above) == pytest.approx(np.mean(chance), rel=0.25)
    assert (np.concatenate(places) <= 0.5).mean() == pytest.approx(0.5, abs=0.05)


def test_another_subjects_series_is_taken_over(reader) -> None:
    seen = []

    def forecaster(past, timepoints):
        seen.append(past)
        return past[:, :, -timepoints:]

    laboratory = _laboratory(reader, forecaster)
    laboratory.run([Experiment("swap", Change(np.arange(8)), other=True)])
    given = torch.cat(seen[0::2])
    taken = torch.cat(seen[1::2])
    assert sorted(given.flatten(1).sum(dim=1).tolist()) == pytest.approx(
        sorted(taken.flatten(1).sum(dim=1).tolist())
    )
    assert not any(torch.equal(a, b) for a, b in zip(given, taken, strict=True))
    alone = _laboratory(reader, forecaster, most=2)
    assert len(alone.subjects) == 1
    with pytest.raises(DataError, match="one test subject"):
        alone.run([Experiment("swap", Change(np.arange(8)), other=True)])


def test_whole_subjects_are_drawn(reader) -> None:
    for most in (1, 2, 5, 100):
        windows = draw_windows(reader, WINDOW, most, seed=4)
        names = {window.recording_id for window in windows}
        assert len(names) == {1: 1, 2: 2, 5: 4, 100: 24}[most]
    assert draw_windows(reader, WINDOW, 4, 1) != draw_windows(reader, WINDOW, 4, 2)
    with pytest.raises(DataError, match="No test recording has"):
        draw_windows(reader, 91, 4, 1)


def test_parcels_are_told_by_number_name_and_network() -> None:
    table = parcel_table()
    table["yeo7_network"] = ["A", "A", "B", "B", np.nan, "n/a", "A", "B"]
    assert networks_of(table) == ("A", "B")
    assert parcel_rows(table, ["A"]).tolist() == [0, 1, 6]
    assert parcel_rows(table, "A").tolist() == [0, 1, 6]
    assert parcel_rows(table, [8, "P1", "B", 3]).tolist() == [0, 2, 3, 7]
    assert [one.name for one in default_experiments(table)] == [
        "A silenced",
        "B silenced",
        "A doubled",
        "B doubled",
    ]
    assert default_experiments(parcel_table()) == []
    for wrong in ([9], ["C"], [0]):
        with pytest.raises(InputError, match="no parcel or network"):
            parcel_rows(table, wrong)
    for told in ({"factor": 0.0, "value": 1.0}, {"factor": 0.0, "last": 0}):
        with pytest.raises(InputError):
            Change(np.array([0]), **told)
    with pytest.raises(InputError, match="past has 4"):
        Change(np.array([0]), factor=0.0, last=5)(torch.zeros(1, 1, 4))


def test_the_class_perturbs_as_it_forecasts(tmp_path: Path) -> None:
    model = BrainLM.from_pretrained(write_model(tmp_path / "model"))
    raw, other = series(90), series(90, 1)
    found = model.perturb(raw, 6, ["P2", 5], factor=0.0, last=10)
    np.testing.assert_array_equal(found.before, model.forecast(raw, 6))
    assert found.changed.nonzero()[0].tolist() == [1, 4]
    assert np.abs(found.effect).max() > 1e-4
    change = Change(np.array([1, 4]), factor=0.0, last=10)
    past = torch.from_numpy(model.take(raw).values[:, -34:])
    by_hand = model.take(raw).give_back(change(past[None])[0].numpy())
    np.testing.assert_allclose(found.after, _forecast_of(model, by_hand), rtol=1e-4)
    spread = spread_of(past)[:, 0].numpy()
    np.testing.assert_allclose(found.effect_sd, found.effect / spread, rtol=1e-5)
    nothing = model.perturb(raw, 6, "P2", factor=1.0)
    assert (nothing.effect == 0).all()
    np.testing.assert_array_equal(nothing.before, nothing.after)
    swapped = model.perturb(raw, 6, [1, 2, 3, 4, 5, 6, 7, 8], other=other)
    assert np.abs(swapped.effect).max() > 1e-4


def _forecast_of(model: BrainLM, past: np.ndarray) -> np.ndarray:
    """The forecast of a past in its unit, of which no mean is taken away again."""
    scaled = model.scaler.inverse(np.zeros((8, 1)))
    assert scaled.shape == (8, 1)
    taken = model.take(series(90))
    values = ((past.T - taken.level) - model.scaler.inverse(np.zeros((8, 1)))) / (
        model.scaler.inverse(np.ones((8, 1))) - model.scaler.inverse(np.zeros((8, 1)))
    )
    out = model.forecast(values.T.astype(np.float32), 6, scaled=True)
    return taken.give_back(out.T)


def test_the_command_tells_all_experiments(study, capsys) -> None:
    import json

    from .synthetic_cohort import params

    pretrain(study.root)
    chosen = json.loads(params(study, "evaluate-perturbation"))
    chosen["perturbation"] |= {
        "shams": 3,
        "experiments": [
            {
                "name": "off",
                "parcels": ["P1", 2],
                "factor": 0.0,
                "value": None,
                "other": False,
                "last": None,
            },
            {
                "name": "swap",
                "parcels": [3],
                "factor": None,
                "value": None,
                "other": True,
                "last": 5,
            },
        ],
    }
    evaluate_perturbation(study.root, json.dumps(chosen))
    metrics = read_json(study.path("perturbation", run="brainlm"))
    assert (metrics["forecaster"], metrics["steps"], metrics["past"]) == ("zero-shot", 5, 35)
    assert metrics["null_effect"] == 0.0
    assert [one["name"] for one in metrics["experiments"]] == ["off", "swap"]
    assert (metrics["n_subjects"], metrics["n_windows"]) == (12, 48)
    [off, _] = metrics["experiments"]
    assert off["sham"]["n"] == 3 and off["sham"]["p_holm"] >= off["sham"]["p"]
    assert len(off["size_by_step"]) == 5
    path = study.path("perturbation_effects", run="brainlm")
    table = pd.read_parquet(path)
    assert list(table.groupby("experiment", sort=False)["perturbed"].sum()) == [2, 1]
    before = path.read_bytes()
    found = section(Material(study, {"run": "brainlm", "space": "x", "res": "2", "atlas": "x"}, ()))
    assert found is not None and "at least 0.5 after Holm's correction" in found.tables[0].note
    evaluate_perturbation(study.root, json.dumps(chosen))
    assert path.read_bytes() == before
    evaluate_perturbation(study.root)  # its atlas names no networks
    assert "names no networks" in read_json(study.path("perturbation", run="brainlm"))["reason"]
    told = section(Material(study, {**FIELDS, "run": "brainlm"}, ()))
    assert told is not None and "names no networks" in told.text and not told.tables
