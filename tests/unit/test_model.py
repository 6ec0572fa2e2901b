"""The network sees what it may see, and nothing else; its folder is all one needs."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlm.config import Model, load_preset
from brainlm.errors import DataError, InputError
from brainlm.model.checkpoint import (
    ModelCard,
    build_model,
    load_model,
    save_surroundings,
    save_weights,
)
from brainlm.model.config import ModelConfig
from brainlm.model.heads import LabelModel
from brainlm.model.mae import MaskedAutoencoder
from brainlm.model.mask import (
    TokenMask,
    chosen_mask,
    count_visible,
    generator,
    random_mask,
    random_parcels,
    random_partition,
)
from brainlm.model.place import ParcelPlace, sinusoids
from brainlm.shards.scaler import Scaler, save_scaler

from .small_networks import small_network, window
from .synthetic_cohort import NETWORK, PARCELS, parcel_table

CONFIG = ModelConfig.from_dict({**NETWORK, "decoder_layers": 1, "dropout": 0.0})


PATCHES = CONFIG.timepoints // CONFIG.patch


def _available(covered: torch.Tensor) -> torch.Tensor:
    return covered.repeat_interleave(PATCHES, dim=1)


def _model(seed: int = 0) -> MaskedAutoencoder:
    model = build_model(CONFIG, parcel_table())
    assert isinstance(model, MaskedAutoencoder)
    model.initialize(generator(seed))
    # away from the start, where every guess is 0
    torch.nn.init.normal_(model.decoder.guess.weight, generator=generator(seed, "guess"))
    return model.eval()


def _batch(seed: int = 0, missing: tuple[int, ...] = (2, 5)) -> tuple[torch.Tensor, torch.Tensor]:
    """Signals (2, parcels, time), the first with `missing` parcels; and what is covered."""
    signal = torch.randn(2, PARCELS, CONFIG.timepoints, generator=generator(seed, "signal"))
    signal[0, list(missing)] = torch.nan
    return signal, ~signal.isnan().any(dim=2)


def test_every_preset_is_a_valid_network() -> None:
    config = ModelConfig.from_dict(load_preset(Model()))
    assert (config.parcels, config.timepoints, config.patch) == (424, 200, 20)
    assert ModelConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"depth": 3}, "unknown: depth"),
        ({"patch": 7}, "multiple of model.patch"),
        ({"heads": 3}, "multiple of model.heads"),
        ({"layers": 0}, "at least 1"),
        ({"layers": 1.5}, "type int"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_wrong_sizes_are_refused(change: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        ModelConfig.from_dict({**CONFIG.to_dict(), **change})
    with pytest.raises(InputError, match="missing: mlp"):
        ModelConfig.from_dict({k: v for k, v in CONFIG.to_dict().items() if k != "mlp"})


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4),
    st.floats(0.05, 0.95),
    st.integers(0, 99),
)
def test_masks_never_show_or_ask_for_missing_parcels(covered, ratio, seed) -> None:
    table = torch.tensor(covered)
    table[:, 0] = True  # every recording has at least one parcel
    patches = 5
    available = table.repeat_interleave(patches, dim=1)
    n_visible = count_visible(ratio, int(available.sum(1).min()))
    mask = random_mask(available, n_visible, generator(seed))
    whole = torch.cat([mask.visible, mask.hidden], dim=1).sort(dim=1).values
    assert (whole == torch.arange(30)).all()
    assert mask.visible.shape[1] == n_visible
    assert table.gather(1, mask.visible // patches).all()
    assert (mask.target == table.gather(1, mask.hidden // patches)).all()
    assert mask.target.any(dim=1).all()

    for row in table:
        tokens = row.repeat_interleave(patches)
        views = random_partition(tokens, n_visible, generator(seed))
        assert views.shape[1] == n_visible
        joined = views.flatten()
        assert row[joined // patches].all()
        n = int(row.sum()) * patches
        assert n - len(joined.unique()) < 0.05 * n_visible  # next to all are shown
        assert len(joined) < n + n_visible  # by as few looks as it takes
        assert all(len(view.unique()) == n_visible for view in views)


def test_chosen_tokens_are_hidden_and_asked_for() -> None:
    covered = torch.ones(3, 6, dtype=torch.bool)
    covered[0, 2] = False
    parcels = random_parcels(covered, 2, generator(1))
    assert (parcels.sum(dim=1) == 2).all() and not parcels[0, 2]
    available, hide = (table.repeat_interleave(5, dim=1) for table in (covered, parcels))
    mask = chosen_mask(available, hide, 15, generator(2))
    for sample in range(3):
        asked = mask.hidden[sample][mask.target[sample]]
        assert sorted(asked.tolist()) == (available & hide)[sample].nonzero()[:, 0].tolist()
        assert not hide[sample][mask.visible[sample]].any()
        assert available[sample][mask.visible[sample]].all()
    with pytest.raises(InputError, match="fewer than 16 tokens left"):
        chosen_mask(available, hide, 16, generator(2))


def test_masks_follow_the_seed_and_are_spread() -> None:
    available = torch.ones(400, 40, dtype=torch.bool)
    mask, again, other = (random_mask(available, 10, generator(key)) for key in (1, 1, 2))
    assert torch.equal(mask.visible, again.visible)
    assert not torch.equal(mask.visible, other.visible)
    counts = torch.bincount(mask.visible.flatten(), minlength=40)
    assert counts.float().mean() == 100
    assert counts.min() > 60
    assert counts.max() < 140


def test_the_loss_is_the_mean_square_over_hidden_entries_with_data() -> None:
    signal, covered = _batch()
    mask = random_mask(_available(covered), 6, generator(1))
    result = _model()(signal, mask)
    squares = []
    for sample in range(2):
        for place, token in enumerate(mask.hidden[sample].tolist()):
            parcel, patch = divmod(token, PATCHES)
            truth = signal[sample, parcel, patch * 10 : patch * 10 + 10]
            if not truth.isnan().any():
                squares += ((result.predicted[sample, place] - truth) ** 2).tolist()
    assert len(squares) == 10 * int(mask.target.sum())
    assert float(result.loss.detach()) == pytest.approx(np.mean(squares), rel=1e-5)


def test_nothing_hidden_or_missing_leaks_into_the_guess() -> None:
    signal, covered = _batch()
    mask = random_mask(_available(covered), 6, generator(1))
    model = _model()
    expected = model(signal, mask)
    spoilt = signal.reshape(2, -1, CONFIG.patch).clone()
    for sample in range(2):
        spoilt[sample, mask.hidden[sample]] = 1e6  # also where parcels have no data
    found = model(spoilt.reshape(signal.shape), mask)
    assert torch.equal(found.predicted, expected.predicted)
    seen = spoilt.clone()
    seen[0, mask.visible[0, 0]] += 1.0
    changed = model(seen.reshape(signal.shape), mask).predicted
    assert not torch.allclose(changed[0], expected.predicted[0])
    assert torch.equal(changed[1], expected.predicted[1])


@pytest.mark.parametrize("kind", ["parcels", "image"])
@pytest.mark.parametrize(("parcels", "time"), [(0, -5), (0, 40), (3, 0), (-1, 0)])
def test_windows_of_another_shape_are_refused(kind: str, parcels: int, time: int) -> None:
    """Else they would be cut all the same, into tokens of other parcels and times."""
    model = small_network(kind)
    right = window(model.config)
    visible = torch.arange(3).expand(2, -1)
    wrong = torch.zeros(2, right.shape[1] + parcels, right.shape[2] + time)
    for signal in (wrong, right.transpose(1, 2), right[0]):
        with pytest.raises(InputError, match=r"takes windows \(batch, \d+ parcels"):
            model.encode(signal, visible)


def test_a_loss_that_is_not_there_is_refused() -> None:
    model = small_network("parcels")
    everything = torch.ones(2, model.tokenizer.tokens, dtype=torch.bool)
    with pytest.raises(InputError, match="no loss 'l1'"):
        model(window(model.config), random_mask(everything, 3, generator(0)), "l1")


def test_missing_parcels_leave_finite_gradients() -> None:
    signal, covered = _batch()
    mask = random_mask(_available(covered), 6, generator(1))
    model = _model().train()
    model(signal, mask).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0 or name.endswith("bias"), name


def test_the_order_of_tokens_does_not_matter() -> None:
    signal, covered = _batch(missing=())
    mask = random_mask(_available(covered), 6, generator(1))
    turned = TokenMask(mask.visible.flip(1), mask.hidden.flip(1), mask.target.flip(1))
    model = _model()
    a, b = model(signal, mask), model(signal, turned)
    torch.testing.assert_close(a.predicted, b.predicted.flip(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(a.loss, b.loss)


def test_places_are_alike_when_near_and_unlike_when_far() -> None:
    xyz = torch.tensor([[0.0, 0, 0], [20, 0, 0], [40, 0, 0], [130, 0, 0]])
    place = ParcelPlace(xyz, 1, 2048)
    phase = xyz @ place.directions
    features = torch.cat([phase.sin(), phase.cos()], dim=1)
    likeness = (features @ features[0] / 1024).numpy()
    expected = np.exp(-(np.array([0, 20, 40, 130]) ** 2) / (2 * 40**2))
    np.testing.assert_allclose(likeness, expected, atol=0.1)
    times = sinusoids(10, 64, longest=40)
    assert (times @ times.T).argmax(dim=1).tolist() == list(range(10))


def test_attention_is_local_before_any_training() -> None:
    config = ModelConfig.from_dict({**load_preset(Model()), "parcels": 200})
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.uniform(-70, 70, (200, 3)), columns=["x", "y", "z"])
    model = build_model(config, table)
    assert isinstance(model, MaskedAutoencoder)
    model.initialize(generator(0))
    block = model.decoder.blocks[0]
    index = torch.arange(model.tokenizer.tokens)[None]
    with torch.no_grad():
        x = block.norm1(model.decoder.place(index))
        query = block.attention.query(x)[0]
        key = block.attention.key_value(x)[0, :, : query.shape[1]]
        looked_at = (query @ key.T / query.shape[1] ** 0.5).softmax(dim=1)
    xyz = torch.tensor(table.to_numpy(dtype=np.float32)).repeat_interleave(10, dim=0)
    distance = torch.cdist(xyz, xyz)
    apart = (index[0][:, None] % 10 - index[0] % 10).abs().float()
    assert (looked_at * distance).sum(dim=1).mean() < 0.5 * distance.mean()
    assert (looked_at * apart).sum(dim=1).mean() < 0.5 * apart.mean()


def _save(folder, model, head=None) -> None:
    source = folder.parent / "data"
    source.mkdir(exist_ok=True)
    parcel_table().to_csv(source / "parcels.tsv", sep="\t", index=False)
    save_scaler(
        source / "normalization.safetensors",
        Scaler(np.zeros(PARCELS), np.ones(PARCELS), np.ones(PARCELS, bool)),
    )
    folder.mkdir(exist_ok=True)
    save_weights(folder / "model.safetensors", model)
    save_surroundings(
        folder,
        config=CONFIG,
        card=ModelCard(0.75, "abc", head),
        data_folder=source,
        readme="# model\n",
    )


HEAD = {
    "name": "age",
    "kind": "regression",
    "positive": None,
    "mean": 50.0,
    "sd": 10.0,
    "dropout": 0.1,
}


@pytest.mark.parametrize("head", [None, HEAD])
def test_a_models_folder_gives_the_same_model_back(tmp_path, head) -> None:
    model = build_model(CONFIG, parcel_table(), head)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, generator=generator("any"))
    _save(tmp_path / "m", model, head)
    _save(tmp_path / "n", model, head)
    for path in (tmp_path / "m").iterdir():
        assert path.read_bytes() == (tmp_path / "n" / path.name).read_bytes()
    loaded = load_model(str(tmp_path / "m"))  # as the README calls it
    assert isinstance(loaded.model, LabelModel) == (head is not None)
    assert loaded.card == ModelCard(0.75, "abc", head)
    assert loaded.config == CONFIG
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.model.state_dict()[name]), name
    signal, covered = _batch()
    mask = random_mask(_available(covered), 6, generator(1))
    expected = (model.autoencoder if isinstance(model, LabelModel) else model).eval()(signal, mask)
    assert torch.equal(loaded.autoencoder(signal, mask).predicted, expected.predicted)


def test_a_spoilt_folder_is_refused(tmp_path) -> None:
    folder = tmp_path / "m"
    _save(folder, _model())
    parcels = folder / "parcels.tsv"
    text = parcels.read_text()
    parcels.write_text(text.replace("P1", "P9"))
    with pytest.raises(DataError, match=r"parcels\.tsv is missing or is not the one"):
        load_model(folder)
    parcels.write_text(text)
    config = json.loads((folder / "config.json").read_text())
    config["model"]["hidden"] = 64
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="weights do not fit"):
        load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(DataError, match="no model's folder"):
        load_model(folder)


def test_another_atlas_is_refused() -> None:
    with pytest.raises(DataError, match="made for 8 parcels, the atlas has 7"):
        build_model(CONFIG, parcel_table().iloc[:7])
