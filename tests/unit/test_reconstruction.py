"""What is hidden is hidden, all of it is scored once, and the scores are those of the entries."""

from __future__ import annotations

import copy
import json
import shutil
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import r2_score

from brainlm.cli.evaluate_reconstruction import evaluate_reconstruction as command
from brainlm.cli.pretrain import pretrain
from brainlm.config import Config
from brainlm.errors import InputError
from brainlm.evaluate.baselines.interpolation import interpolate_hidden
from brainlm.evaluate.hiding import LAST_VALUE, LINES, MEAN, MODEL, Condition, Hider
from brainlm.evaluate.reconstruction import (
    evaluate_reconstruction,
    scored_windows,
    tally_conditions,
)
from brainlm.evaluate.statistics import scores_with_ci
from brainlm.evaluate.whole_recordings import (
    disjoint_masks,
    drawn_recordings,
    guess_all,
    reconstruct_whole,
    tiling,
)
from brainlm.model.config import ModelConfig
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import generator, make_mask
from brainlm.shards.reader import ShardReader
from brainlm.shards.sampler import Window
from brainlm.train.validation import masked_sums

from .small_model import IMAGE
from .synthetic_cohort import NETWORK, make_shards, series_path, simulate, write_recording
from .synthetic_cohort import write_study as write

