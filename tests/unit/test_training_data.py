"""Which windows a step takes, which of their tokens it hides, and what makes them ahead."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.errors import InputError
from brainlm.model.checkpoint import build_model
from brainlm.model.config import ModelConfig
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import generator, make_mask
from brainlm.model.transformer import tokens_at
from brainlm.shards.reader import ShardReader
from brainlm.shards.sampler import Window
from brainlm.train import masking
from brainlm.train import pretrain as training
from brainlm.train.data import Coverage, MappedSource, ResidentSource, ahead, open_source
from brainlm.train.masking import Masking, count_targets, network_numbers
from brainlm.train.state import TrainState

from .small_training import CONFIG, SETTINGS, SPLITS, STEPS, KilledError, train, with_
from .synthetic_cohort import NETWORK, make_shards, write_study


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    study = write_study(tmp_path_factory.mktemp("training") / "study", SPLITS)
    return ShardReader(make_shards(study))


@pytest.fixture(scope="module")
def unbroken(reader, tmp_path_factory):
    torch.set_num_threads(1)
    return train(reader, tmp_path_factory.mktemp("unbroken"))


def test_windows_are_the_same_from_memory_and_from_files(reader, unbroken, tmp_path) -> None:
    assert isinstance(open_source("auto", reader, 40, torch.device("cpu")), MappedSource)
    assert isinstance(open_source("resident", reader, 40, torch.device("cpu")), ResidentSource)
    assert train(reader, tmp_path, settings=with_(data="resident")) == unbroken


def test_the_windows_of_an_epoch_are_drawn_once_whoever_asks(reader, monkeypatch) -> None:
    """Threads that come to a new epoch together must not all draw it."""
    settings = with_(batch_size=1)
    state = TrainState(CONFIG, reader.parcels, settings, seed=3, device=torch.device("cpu"))
    plan = training.make_plan(reader, CONFIG, settings)
    source = open_source("mmap", reader, 40, torch.device("cpu"))
    draw, drawn = training.epoch_batches, []

    def slow(*given):
        drawn.append(given[-1])
        time.sleep(0.1)
        return draw(*given)

    monkeypatch.setattr(training, "epoch_batches", slow)
    make = training._step_maker(reader, plan, state, source, 3)
    steps = list(ahead(make, range(plan.steps_per_epoch), threads=4))
    assert [step.number for step in steps] == list(range(5))
    assert drawn == [0]


def test_what_is_made_ahead_comes_in_order_and_fails_where_it_is_used() -> None:
    made: list[int] = []

    def make(key: int) -> int:
        if key == 5:
            raise KilledError
        made.append(key)
        return 10 * key

    stream = ahead(make, range(9))
    assert next(stream) == 0
    seen = []
    with pytest.raises(KilledError):
        for value in stream:
            assert len(made) <= len(seen) + 5
            seen.append(value)
    assert seen == [10, 20, 30, 40]
    closed = ahead(make, range(4))
    next(closed)
    closed.close()
    assert list(ahead(make, range(5), threads=3)) == [0, 10, 20, 30, 40]


def test_each_step_has_its_own_masks_and_each_epoch_its_own_windows(
    reader, tmp_path, monkeypatch
) -> None:
    seen: list[torch.Tensor] = []

    def record(*arguments, **options):
        mask = make_mask(*arguments, **options)
        seen.append(mask.visible[0])
        return mask

    monkeypatch.setattr(masking, "make_mask", record)
    train(reader, tmp_path)
    assert len({tuple(visible.tolist()) for visible in seen}) == STEPS + 1  # validation's
    plan = training.make_plan(reader, CONFIG, SETTINGS)
    one, two = (training.epoch_batches(plan, CONFIG, SETTINGS, 3, epoch) for epoch in (0, 1))
    assert {w.start for batch in one for w in batch} != {w.start for batch in two for w in batch}


def test_a_step_may_guess_a_part_of_what_is_hidden(reader) -> None:
    plan = training.make_plan(reader, CONFIG, with_(guessed=0.25))
    tokenizer = MaskedAutoencoder(CONFIG, torch.randn(8, 3)).tokenizer
    covered = torch.ones(3, 8, dtype=torch.bool)
    covered[1, :2] = False
    part, whole = (
        masks.draw(tokenizer, covered, generator(0)) for masks in (plan.asking, plan.masking)
    )
    assert part.visible.equal(whole.visible)
    assert part.hidden.shape == (3, 6) and whole.hidden.shape == (3, 24)
    assert part.hidden.equal(whole.hidden[:, :6])
    assert part.target.all()  # tokens without data come last
    for settings_, config in (
        (with_(guessed=0.25, mask="future"), CONFIG),
        (with_(guessed=0.25), replace(CONFIG, decoder="full")),
    ):
        with pytest.raises(InputError, match=r"guessed is 0\.25"):
            training.make_plan(reader, config, settings_)


def test_networks_are_numbered_and_parcels_without_one_are_not() -> None:
    table = pd.DataFrame({"yeo7_network": ["Visual", None, "Default", "Visual"]})
    assert network_numbers(table).tolist() == [1, -1, 0, 1]
    with pytest.raises(InputError, match="yeo7_network"):
        network_numbers(pd.DataFrame({"name": ["a", "b"]}))


@given(
    rows=st.lists(st.integers(0, 20), min_size=1, max_size=9, unique=True),
    kind=st.sampled_from(["random", "parcels", "future"]),
)
@settings(deadline=None, max_examples=40)
def test_masks_of_some_rows_are_those_of_the_batch(reader, rows, kind) -> None:
    """Whoever takes which rows; 21 windows are two full groups and one that is not."""
    config = replace(CONFIG, dropout=0.0)
    hiding = Masking.of(config, kind, 0.5, reader.parcels, 8)
    tokenizer = build_model(config, reader.parcels).tokenizer
    coverage, names = Coverage(reader), list(reader.lengths("train"))
    windows = [Window(names[row % len(names)], row) for row in range(21)]
    given = (tokenizer, coverage, windows)
    whole = hiding.of_rows(*given, range(21), ("key", 1))
    some = hiding.of_rows(*given, rows, ("key", 1))
    for part, expected in zip(some, whole, strict=True):
        assert torch.equal(part, expected[rows])
    assert len({tuple(row.tolist()) for row in whole.visible}) > (15 if kind != "future" else 0)
    other = hiding.of_rows(*given, range(21), ("key", 2))
    assert not torch.equal(other.visible, whole.visible)


def test_a_pass_without_anything_to_guess_teaches_nothing(reader, tmp_path, monkeypatch) -> None:
    """As where no whole network fits into a window's share of hidden tokens."""

    def nothing(*arguments, **options):
        mask = make_mask(*arguments, **options)
        mask.target[:1] = False
        return mask

    monkeypatch.setattr(masking, "make_mask", nothing)
    _, log = train(reader, tmp_path, settings=with_(accumulate=2))
    rows = [json.loads(line) for line in log.decode().splitlines()]
    assert all(math.isfinite(row["loss"]) for row in rows if "loss" in row)
    # The last window of an odd number is alone in its step.
    assert [row["loss"] for row in rows if "loss" in row][2] == 0


