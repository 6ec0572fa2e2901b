"""Networks of parcels: fair splits, fair votes, and what a phantom planted is found."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.atlas.table import load_table
from brainlm.evaluate.baselines.graph_autoencoder import GraphAutoencoder
from brainlm.evaluate.baselines.recording_networks import graph_of
from brainlm.evaluate.baselines.variational import VariationalAutoencoder
from brainlm.evaluate.parcel_networks import Networks, NoNetworksError
from brainlm.evaluate.parcel_networks_features import attention_features, connectivity_features
from brainlm.evaluate.parcel_networks_knn import (
    asked_parcels,
    distances,
    scores,
    tell,
    too_near,
)
from brainlm.evaluate.parcel_networks_trained import Hiding, represent
from brainlm.phantom.network import simulate
from brainlm.phantom.traits import Traits

TABLE = load_table()


@settings(deadline=None)
@given(st.lists(st.integers(-1, 6), min_size=1, max_size=80), st.integers(0, 9))
def test_a_fifth_of_each_network_is_asked_for(networks, seed) -> None:
    codes = np.array(networks)
    asked = asked_parcels(codes, seed, "sub-01")
    assert not asked[codes < 0].any()
    for network in set(networks) - {-1}:
        size, count = (codes == network).sum(), asked[codes == network].sum()
        assert count < size
        assert abs(count - 0.2 * size) <= 0.5
        assert count >= 1 or size < 5
    assert (asked == asked_parcels(codes, seed, "sub-01")).all()


def test_other_recordings_ask_for_other_parcels() -> None:
    codes = np.arange(100) % 4
    asked = {tuple(np.flatnonzero(asked_parcels(codes, 1, f"sub-{n}"))) for n in range(5)}
    assert len(asked) == 5
    often = np.mean([asked_parcels(codes, 1, n) for n in range(400)], axis=0)
    assert np.abs(often - 0.2).max() < 0.09


def test_the_nearest_vote_and_those_asked_for_do_not() -> None:
    """On a line: the parcel asked for lies among others of its kind, next to one asked for, too."""
    places = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0], [2.4], [2.5]])
    networks = np.array([0, 0, 0, 1, 1, 1, 0, 1])
    asked = np.array([False] * 6 + [True, True])
    told = tell({"euclidean": distances(places)["euclidean"]}, networks, asked)
    assert told.networks.tolist() == [0, 0]
    barred = too_near(np.hstack([places, np.zeros((8, 2))]), 3.0)
    # Mirrored in x = 0, too: nobody within 3 of -2.4 votes.
    far = tell({"euclidean": distances(places)["euclidean"]}, networks, asked, barred)
    assert far.networks.tolist() == [1, 1]
    none = tell(
        {"euclidean": distances(places)["euclidean"]}, networks, asked, np.ones((8, 8), bool)
    )
    assert none.networks.tolist() == [-1, -1]


def test_of_equal_votes_the_nearer_wins() -> None:
    distance = np.array([[0.0, 2, 1], [2, 0, 9], [1, 9, 0]])
    networks, asked = np.array([0, 0, 1]), np.array([True, False, False])
    assert tell({"euclidean": distance}, networks, asked).networks.tolist() == [1]


def test_likeness_is_chosen_among_the_known() -> None:
    """Two kinds of waves at any level: correlation tells them, distance does not."""
    rng = np.random.default_rng(0)
    waves = rng.standard_normal((2, 50))
    networks = np.arange(60) % 2
    features = waves[networks] + 0.5 * rng.standard_normal((60, 50)) + rng.uniform(0, 99, (60, 1))
    asked = asked_parcels(networks, 0)
    told = tell(distances(features), networks, asked)
    assert told.metric == "correlation"
    assert scores(networks[asked], told.networks)["accuracy"] == 1


def test_balanced_accuracy_counts_networks_alike() -> None:
    found = scores(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]))
    assert found == {"accuracy": 0.75, "balanced_accuracy": 0.5}


@cache
def _phantom() -> tuple[Networks, list[np.ndarray]]:
    """Three recordings (parcels, time) of 150 volumes, with noise of the scanner."""
    traits = Traits(age=50.0, sex="F", score=20.0)
    rng = np.random.default_rng(8)
    series = []
    for _ in range(3):
        latent = simulate(TABLE, traits, 112.0, 1.0, rng).at(0.735 * np.arange(150)).T
        series.append(latent + 2.0 * rng.standard_normal(latent.shape))
    return Networks.of(TABLE.replace("n/a", np.nan)), series


def _accuracy(networks: Networks, features: list[np.ndarray], codes: np.ndarray) -> float:
    found = []
    for number, values in enumerate(features):
        asked = asked_parcels(codes, number)
        told = tell(distances(values), codes, asked)
        found.append(scores(codes[asked], told.networks)["accuracy"])
    return float(np.mean(found))


def test_planted_networks_are_found_above_raw_series_and_chance() -> None:
    networks, series = _phantom()
    codes = networks.of_parcel
    known = codes >= 0
    fc = [connectivity_features(values) for values in series]
    everywhere = np.ones(len(codes), dtype=bool)
    weights = [np.exp(8 * values) / np.exp(8 * values).sum(axis=1, keepdims=True) for values in fc]
    attention = [attention_features(values, everywhere, "both") for values in weights]
    raw = _accuracy(networks, list(series), codes)
    chance = np.bincount(codes[known]).max() / known.sum()
    assert raw > chance + 0.1  # no straw man
    assert _accuracy(networks, fc, codes) > raw + 0.05
    assert _accuracy(networks, attention, codes) > raw + 0.05
    shuffled = codes.copy()
    shuffled[known] = np.random.default_rng(1).permutation(codes[known])
    assert _accuracy(networks, fc, shuffled) < chance + 0.05


def test_attention_to_oneself_tells_nothing() -> None:
    between = np.random.default_rng(0).uniform(size=(6, 6))
    covered = np.array([True, True, False, True, True, True])
    other = between + 100 * np.eye(6)
    other[2] = other[:, 2] = 7.0  # a parcel without data
    for side, width in (("rows", 5), ("both", 10)):
        found = attention_features(between, covered, side)
        assert found.shape == (5, width)
        np.testing.assert_allclose(found, attention_features(other, covered, side))


def test_an_atlas_without_networks_has_none_to_tell() -> None:
    with pytest.raises(NoNetworksError, match="yeo7_network"):
        Networks.of(TABLE.drop(columns="yeo7_network"))


@pytest.mark.parametrize("make", [VariationalAutoencoder, GraphAutoencoder])
def test_autoencoders_have_a_state_for_each_parcel(make) -> None:
    torch.manual_seed(0)
    graph = graph_of(torch.randn(12, 12))
    network = make(20, 4, graph).eval()
    guess, more = network(torch.randn(3, 12, 20))
    assert guess.shape == (3, 12, 20) and more.shape == ()
    signal = torch.randn(12, 60)
    found = represent(network, signal, 20)
    assert found.shape == (12, 3 * 4)
    first = represent(network, signal[:, :20], 20)
    np.testing.assert_allclose(found[:, :4], first, atol=1e-5)
    drawn = [network.train()(signal[None, :, :20])[0] for _ in range(2)]
    assert torch.equal(*drawn) == (make is GraphAutoencoder)


def test_patches_of_each_parcel_are_hidden() -> None:
    hidden = Hiding(window=50, patch=8, ratio=0.75).drawn(200, 1, "a")
    assert hidden.shape == (200, 50)
    assert abs(float(hidden.float().mean()) - 0.75) < 0.05
    assert (hidden[:, :8].all(dim=1) | ~hidden[:, :8].any(dim=1)).all()
    assert torch.equal(hidden, Hiding(50, 8, 0.75).drawn(200, 1, "a"))
    assert not torch.equal(hidden, Hiding(50, 8, 0.75).drawn(200, 1, "b"))
