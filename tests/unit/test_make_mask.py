"""Masks of every kind: constant counts, nothing both shown and hidden, nothing asked that is not
there, the same again for the same seed, whoever else is in the batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from brainlm.errors import InputError
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import (
    KINDS,
    TokenMask,
    generator,
    given_mask,
    make_mask,
    random_partition,
)
from brainlm.model.published import read_published
from brainlm.model.tokenizer import count_shown

from .small_networks import small_config, small_network

NETWORKS = {kind: small_network(kind) for kind in ("parcels", "image", "square")}
#: By parcel tokens: networks of 3, 2 and 2 parcels, one parcel is in none.
GROUPS = torch.tensor([0, 0, 1, -1, 1, 2, 0, 2])


def _groups(tokenizer: str) -> torch.Tensor:
    """Image: the first squares in order of y are one network, the last another, and none."""
    if tokenizer == "parcels":
        return GROUPS
    order = NETWORKS[tokenizer].tokenizer.order
    groups = torch.full((len(order),), -1)
    groups[order[:5]] = 0
    groups[order[-5:]] = 1
    return groups


def _make(name: str, covered: torch.Tensor, kind: str, ratio: float, key, **more) -> TokenMask:
    tokenizer = NETWORKS[name].tokenizer
    groups = _groups(name) if kind == "networks" else None
    return make_mask(tokenizer, covered, kind, ratio, generator(*key), groups=groups, **more)


@st.composite
def _cases(draw):
    name = draw(st.sampled_from(list(NETWORKS)))
    parcels = NETWORKS[name].config.parcels
    rows = st.lists(st.booleans(), min_size=parcels, max_size=parcels)
    covered = torch.tensor(draw(st.lists(rows, min_size=1, max_size=3)))
    covered[:, draw(st.integers(0, parcels - 1))] = True
    kind = draw(st.sampled_from(KINDS))
    return (
        name,
        covered,
        kind,
        draw(st.sampled_from([0.2, 0.5, 0.75, 0.9])),
        draw(st.integers(0, 9)),
    )


@settings(max_examples=300, deadline=None)
@given(_cases())
def test_masks_are_fair_whatever_is_missing(case) -> None:
    name, covered, kind, ratio, seed = case
    tokenizer = NETWORKS[name].tokenizer
    available = tokenizer.available(covered)
    try:
        mask = _make(name, covered, kind, ratio, (seed,))
    except InputError as error:  # too little is there: said, never shown as something else
        assert "left to show" in error.what or "No network is small enough" in error.what
        return
    shown, hidden = mask.visible.shape[1], mask.hidden.shape[1]
    assert mask.visible.shape == (len(covered), shown) and shown >= 1
    assert mask.target.shape == mask.hidden.shape == (len(covered), hidden)
    everything = torch.cat([mask.visible, mask.hidden], dim=1).sort(dim=1).values
    assert (everything == torch.arange(tokenizer.tokens)).all()  # once each: no overlap
    assert available.gather(1, mask.visible).all()
    assert available.gather(1, mask.hidden)[mask.target].all()
    if kind != "future" or available.all():
        assert mask.target.any(dim=1).all()
    again = _make(name, covered, kind, ratio, (seed,))
    assert all(torch.equal(a, b) for a, b in zip(mask, again, strict=True))


@settings(max_examples=100, deadline=None)
@given(_cases())
def test_a_samples_mask_does_not_hang_on_the_others(case) -> None:
    name, covered, kind, ratio, seed = case
    try:
        mask = _make(name, covered, kind, ratio, (seed, "alone"))
    except InputError:
        return
    count = mask.visible.shape[1]
    more = torch.cat([covered, torch.ones_like(covered)])
    changed = more.clone()
    changed[: len(covered) - 1] = True
    for table in (more, changed):
        found = _make(name, table, kind, ratio, (seed, "alone"), n_visible=count)
        for part, whole in zip(mask, found, strict=True):
            assert torch.equal(whole[len(covered) - 1], part[-1])


@settings(max_examples=100, deadline=None)
@given(_cases())
def test_the_count_planned_for_a_training_is_left_in_every_recording(case) -> None:
    name, covered, kind, ratio, seed = case
    poorest = int(covered.sum(dim=1).min())
    try:
        count = count_shown(NETWORKS[name].config, kind, ratio, poorest)
    except InputError as error:
        assert "leaves nothing to show" in error.what
        return
    try:
        mask = _make(name, covered, kind, ratio, (seed,), n_visible=count)
    except InputError as error:
        assert kind == "networks" and "small enough" in error.what
        return
    assert mask.visible.shape[1] == count


@pytest.mark.parametrize("ratio", [0.2, 0.75, 0.9])
def test_random_masks_hide_the_share_asked_for(ratio: float) -> None:
    covered = torch.ones(2, 8, dtype=torch.bool)
    mask = _make("parcels", covered, "random", ratio, (1,))
    assert mask.hidden.shape[1] == round(ratio * 32) and mask.target.all()


@pytest.mark.parametrize("name", ["parcels", "image"])
def test_whole_parcels_are_hidden(name: str) -> None:
    network = NETWORKS[name]
    covered = torch.ones(3, network.config.parcels, dtype=torch.bool)
    covered[0, 2] = False
    row = network.tokenizer.row
    mask = _make(name, covered, "parcels", 0.5, (1,))
    shown = torch.zeros(3, network.tokenizer.tokens).scatter(1, mask.visible, 1.0)
    by_row = shown.unflatten(1, (-1, row)).mean(dim=2)
    assert set(by_row.unique().tolist()) == {0.0, 1.0}
    assert len({tuple(rows) for rows in by_row.tolist()}) > 1  # drawn for each sample
    if name == "parcels":
        assert not by_row[0, 2]
        asked = mask.hidden[0][mask.target[0]]
        assert 2 not in (asked // row).tolist() and len(asked) == mask.hidden.shape[1] - row
    with pytest.raises(ValueError, match="no whole rows"):
        _make(name, covered, "parcels", 0.5, (1,), n_visible=row + 1)


def test_the_future_is_hidden_and_asked_for() -> None:
    covered = torch.ones(2, 8, dtype=torch.bool)
    covered[1, 5] = False
    mask = _make("parcels", covered, "future", 15 / 40, (1,))  # the last 15 of 4 x 10
    assert set((mask.visible % 4).unique().tolist()) == {0, 1}
    for sample in range(2):
        asked = mask.hidden[sample][mask.target[sample]]
        expected = [p * 4 + n for p in range(8) for n in (2, 3) if covered[sample, p]]
        assert sorted(asked.tolist()) == expected
    with pytest.raises(InputError, match="fewer than 1 tokens left to show"):
        _make("parcels", covered, "future", 0.9, (1,))


def test_the_future_of_a_released_model_is_its_authors(shared_data: Path) -> None:
    """Their predict_last shows the tokens before the first one that is masked."""
    folder = shared_data / "parity" / "111m_tiny_predict_last"
    about = json.loads((folder / "meta.json").read_text())
    published = read_published(about["config"], load_file(folder / "state_dict.safetensors"))
    io = load_file(folder / "io.safetensors")
    tokenizer = MaskedAutoencoder(published.config, torch.zeros(424, 3)).tokenizer
    covered = torch.ones(2, 424, dtype=torch.bool)
    mask = make_mask(tokenizer, covered, "future", 150 / 200, generator(0))
    order = io["ids_restore"].long().argsort(dim=1)
    theirs = order[:, : io["last_hidden_state"].shape[1] - 1]
    assert theirs[0].sort().values.tolist() == mask.visible[0].sort().values.tolist()


def test_whole_networks_are_hidden() -> None:
    covered = torch.ones(40, 8, dtype=torch.bool)
    covered[0, 6] = False
    mask = _make("parcels", covered, "networks", 0.7, (1,))
    sets = set()
    for sample in range(40):
        asked = set((mask.hidden[sample][mask.target[sample]] // 4).tolist())
        networks = {int(GROUPS[parcel]) for parcel in asked}
        members = {p for p in range(8) if int(GROUPS[p]) in networks and covered[sample, p]}
        assert asked == members and -1 not in networks
        seen = set((mask.visible[sample] // 4).tolist())
        assert not seen & members
        sets.add(frozenset(networks))
    assert len(sets) > 2
    with pytest.raises(InputError, match="No network is small enough"):
        _make("parcels", covered, "networks", 0.2, (1,))
    gone = covered.clone()
    gone[:, [2, 4, 5, 7]] = False  # of what is left, hiding the one network shows too little
    with pytest.raises(InputError, match="No network is small enough"):
        _make("parcels", gone, "networks", 0.5, (1,))
    tokenizer = NETWORKS["parcels"].tokenizer
    with pytest.raises(InputError, match="need networks"):
        make_mask(tokenizer, covered, "networks", 0.75, generator(1))
    with pytest.raises(InputError, match="no mask 'past'"):
        make_mask(tokenizer, covered, "past", 0.75, generator(1))


def test_counts_are_known_from_the_configuration() -> None:
    config = small_config("parcels")
    assert [count_shown(config, kind, 0.75, 8) for kind in KINDS] == [8, 8, 8, 8]
    assert count_shown(config, "parcels", 0.5, 7) == 4 * 4  # 3.5 parcels, to even
    assert count_shown(config, "future", 15 / 40, 7) == 7 * 2
    with pytest.raises(InputError, match="90% as future leaves nothing to show"):
        count_shown(config, "future", 0.9, 7)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ratio": 75.0}, "must be from 0 to 1, not 75"),
        ({"ratio": -0.1}, "must be from 0 to 1"),
        ({"ratio": float("nan")}, "must be from 0 to 1"),
        ({"covered": torch.ones(2, 9, dtype=torch.bool)}, r"must be \(batch, 8 parcels\)"),
        ({"kind": "networks", "groups": torch.full((8,), -1)}, "need networks"),
        ({"kind": "networks", "groups": GROUPS[:5]}, "need networks: a number for each of 8"),
        ({"n_visible": 0}, "fewer than 1 tokens"),
        ({"n_visible": 33}, "fewer than 33 tokens"),
        ({"kind": "future", "n_visible": 0}, "fewer than 1 tokens"),
        ({"kind": "parcels", "n_visible": 36}, "fewer than 36 tokens"),
    ],
)
def test_a_mask_that_cannot_be_made_is_refused(change: dict, told: str) -> None:
    """None is made in another sense: 75 is no share, and 0 tokens are not as many as fit."""
    asked = {"kind": "random", "ratio": 0.75, "covered": torch.ones(2, 8, dtype=torch.bool)}
    with pytest.raises(InputError, match=told):
        make_mask(NETWORKS["parcels"].tokenizer, source=generator(1), **{**asked, **change})


def test_a_window_is_not_shared_out_in_larger_sets_than_it_fills() -> None:
    available = torch.arange(12) < 3
    assert sorted(random_partition(available, 3, generator(1)).tolist()[0]) == [0, 1, 2]
    for count in (4, 13, 0):  # a fourth token would be one without data
        with pytest.raises(InputError, match="left to show"):
            random_partition(available, count, generator(1))


def test_a_mask_can_be_given_from_outside() -> None:
    available = torch.ones(2, 6, dtype=torch.bool)
    available[1, 0] = False
    mask = given_mask(available, torch.tensor([[4, 1], [5, 2]]))
    assert mask.visible.tolist() == [[4, 1], [5, 2]]
    assert mask.hidden.tolist() == [[0, 2, 3, 5], [0, 1, 3, 4]]
    assert mask.target.tolist() == [[True] * 4, [False, True, True, True]]
    for wrong, told in (([4, 4], "twice"), ([4, 6], "not there"), ([-1, 4], "not there")):
        with pytest.raises(InputError, match=told):
            given_mask(available, torch.tensor([[1, 2], wrong]))
    with pytest.raises(InputError, match="fewer than 2 tokens left"):
        given_mask(available, torch.tensor([[1, 2], [0, 2]]))