@given(
    kind=st.sampled_from(["random", "parcels", "future"]),
    padding=st.sampled_from(["none", "square"]),
    patch=st.sampled_from([3, 7, 10]),
    image=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_what_is_asked_for_is_counted_without_the_windows(kind, padding, patch, image, seed):
    """As many entries as the network's loss is a mean of, wherever parcels are missing."""
    parts = {"tokenizer": "image", "padding": padding, "decoder": "full"} if image else {}
    sizes = {"parcels": 11, "timepoints": 40 - 40 % patch, "patch": patch}
    config = ModelConfig.from_dict(
        {**NETWORK, "decoder_layers": 1, "dropout": 0.0, **sizes, **parts}
    )
    tokenizer = MaskedAutoencoder(config, torch.randn(11, 3, generator=generator(seed))).tokenizer
    covered = torch.rand(3, 11, generator=generator("covered", seed)) < 0.7
    covered[:, [0, 5, 10]] = True
    mask = make_mask(tokenizer, covered, kind, 0.5, generator(seed))
    signal = torch.where(covered[..., None], 0.0, torch.nan).expand(-1, -1, config.timepoints)
    there = ~tokenizer.cut(signal).isnan()
    assert torch.equal(tokenizer.filled(covered), there.sum(2))
    asked = mask.target[..., None] & tokens_at(there, mask.hidden)
    assert count_targets(tokenizer, covered, mask) == int(asked.sum())
