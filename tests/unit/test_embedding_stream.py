"""A cohort's vectors: the same whoever is beside whom, however often the job is killed."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainlm.cli.embed import embed
from brainlm.errors import DataError
from brainlm.evaluate.embedding_stream import EmbeddingStream, batch_of
from brainlm.evaluate.embeddings import embed_series, read_embeddings
from brainlm.layout import Study
from brainlm.model import BrainLM
from brainlm.model.mae import MaskedAutoencoder
from brainlm.shards.reader import ShardReader

from .small_model import write_model
from .synthetic_cohort import make_shards, write_study

COUNT = 14


class HoledReader:
    """A reader in which some recordings lack parcels."""

    def __init__(self, reader: ShardReader, holes: dict[str, list[int]]):
        self._reader, self._holes = reader, holes
        self.index_path = reader.index_path
        self.table = reader.table.copy()
        for name, lacking in holes.items():
            self.table.loc[name, "n_parcels"] -= len(lacking)

    def stack(self, windows, length: int) -> np.ndarray:
        stored = self._reader.stack(windows, length).copy()
        for row, window in enumerate(windows):
            stored[row][:, self._holes.get(window.recording_id, [])] = np.nan
        return stored

    def series(self, name: str) -> np.ndarray:
        series = self._reader.series(name).copy()
        series[:, self._holes.get(name, [])] = np.nan
        return series


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    splits = {"train": COUNT - 4, "val": 2, "test": 2}
    study = write_study(tmp_path_factory.mktemp("stream") / "study", splits, volumes=90)
    make_shards(study)
    return study


@pytest.fixture(scope="module")
def reader(study: Study) -> ShardReader:
    return ShardReader(study.path("shards_index"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> MaskedAutoencoder:
    torch.use_deterministic_algorithms(True)
    return BrainLM.from_pretrained(write_model(tmp_path_factory.mktemp("m") / "m")).autoencoder


def _vectors(model, reader, names, folder: Path, batch: int = 4, part: int = 5) -> np.ndarray:
    stream = EmbeddingStream(model, reader, names, folder / "parts" / "x", batch, part)
    assert sum(stream.run()) == stream.n_windows
    stream.merge(folder / "out.parquet")
    stream.forget()
    assert not (folder / "parts").exists()
    found, mean = read_embeddings(folder / "out.parquet", "mean")
    assert found == list(names)
    return np.stack([mean, read_embeddings(folder / "out.parquet", "cls")[1]], axis=1)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(
        st.integers(0, COUNT - 1), st.lists(st.integers(0, 7), max_size=6, unique=True)
    ),
    st.permutations(range(COUNT)),
    st.integers(1, COUNT),
    st.integers(1, 6),
)
def test_a_vector_is_its_own_whoever_is_beside_it(
    model, reader, tmp_path_factory, holes, order, count, part
) -> None:
    """To the last bit; and that of `embed_series` to rounding."""
    folder = tmp_path_factory.mktemp("v")
    names = sorted(reader.table.index)
    holed = HoledReader(reader, {names[place]: lacking for place, lacking in holes.items()})
    chosen = [names[place] for place in order[:count]]
    some = _vectors(model, holed, chosen, folder, part=part)
    alone = np.concatenate([_vectors(model, holed, [name], folder) for name in chosen[:2]])
    np.testing.assert_array_equal(some[:2], alone)
    for name, vector in zip(chosen[:3], some, strict=False):
        expected = embed_series(model, holed.series(name)).pooled
        np.testing.assert_allclose(vector[0], expected["mean"], atol=2e-6)
        np.testing.assert_allclose(vector[1], expected["cls"], atol=2e-6)


def test_a_recording_without_data_is_named(model, reader, tmp_path: Path) -> None:
    names = sorted(reader.table.index)
    empty = HoledReader(reader, {names[3]: list(range(8))})
    with pytest.raises(DataError, match=f"{names[3]} has no parcel with data"):
        _vectors(model, empty, names, tmp_path)


def test_what_was_made_is_not_made_again(model, reader, tmp_path: Path, monkeypatch) -> None:
    """Killed in the second of three parts, it goes on there, and ends in the same bytes."""
    names = sorted(reader.table.index)
    _vectors(model, reader, names, tmp_path)
    whole = (tmp_path / "out.parquet").read_bytes()
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups == 3
    folder = tmp_path / "again"
    killed = EmbeddingStream(model, reader, names, folder / "parts" / "x", 4, 5).run()
    for _ in range(4):  # of 3 batches of each part
        next(killed)
    killed.close()
    there = sorted((folder / "parts" / "x").glob("*.parquet"))
    assert [path.name for path in there] == ["part-00000.parquet"]
    seen = []
    real = EmbeddingStream._encode
    monkeypatch.setattr(
        EmbeddingStream, "_encode", lambda self, *a: seen.append(a[0]) or real(self, *a)
    )
    _vectors(model, reader, names, folder)
    assert set(seen) == {1, 2}
    assert (folder / "out.parquet").read_bytes() == whole


def test_parts_of_another_model_are_not_taken(study: Study, monkeypatch) -> None:
    from brainlm.cli.pretrain import pretrain

    pretrain(study.root)
    path = study.path("embeddings", run="brainlm")
    parts = path.parent / "brainlm.parts"
    (parts / "0123456789abcdef").mkdir(parents=True)
    with monkeypatch.context() as broken:
        broken.setattr(EmbeddingStream, "merge", lambda *a: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            embed(study.root)
    [kept] = parts.iterdir()
    assert kept.name != "0123456789abcdef" and not path.exists()
    embed(study.root)
    assert not parts.exists() and len(pd.read_parquet(path)) == COUNT


def test_batches_are_larger_where_windows_have_fewer_tokens(model) -> None:
    assert batch_of(model) == 256
    larger = copy.deepcopy(model)
    larger.tokenizer.tokens = 4240
    assert batch_of(larger) == 1
