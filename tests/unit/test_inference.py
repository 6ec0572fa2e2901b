"""Windows and looks: all of a recording is seen, or hidden, as often as is promised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.errors import InputError
from brainlm.model import BrainLM
from brainlm.model.inference import covering_starts, looks, stitch, turns
from brainlm.model.mask import count_visible, generator, random_partition

from .small_model import IMAGE, write_model


@pytest.fixture(scope="module", params=["parcels", "image"])
def model(request, tmp_path_factory):
    sizes = IMAGE if request.param == "image" else {}
    folder = tmp_path_factory.mktemp(request.param) / "model"
    return BrainLM.from_pretrained(write_model(folder, **sizes)).autoencoder


def _values(volumes: int, missing: set[int]) -> torch.Tensor:
    values = torch.from_numpy(np.random.default_rng(0).standard_normal((8, volumes))).float()
    values[sorted(missing)] = torch.nan
    return values


missing_parcels = st.sets(st.integers(0, 7), max_size=7)
ratios = st.floats(0.01, 0.99)


@given(n=st.integers(1, 500), window=st.integers(1, 100))
def test_the_fewest_windows_hold_every_time_point(n: int, window: int) -> None:
    if n < window:
        return
    starts = covering_starts(n, window)
    held = np.zeros(n, bool)
    for start in starts:
        assert 0 <= start <= n - window
        held[start : start + window] = True
    assert held.all() and len(starts) == -(-n // window)


@settings(max_examples=40)
@given(missing=missing_parcels, ratio=ratios, seed=st.integers(0, 9))
def test_each_token_is_hidden_at_least_once(model, missing, ratio, seed) -> None:
    found = turns(model, _values(90, missing), [0, 50], ratio, seed)
    for start in (0, 50):
        some = [look for look in found if look.start == start]
        shown = torch.zeros(len(some), model.tokenizer.tokens, dtype=torch.bool)
        for row, look in enumerate(some):
            shown[row, look.visible] = True
        available = some[0].available
        assert not shown[:, ~available].any()  # what has no data is never shown
        assert (~shown[:, available]).any(dim=0).all()
        counts = shown.sum(dim=1)
        assert (counts == counts[0]).all() and counts[0] >= 1
        hidden = int(available.sum()) - int(counts[0])
        assert len(some) == -(-int(available.sum()) // hidden)  # no look more than it takes


@settings(max_examples=40)
@given(missing=missing_parcels, ratio=ratios, seed=st.integers(0, 9))
def test_looks_show_next_to_all_of_what_there_is(model, missing, ratio, seed) -> None:
    found = looks(model, _values(40, missing), [0], ratio, seed)
    shown = torch.cat([look.visible for look in found])
    assert found[0].available[shown].all()
    total, each = int(found[0].available.sum()), len(found[0].visible)
    assert total - len(shown.unique()) < 0.05 * each and len(shown) < total + each
    assert len(shown[: total // each * each].unique()) == total // each * each  # none twice so far
    (whole,) = looks(model, _values(40, missing), [0])
    assert torch.equal(whole.visible, whole.available.nonzero()[:, 0])


@pytest.mark.parametrize("tokens", [351, 4230, 465, 4240])
@pytest.mark.parametrize("ratio", [0.2, 0.75, 0.9])
def test_no_quarter_of_a_window_goes_unseen_by_rounding(tokens: int, ratio: float) -> None:
    """351 tokens of the 111M (or 4,230 of 423 parcels) hold three sets of 88 (1,058), not four."""
    n_visible = count_visible(ratio, tokens)
    available = torch.ones(tokens, dtype=torch.bool)
    sets = random_partition(available, n_visible, generator(0))
    assert len(sets.unique()) > 0.98 * tokens and len(sets) <= -(-tokens // n_visible)


def test_one_token_is_looked_at_and_not_guessed(tmp_path) -> None:
    wide = BrainLM.from_pretrained(write_model(tmp_path / "model", patch=40)).autoencoder
    lonely = _values(40, set(range(1, 8)))
    (look,) = looks(wide, lonely, [0], 0.75)
    assert look.visible.tolist() == [0]
    with pytest.raises(InputError, match="one token with data"):
        turns(wide, lonely, [0], 0.75, 0)


def test_where_windows_overlap_guesses_are_averaged(model) -> None:
    values = _values(60, set())
    found = turns(model, values, [0, 20], 0.5, 0)
    parts = [
        stitch(model, [look for look in found if look.start == start], values) for start in (0, 20)
    ]
    together = stitch(model, found, values)
    torch.testing.assert_close(together[:, :20], parts[0][:, :20])
    torch.testing.assert_close(together[:, 40:], parts[1][:, 40:])
    inside = stitch(model, found[:1], values)
    assert inside.isnan().any() and not together.isnan().any()
    one, other = (part[:, 20:40] for part in parts)
    # In both windows each token was hidden once.
    torch.testing.assert_close(together[:, 20:40], (one + other) / 2)
