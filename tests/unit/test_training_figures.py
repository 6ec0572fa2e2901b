"""Pictures of a training: numbers in, figures out."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from brainlm.cli._training_figures import Gallery, groups_of, some_windows
from brainlm.cli._tuning_figures import TuningFigures, label_values
from brainlm.model.label_unit import HeadCard
from brainlm.report import training_figures as draw
from brainlm.report.projection import principal_components, two_dimensions
from brainlm.report.style import to_full_png, to_svg
from brainlm.shards.reader import ShardReader
from brainlm.shards.sampler import Window
from brainlm.train.checkpointing import TrainingLog
from brainlm.train.masking import Masking
from brainlm.train.tracking.shown import (
    Guesses,
    Trace,
    cls_vectors,
    forecast_guess,
    guesses,
    masked_guess,
    spread,
)
from brainlm.train.tracking.trackers import Trackers
from brainlm.train.validation import Measured

from .small_training import CONFIG
from .synthetic_cohort import make_shards, write_study
from .tuning_study import SETTINGS as TUNING

RNG = np.random.default_rng(0)
CLASSES = ("control", "first", "second")


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    torch.set_num_threads(1)
    splits = {"train": 3, "val": 4, "test": 1}
    study = write_study(tmp_path_factory.mktemp("figures") / "study", splits)
    return ShardReader(make_shards(study))


@pytest.fixture(scope="module")
def model(reader):
    from brainlm.model.checkpoint import build_model
    from brainlm.model.mask import generator

    model = build_model(CONFIG, reader.parcels)
    model.initialize(generator(0))
    torch.nn.init.normal_(model.decoder.guess.weight, generator=generator(1))
    return model.train()


def _text(figure) -> str:
    return to_svg(figure)


def _table(kind: str, count: int = 40) -> pd.DataFrame:
    names = [f"sub-{number}" for number in range(count)]
    if kind == "regression":
        values = {"true": RNG.uniform(20, 80, count), "guessed": RNG.uniform(20, 80, count)}
    elif kind == "binary":
        values = {"true": np.arange(count) % 2.0, "guessed": RNG.random(count)}
    else:
        chances = RNG.dirichlet(np.ones(3), count)
        values = {"true": np.arange(count) % 3.0}
        values |= {f"guessed_{number}": chances[:, number] for number in range(3)}
    return pd.DataFrame({"recording_id": names, **values})


@pytest.mark.parametrize("kind", ["regression", "binary", "classes"])
def test_labels_are_drawn_without_names_and_with_equal_bytes(kind) -> None:
    table = _table(kind)
    classes = CLASSES if kind == "classes" else ()

    def figure():
        return draw.labels(table, "age", kind, classes, "val, step 3")

    png = to_full_png(figure())
    assert png == to_full_png(figure())
    assert Image.open(io.BytesIO(png)).size == (720, 630)
    text = _text(figure())
    assert text == _text(figure())
    assert "age" in text
    assert "sub-" not in text
    if kind == "classes":
        assert all(name in text for name in CLASSES)
    if kind == "binary":
        assert "(n = 20)" in text


def test_a_confusion_counts_recordings_by_truth() -> None:
    table = pd.DataFrame({"true": [0.0, 0, 1, 2, 2], "recording_id": list("abcde")})
    for number in range(3):
        table[f"guessed_{number}"] = [0.8 if number == g else 0.1 for g in (0, 1, 1, 2, 0)]
    figure = draw.labels(table, "diagnosis", "classes", CLASSES, "t")
    told = {
        (round(t.get_position()[1]), round(t.get_position()[0])): t.get_text()
        for t in figure.axes[0].texts
    }
    assert [[told[row, column] for column in range(3)] for row in range(3)] == [
        ["1", "1", "0"],
        ["0", "1", "0"],
        ["1", "0", "1"],
    ]


def test_traces_are_drawn_where_they_were_hidden_with_their_r2() -> None:
    true = np.sin(np.arange(60) / 5)
    guessed = np.full(60, np.nan)
    guessed[10:30] = true[10:30] + 0.1
    guessed[40] = 0.2
    constant = Trace(1, np.zeros(60), np.where(np.arange(60) < 9, 0.5, np.nan))
    figure = draw.reconstruction([Trace(0, true, guessed), constant], ["V1", "M1"], "step 12")
    first, second = figure.axes
    hidden = ~np.isnan(guessed)
    y, p = true[hidden], guessed[hidden]
    expected = 1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert first.get_title(loc="left") == f"V1: R² {expected:.2f}"
    assert second.get_title(loc="left") == "M1: R² n/a"
    assert len(first.patches) == 2  # two hidden stretches
    assert [len(line.get_xdata()) for line in first.lines] == [60, 20, 1, 0]


def test_one_bad_parcel_does_not_squeeze_the_others() -> None:
    values = np.concatenate([RNG.normal(0.3, 0.1, 400), [-50, np.nan]])
    figure = draw.parcel_histogram(values, "t")
    assert figure.axes[0].get_xlim()[0] > -1
    assert "lie below" in figure.axes[0].get_xlabel()
    assert sum(bar.get_height() for bar in figure.axes[0].containers[0]) == 401
    draw.parcel_histogram(np.array([0.2]), "one parcel")
    draw.parcel_histogram(np.array([0.2, 0.2]), "two alike")


def test_a_map_names_its_groups_and_puts_the_many_together() -> None:
    places = RNG.normal(size=(60, 2))
    few = draw.map_of_recordings(places, ("a", "b"), "site", ["A", "B", "B"] * 20, "t")
    assert [t.get_text() for t in few.axes[0].get_legend().get_texts()] == [
        "B (n = 40)",
        "A (n = 20)",
    ]
    many = [f"s{number % 12:02d}" for number in range(60)]
    told = draw.map_of_recordings(places, ("a", "b"), "site", many, "t").axes[0].get_legend()
    assert told.get_texts()[-1].get_text() == "5 others (n = 25)"
    assert len(draw.map_of_recordings(places, ("a", "b"), "age", list(range(60)), "t").axes) == 2
    assert draw.map_of_recordings(places, ("a", "b"), None, [], "t").axes[0].get_legend() is None


@given(count=st.integers(1, 12), width=st.integers(1, 5), seed=st.integers(0, 99))
def test_principal_components_keep_what_they_can(count, width, seed) -> None:
    vectors = np.random.default_rng(seed).normal(size=(count, width))
    places, names = principal_components(vectors)
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()
    centred = vectors - vectors.mean(axis=0)
    largest = np.linalg.svd(centred, compute_uv=False)[:2]
    assert np.linalg.norm(places) == pytest.approx(np.linalg.norm(largest), abs=1e-9)
    assert names[0].startswith("principal component 1 (")
    again, _ = principal_components(vectors[::-1])
    assert np.allclose(again[::-1], places, atol=1e-6) or len(largest) > 1


def test_of_few_recordings_there_is_no_umap() -> None:
    _, names = two_dimensions(RNG.normal(size=(10, 4)))
    assert names[0].startswith("principal component")


def test_guesses_are_those_of_the_hidden_entries(reader, model) -> None:
    windows = [Window(name, 0) for name in reader.lengths("val")]
    guess = masked_guess(model, Masking("random", 0.75, 8), 1, "float32")
    found = guesses(reader, windows, 40, torch.device("cpu"), guess, 3)
    again = guesses(reader, windows, 40, torch.device("cpu"), guess, 3)
    assert model.training
    assert np.array_equal(found.counts, again.counts)
    hidden = len(windows) * 24 * 10  # windows x hidden tokens x time points
    assert 0.97 * hidden <= found.counts.sum() <= hidden
    assert len(found.traces) == 5
    for trace in found.traces:
        series = reader.window(windows[0].recording_id, 0, 40)[:, trace.parcel]
        assert trace.true == pytest.approx(series)
        assert 0 < np.isfinite(trace.guessed).sum() <= 40
    assert isinstance(found, Guesses)
    assert "R²" in _text(draw.scatter(found, "t"))


def test_forecasts_are_guesses_of_the_end(reader, model) -> None:
    windows = [Window(name, 0) for name in reader.lengths("val")]
    guess = forecast_guess(model, 10, "float32")
    found = guesses(reader, windows, 40, torch.device("cpu"), guess, 4)
    for trace in found.traces:
        assert np.isfinite(trace.guessed).tolist() == [False] * 30 + [True] * 10


def test_vectors_are_cls_of_the_middle_window_shown_whole(reader, model) -> None:
    names = list(reader.lengths("val"))
    vectors = cls_vectors(model, reader, names, "float32")
    assert vectors.shape == (4, CONFIG.hidden)
    assert model.training
    signal = torch.from_numpy(reader.window(names[1], 10, 40).T.copy())[None]
    with torch.no_grad():
        whole = model.eval().encode(signal, torch.arange(32)[None])[0, 0]
    model.train()
    assert vectors[1] == pytest.approx(whole.numpy(), abs=1e-5)


@given(count=st.integers(1, 300), most=st.integers(1, 64))
def test_some_are_spread_over_all(count, most) -> None:
    names = [f"r{number:03d}" for number in range(count)]
    chosen = spread(names, most)
    assert len(chosen) == len(set(chosen)) == min(count, most)
    windows = [Window(name, start) for name in names for start in (0, 10)]
    some = some_windows(windows)
    assert len({window.recording_id for window in some}) == len(some) == min(count, 16)


def test_groups_are_sites_or_else_datasets(reader) -> None:
    names = list(reader.lengths("val"))
    before = reader.table
    try:
        reader.table = before.assign(site="A", dataset="one")
        assert groups_of(reader, names) == (None, [])
        reader.table = before.assign(site=pd.NA, dataset=["x", "y"] * (len(before) // 2))
        assert groups_of(reader, names)[0] == "dataset"
        reader.table = before.assign(site=["A", None] * (len(before) // 2), dataset="one")
        by, values = groups_of(reader, names)
        assert (by, set(values)) == ("site", {"A", "not known"})
    finally:
        reader.table = before


def test_label_values_are_numbers_or_the_names_of_classes() -> None:
    table = _table("classes", 6)
    head = HeadCard("d", "classes", None, 0.0, 1.0, 0.0, outputs=3, classes=CLASSES)
    assert label_values(table, head, ["sub-4", "sub-2"]) == ["first", "second"]
    head = HeadCard("sex", "binary", "F", 0.0, 1.0, 0.0)
    assert label_values(_table("binary", 4), head, ["sub-1", "sub-0"]) == ["1", "0"]
    head = HeadCard("age", "regression", None, 0.0, 1.0, 0.0)
    ages = _table("regression", 4)
    assert label_values(ages, head, ["sub-3"]) == [ages["true"][3]]


@pytest.mark.parametrize(
    ("losses", "most", "drawn"),
    [
        ([5, 4, 3, 2, 1, 6], 6, [1, 2, 3, 4, 5]),
        ([5, 4, 3, 2, 1, 6], 2, [3]),  # each third epoch
        ([1, 4, 3, 2, 5, 6], 1, []),
        ([6, 5, 4, 3, 2, 1], 1, [6]),
    ],
)
def test_of_a_fine_tuning_the_best_are_drawn(tmp_path, monkeypatch, losses, most, drawn) -> None:
    """The epoch that is kept is drawn in the end, and shown to trackers as of now."""
    seen: list[int] = []
    monkeypatch.setattr(TuningFigures, "_draw", lambda self, step, *rest: seen.append(step))
    log = TrainingLog(tmp_path / "log")
    gallery = Gallery(tmp_path, Trackers([], tmp_path / "log", print), first=True)
    settings = replace(TUNING, epochs=6)
    figures = TuningFigures(gallery, None, log, settings, None, precision="float32", most=most)
    for epoch, loss in enumerate(losses, start=1):
        row = {"step": epoch, "epoch": epoch, "val_loss": float(loss)}
        log.append(row)
        figures.look(epoch, None, Measured(row))
    assert seen == drawn
    best = losses.index(min(losses)) + 1
    figures.look_at_kept(best, None, Measured({"val_loss": 1.0}))
    assert (seen, gallery.now) == ([*drawn, best], 6)


def test_a_picture_of_an_older_epoch_is_shown_as_of_now(tmp_path) -> None:
    shown: list[tuple[str, int]] = []
    trackers = Trackers([], tmp_path / "log", print)
    trackers.figure = lambda name, step, png: shown.append((name, step))  # type: ignore[method-assign]
    gallery = Gallery(tmp_path / "figures", trackers, first=True)
    values = RNG.normal(0.3, 0.1, 50)
    gallery.hang("parcels", 4, lambda: draw.parcel_histogram(values, "step 4"))
    gallery.now = 9
    gallery.hang("parcels", 6, lambda: draw.parcel_histogram(values, "step 6"))
    assert shown == [("parcels", 4), ("kept/parcels", 9)]
    assert "step 6" in (tmp_path / "figures/parcels.svg").read_text()
    Gallery(tmp_path / "others", trackers, first=False).hang("parcels", 1, pytest.fail)
    assert not (tmp_path / "others").exists()


def test_a_finished_training_shows_its_own_pictures_again(tmp_path) -> None:
    """Another one has drawn in the meantime, and one picture more."""
    trackers = Trackers([], tmp_path / "log", print)
    shown = tmp_path / "figures"

    def gallery(name: str) -> Gallery:
        return Gallery(tmp_path / name, trackers, first=True, shown=shown)

    def chart(title: str):
        return lambda: draw.parcel_histogram(RNG.normal(0.3, 0.1, 50), title)

    gallery("one").hang("parcels", 1, chart("the one"))
    assert "the one" in (shown / "parcels.svg").read_text()
    for name in ("parcels", "map"):
        gallery("other").hang(name, 1, chart("the other"))
    assert "the other" in (shown / "parcels.svg").read_text()
    gallery("one").show()
    assert sorted(path.name for path in shown.iterdir()) == ["parcels.png", "parcels.svg"]
    assert "the one" in (shown / "parcels.svg").read_text()
    Gallery(tmp_path / "none drawn", trackers, first=True, shown=shown).show()
    assert len(list(shown.iterdir())) == 2