MAIN = Condition("random", 0.75)
CONDITIONS = [MAIN, Condition("random", 0.2), Condition("parcels", 0.5), Condition("future", 0.25)]
VOLUMES = 90  # two windows of 40, or three that hold all of it
POOR = "sub-11_task-rest_run-1"


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Twelve test subjects of two datasets, one of them external; one lacks half its parcels."""
    study = write(
        tmp_path_factory.mktemp("reconstruction") / "study",
        {"train": 6, "val": 2, "test": 12},
        volumes=VOLUMES,
        options={"quality": {"min_parcels": 0.3}, "pretrain": {"epochs": 1, "device": "cpu"}},
    )
    poor = simulate(0.2, VOLUMES, np.random.default_rng(5))
    poor[:, ::2] = np.nan
    assert series_path(study, POOR).exists()
    write_recording(study, POOR, poor)
    index = make_shards(study)
    table = pd.read_parquet(index)
    numbers = table["subject"].astype(int)
    table["dataset"] = np.where(numbers > 14, "far", "near")
    table.to_parquet(index)
    return study


@pytest.fixture(scope="module")
def reader(study):
    reader = ShardReader(study.path("shards_index"))
    reader.parcels["yeo7_network"] = list("AABBCCDD")
    return reader


def network(reader, kind=MaskedAutoencoder, **changes):
    """A network with drawn weights, or a kind of one that knows more."""
    sizes = {**NETWORK, "decoder_layers": 1, "dropout": 0.0, **changes}
    places = torch.tensor(reader.parcels[["x", "y", "z"]].to_numpy(np.float32))
    model = kind(ModelConfig.from_dict(sizes), places)
    model.initialize(generator(1))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator("drawn", name))
    return model.eval()


class Oracle(MaskedAutoencoder):
    """Is told what it is to guess, and says `share` of it, plus a constant."""

    share, constant = 1.0, 0.0

    def forward(self, signal, mask, loss="mse"):
        result = super().forward(signal, mask, loss)
        told = self.share * result.truth.nan_to_num() + self.constant / self._scale
        return result._replace(predicted=told)

    def forecast(self, signal, timepoints):
        return self.share * signal[:, :, -timepoints:].nan_to_num() + self.constant

    @property
    def _scale(self):
        return getattr(self.tokenizer, "scale", 1.0)


def scored(model, reader, conditions=CONDITIONS, batch_size=5, seed=3):
    windows = scored_windows(reader, model.config.timepoints)
    return tally_conditions(
        model, reader, windows, conditions, seed=seed, batch_size=batch_size, tick=no_tick
    )


def no_tick(items, total):
    return items


def whole(model, reader, masks=5, most=100, batch_size=5, seed=3):
    return reconstruct_whole(
        model,
        reader,
        masks=masks,
        most=most,
        bootstrap=100,
        seed=seed,
        batch_size=batch_size,
        tick=no_tick,
    )


# --- known answers ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [{}, IMAGE], ids=["parcels", "image"])
def test_who_knows_the_truth_has_r2_1_and_the_mean_has_0(reader, kind) -> None:
    oracle = network(reader, Oracle, **kind)
    for condition, tally in scored(oracle, reader).items():
        table = tally.table().query("method == 'brainlm' and cohort == 'all'")
        total = table[["n", "truth"]].sum()
        for told in tally.told(100, 0):
            found = told["methods"][MODEL]
            assert found["r2"]["value"] == pytest.approx(1, abs=1e-5), condition
            assert found["mse"]["value"] == pytest.approx(0, abs=1e-5)
        oracle.share, oracle.constant = 0.0, float(total["truth"] / total["n"])
        found = scored(oracle, reader, [condition])[condition].told(100, 0)[0]["methods"][MODEL]
        assert found["r2"]["value"] == pytest.approx(0, abs=1e-5)
        oracle.share, oracle.constant = 1.0, 0.0
    for told in whole(oracle, reader).metrics["cohorts"]:
        assert told["methods"][MODEL]["r2"]["value"] == pytest.approx(1, abs=1e-5)
        assert told["methods"][MEAN]["r2"]["value"] == pytest.approx(0, abs=0.02)
        assert min(told["per_parcel_r2"]) == pytest.approx(1, abs=1e-5)


def test_lines_are_exact_where_the_signal_is_one(reader) -> None:
    """Inside a ramp nothing is wrong; a hidden end is as wrong as its distance says."""
    slope = torch.linspace(-1, 2, 8)[:, None]
    signal = (slope * torch.arange(40.0))[None]
    model, window = network(reader), [Window("ramp", 0)]
    guessed = guess_all(model, window, signal, masks=32, seed=0)  # token by token
    torch.testing.assert_close(
        guessed.guesses[LINES][:, :, 10:30], signal[:, :, 10:30], atol=1e-4, rtol=0
    )
    edge = torch.cat([signal[:, :, 10:11]] * 10, dim=2)
    torch.testing.assert_close(guessed.guesses[LINES][:, :, :10], edge)

    future = Hider(model, reader, 0).guess(window, signal, Condition("future", 0.25))
    error = (future.guesses[LAST_VALUE] - future.truth).square()[:, :, -10:]
    expected = slope.square() * torch.arange(1.0, 11).square()
    torch.testing.assert_close(error[0], expected)
    assert future.truth[:, :, :-10].isnan().all()


def test_interpolation_draws_lines_between_what_is_seen() -> None:
    ramp = torch.arange(12.0)
    signal = torch.stack([ramp, ramp, ramp])
    known = torch.zeros(3, 12, dtype=torch.bool)
    known[0, :3] = known[0, 6:9] = known[1, 3:6] = True
    filled = interpolate_hidden(signal, known).numpy()
    np.testing.assert_allclose(filled[0], [*ramp[:9], 8, 8, 8])
    np.testing.assert_allclose(filled[1], [3, 3, 3, 3, 4, 5, 5, 5, 5, 5, 5, 5])
    np.testing.assert_allclose(filled[2], 0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 30), st.floats(0, 1))
def test_interpolation_is_numpys(seed, parcels, time, share) -> None:
    rng = np.random.default_rng(seed)
    signal, known = rng.standard_normal((2, parcels, time)), rng.random((2, parcels, time)) < share
    signal[~known] = np.nan  # what is not known has no say
    found = interpolate_hidden(torch.from_numpy(signal), torch.from_numpy(known)).numpy()
    when = np.arange(time)
    for row, seen, values in zip(
        found.reshape(-1, time), known.reshape(-1, time), signal.reshape(-1, time), strict=True
    ):
        expected = np.interp(when, when[seen], values[seen]) if seen.any() else 0.0
        np.testing.assert_allclose(row, expected, atol=1e-9)


# --- what is hidden --------------------------------------------------------------------------


@given(
    tokens=st.integers(2, 40),
    rows=st.integers(1, 4),
    missing=st.integers(0, 20),
    masks=st.integers(2, 12),
    seed=st.integers(0, 999),
)
def test_masks_are_disjoint_and_together_hide_everything(tokens, rows, missing, masks, seed):
    available = torch.ones(rows, tokens + missing, dtype=torch.bool)
    for row in range(rows):
        gone = torch.randperm(tokens + missing, generator=generator(seed, row))[:missing]
        available[row, gone] = False
    sources = [generator("masks", seed, row) for row in range(rows)]
    found = list(disjoint_masks(available, masks, sources))
    assert len(found) == min(masks, tokens)
    hidden = torch.zeros_like(available, dtype=torch.int64)
    sizes = set()
    for mask in found:
        both = torch.cat([mask.visible, mask.hidden], dim=1).sort(dim=1).values
        assert (both == torch.arange(tokens + missing)).all()  # each token shown or hidden
        assert available.gather(1, mask.visible).all()
        hidden.scatter_add_(1, mask.hidden, mask.target.long())
        sizes |= set(mask.target.sum(dim=1).tolist())
    assert (hidden == available).all()  # exactly once, and nothing that is not there
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 60), st.integers(0, 400))
def test_tiles_count_each_time_point_once(window, more) -> None:
    n = window + more
    counted = np.zeros(n, int)
    for start, (first, beyond) in tiling(n, window).items():
        assert 0 <= first < beyond <= window
        assert start + window <= n
        counted[start + first : start + beyond] += 1
    assert (counted == 1).all()
    tiles = list(tiling(n, window).items())
    for (one, (_, beyond)), (other, (first, _)) in pairwise(tiles):
        left, right = window - beyond, first  # of what both see, parted in the middle
        assert one + beyond == other + first and 0 <= left - right <= 1


@pytest.mark.parametrize("kind", [{}, IMAGE], ids=["parcels", "image"])
def test_no_guesser_is_shown_what_it_is_to_guess(reader, kind) -> None:
    """What was hidden may be anything: no guess of it changes."""
    model = network(reader, **kind)
    hider, window = Hider(model, reader, 0), [Window("any", 0)]
    signal = torch.randn(1, 8, 40, generator=generator("signal"))
    for condition in CONDITIONS if kind else [*CONDITIONS, Condition("networks", 0.5)]:
        seen = hider.guess(window, signal, condition)
        hidden = ~seen.truth.isnan()
        again = hider.guess(window, torch.where(hidden, signal + 50, signal), condition)
        torch.testing.assert_close(again.truth, seen.truth + 50, equal_nan=True)
        for name in condition.methods:
            torch.testing.assert_close(again.guesses[name], seen.guesses[name], equal_nan=True)
        with_everything = hider.guess(window, signal + 1, condition)
        assert not torch.equal(  # but what is shown does matter
            with_everything.guesses[MODEL][hidden], seen.guesses[MODEL][hidden]
        )


def test_masks_of_a_greater_share_hide_what_smaller_ones_do(reader) -> None:
    hider, covered = Hider(network(reader), reader, 0), torch.ones(2, 8, dtype=torch.bool)
    windows = [Window("one", 0), Window("one", 40)]
    small, great = (
        [set(row.tolist()) for row in hider.mask(windows, covered, Condition("random", s)).hidden]
        for s in (0.2, 0.9)
    )
    assert all(one < other for one, other in zip(small, great, strict=True))
    assert small[0] != small[1]


def test_a_poor_recording_does_not_change_what_is_hidden_of_others(reader) -> None:
    assert reader.table.loc[POOR, "n_parcels"] == 4
    tally = scored(network(reader), reader, [MAIN])[MAIN]
    _, sums = tally.by_subject(tally.cohorts[0], MODEL)
    assert set(sums[:, 0] / (2 * 8 * 40)) == {0.75, 0.75 / 2}  # two windows; the poor one half


# --- the scores ------------------------------------------------------------------------------


def test_scores_are_those_of_the_entries_themselves(reader) -> None:
    """One window at a time, every entry kept, in float64."""
    model = network(reader)
    tally = scored(model, reader, [MAIN], batch_size=4)[MAIN]
    entries: dict[str, list[np.ndarray]] = {"all": [], "near": [], "far": []}
    for window in scored_windows(reader, 40):
        values = reader.series(window.recording_id)[window.start : window.start + 40].T
        signal = torch.from_numpy(values.copy())[None]
        source = generator(3, "test", window.recording_id, window.start)
        covered = ~signal[:, :, 0].isnan()
        mask = make_mask(model.tokenizer, covered, "random", 0.75, source)
        with torch.no_grad():
            result = model(signal, mask)
        kept = ~result.truth.isnan()
        pair = np.stack([result.truth[kept].double(), result.predicted[kept].double()])
        entries["all"].append(pair)
        entries[reader.table.loc[window.recording_id, "dataset"]].append(pair)
    told = {block["cohort"]: block for block in tally.told(100, 0)}
    assert set(told) == set(entries)
    for cohort, pairs in entries.items():
        true, guess = np.concatenate(pairs, axis=1)
        found = {name: one["value"] for name, one in told[cohort]["methods"][MODEL].items()}
        assert found["r2"] == pytest.approx(r2_score(true, guess), abs=1e-6)
        assert found["mse"] == pytest.approx(np.mean((true - guess) ** 2), abs=1e-6)
        assert found["pearson"] == pytest.approx(np.corrcoef(true, guess)[0, 1], abs=1e-6)
    assert [told[name]["external"] for name in ("all", "near", "far")] == [False, False, True]


def test_every_entry_of_a_recording_is_scored_once(reader) -> None:
    model = network(reader)
    found = whole(model, reader)
    lengths, parcels = reader.lengths("test"), reader.table["n_parcels"]
    result = {told["cohort"]: told for told in found.metrics["cohorts"]}
    assert result["all"]["n_recordings"] == 12
    trace = found.traces.query("how == 'middling'")
    name, parcel = trace["recording_id"].iloc[0], trace["parcel"].iloc[0]
    assert list(trace["t"]) == list(range(VOLUMES)) and not trace["predicted"].isna().any()
    np.testing.assert_allclose(trace["true"], reader.series(name)[:, parcel], rtol=1e-6)
    assert trace["r2"].iloc[0] == pytest.approx(r2_score(trace["true"], trace["predicted"]))
    zero = [reader.series(each).ravel() for each in lengths]
    values = np.concatenate([each[~np.isnan(each)] for each in zero])
    assert len(values) == sum(VOLUMES * parcels[each] for each in lengths)
    assert result["all"]["methods"][MEAN]["mse"]["value"] == pytest.approx(np.mean(values**2))


def test_a_cohort_scores_as_it_would_alone(reader) -> None:
    model = network(reader)
    together = {name: scored(model, reader)[name].told(100, 0) for name in CONDITIONS}
    for place, dataset in ((1, "far"), (2, "near")):
        alone = copy.copy(reader)
        table = reader.table
        alone.table = table[(table["dataset"] == dataset) | (table["split"] != "test")]
        for condition, tally in scored(model, alone).items():
            own = tally.told(100, 0)[0]
            other = together[condition][place]
            assert other["cohort"] == dataset and other["n_subjects"] == own["n_subjects"]
            for method in condition.methods:
                for name, score in own["methods"][method].items():
                    same = other["methods"][method][name]["value"]
                    value = score["value"]
                    assert same == (value if value is None else pytest.approx(value, rel=1e-5))
        assert whole(model, alone).metrics["cohorts"][0]["per_parcel_r2"] == pytest.approx(
            whole(model, reader).metrics["cohorts"][place]["per_parcel_r2"], abs=1e-5
        )


def test_neither_batches_nor_order_change_the_scores(reader) -> None:
    model = network(reader)
    some, others = (
        evaluate_reconstruction(
            model,
            reader,
            main=MAIN,
            others=CONDITIONS,
            bootstrap=100,
            seed=3,
            batch_size=size,
            tick=no_tick,
        )
        for size in (3, 3)
    )
    assert json.dumps(some.metrics) == json.dumps(others.metrics)
    assert len(some.metrics["conditions"]) == 4  # the main one is not told twice
    for condition, tally in scored(model, reader, batch_size=1).items():
        other = scored(model, reader, batch_size=64)[condition]
        for method in condition.methods:
            one, two = (each.by_subject(each.cohorts[0], method)[1] for each in (tally, other))
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-3)


def test_recordings_to_be_guessed_whole_are_drawn_by_the_seed(reader) -> None:
    some = drawn_recordings(reader, 40, 5, 0)
    assert len(some) == 5 and some == sorted(some)
    assert set(some) < set(drawn_recordings(reader, 40, 7, 0))
    assert some != drawn_recordings(reader, 40, 5, 1)
    assert drawn_recordings(reader, VOLUMES + 1, 5, 0) == []


def test_one_mask_would_leave_nothing() -> None:
    with pytest.raises(InputError, match="leaves nothing to guess from"):
        next(disjoint_masks(torch.ones(1, 4, dtype=torch.bool), 1, [generator(0)]))
    with pytest.raises(ValueError, match="whole_masks must be 2 or more"):
        Config.model_validate({"evaluate": {"whole_masks": 1}})


def test_the_command_tells_all_conditions_of_each_cohort(study, tmp_path) -> None:
    own = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    pretrain(own.root)
    command(own.root)
    path, traces = (own.path(k, run="brainlm") for k in ("reconstruction", "reconstruction_whole"))
    before = path.read_bytes(), traces.read_bytes()
    found = json.loads(path.read_text())
    told = [(block["kind"], block["share"]) for block in found["conditions"]]
    assert told == [("random", 0.75), ("random", 0.2), ("random", 0.9), ("future", 0.1)]
    for block in found["conditions"]:
        assert [cohort["cohort"] for cohort in block["cohorts"]] == ["all", "far", "near"]
        assert [cohort["n_subjects"] for cohort in block["cohorts"]] == [12, 6, 6]
    main = found["conditions"][0]["cohorts"][0]
    assert found["metrics"] == main["methods"][MODEL]
    assert found["baselines"] == {name: main["methods"][name] for name in (MEAN, LINES)}
    assert found["metrics"]["r2"]["ci_low"] < found["metrics"]["r2"]["ci_high"]
    assert list(pd.read_parquet(traces)["how"].unique()) == ["well", "middling", "badly"]
    command(own.root)
    assert (path.read_bytes(), traces.read_bytes()) == before

    config = own.path("config")
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, "evaluate": {"bootstrap": 100, "whole_masks": 0}}))
    command(own.root)
    assert json.loads(path.read_text())["whole"] is None
    assert not traces.exists()


def test_guesses_that_are_no_numbers_are_told_as_such() -> None:
    """Not as a test set that is too small, whoever else's guesses are well."""
    rng = np.random.default_rng(0)
    truth = torch.from_numpy(rng.standard_normal((12, 3, 8)))
    guess = truth + 0.1
    whole = scores_with_ci(masked_sums(truth, guess).sum(axis=1), 100, 0)
    assert whole["r2"]["ci_low"] is not None
    for wrong in (np.nan, np.inf):
        guess[4, 1, 2] = wrong
        found = scores_with_ci(masked_sums(truth, guess).sum(axis=1), 100, 0)
        for name in ("r2", "mse", "pearson"):
            assert found[name]["value"] is None
            assert (
                found[name]["reason"]
                == "guesses of 1 test subjects or families are not finite numbers"
            )
