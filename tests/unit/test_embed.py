"""Vectors of a study's recordings and of loose files are those of the class itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from brainlm.cli import _load_verbs, app
from brainlm.cli.embed import embed
from brainlm.cli.embed_files import embed_files
from brainlm.cli.pretrain import pretrain
from brainlm.errors import DataError, InputError
from brainlm.evaluate.embeddings import embed_series, read_embeddings
from brainlm.layout import Study
from brainlm.model import BrainLM
from brainlm.model.checkpoint import weights_sha256
from brainlm.provenance import read_sidecar
from brainlm.shards.reader import ShardReader

from .small_model import series, write_model
from .synthetic_cohort import make_shards, params, series_path, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    splits = {"train": 3, "val": 1, "test": 1}
    study = write_study(tmp_path_factory.mktemp("embed") / "study", splits, volumes=90)
    make_shards(study)
    pretrain(study.root)
    return study


def test_a_study_is_embedded_as_its_raw_series_are(study: Study) -> None:
    embed(study.root, params(study, "embed"))
    path = study.path("embeddings", run="brainlm")
    table = pd.read_parquet(path)
    reader = ShardReader(study.path("shards_index"))
    assert list(table["recording_id"]) == sorted(reader.table["recording_id"])
    assert list(table["split"]) == list(reader.table.loc[table["recording_id"], "split"])
    assert set(table["n_windows"]) == {2} and "label_score" not in table
    model = BrainLM.from_pretrained(study.path("model", run="brainlm").parent)
    for pool in ("mean", "cls"):
        names, vectors = read_embeddings(path, pool)
        assert vectors.shape == (5, 32) and vectors.dtype == np.float32
        for name, vector in zip(names, vectors, strict=True):
            raw = pd.read_parquet(series_path(study, name))
            expected = model.embed(raw, pool, tr=2.0)  # shards hold float16
            np.testing.assert_allclose(vector, expected, atol=0.002)
        # The five differ by more than that; CLS of a barely trained model does not look about.
        assert pool == "cls" or np.ptp(vectors, axis=0).max() > 0.02
    assert read_sidecar(path)["Stage"] == "embed"
    before = path.read_bytes()
    embed(study.root)
    assert path.read_bytes() == before


def test_loose_files_are_embedded_as_the_class_does(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    raw = [series(50, seed) for seed in range(3)]
    raw[2][:, 1] = 0.0  # parcels without voxels, as some tools write them
    names = [f"P{number}" for number in range(1, 9)]
    turned = pd.DataFrame(raw[1], columns=names)[names[::-1]]
    paths = [tmp_path / "a.npy", tmp_path / "b.tsv", tmp_path / "c.npy"]
    np.save(paths[0], raw[0])
    turned.to_csv(paths[1], sep="\t", index=False)
    np.save(paths[2], raw[2])
    out = tmp_path / "out.parquet"
    embed_files(str(folder), paths, out, tr=2.0)
    found, vectors = read_embeddings(out, "cls")
    assert found == ["a.npy", "b.tsv", "c.npy"]
    model = BrainLM.from_pretrained(folder)
    raw[2][:, 1] = np.nan
    for vector, one in zip(vectors, raw, strict=True):
        np.testing.assert_allclose(vector, model.embed(one, "cls"), rtol=1e-4, atol=1e-5)
    about = read_sidecar(out)
    assert set(about["Sources"]) == {"series::a.npy", "series::b.tsv", "series::c.npy"}
    assert about["ModelWeightsSHA256"] == weights_sha256(model.network)


def test_all_windows_count_however_they_are_batched(tmp_path: Path) -> None:
    model = BrainLM.from_pretrained(write_model(tmp_path / "model"))
    raw = series(130)
    scaled = model.take(raw).values.T
    for batch_size in (1, 2, 8):
        found = embed_series(model.autoencoder, scaled, batch_size=batch_size)
        assert found.n_windows == 3
        for pool, vector in found.pooled.items():
            np.testing.assert_allclose(vector, model.embed(raw, pool), rtol=1e-4, atol=1e-6)


def test_a_file_that_does_not_fit_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    paths = [tmp_path / "good.npy", tmp_path / "short.npy"]
    np.save(paths[0], series(50))
    np.save(paths[1], series(30))
    out = tmp_path / "out.parquet"
    with pytest.raises(DataError, match="30 time points, this needs at least 40") as told:
        embed_files(str(folder), paths, out)
    assert str(told.value.file).endswith("short.npy") and not out.exists()
    with pytest.raises(DataError, match=r"TR of 0\.8 s"):
        embed_files(str(folder), paths[:1], out, tr=0.8)
    with pytest.raises(InputError, match=r"must end in \.parquet"):
        embed_files(str(folder), paths[:1], tmp_path / "out.csv")


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """As those of a study are that has a folder for each subject."""
    folder = write_model(tmp_path / "model")
    paths = [tmp_path / subject / "series.npy" for subject in ("sub-01", "sub-02")]
    for seed, path in enumerate(paths):
        path.parent.mkdir()
        np.save(path, series(50, seed))
    out = tmp_path / "out.parquet"
    embed_files(str(folder), paths, out, scaler=folder)
    assert read_embeddings(out)[0] == [path.as_posix() for path in paths]
    assert set(read_sidecar(out)["Sources"]) == {
        *(f"series::{path.as_posix()}" for path in paths),
        "scaler::normalization.safetensors",
    }
    with pytest.raises(InputError, match="given twice"):
        embed_files(str(folder), [paths[0], paths[0]], out)


def test_the_command_line_takes_many_files(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", series(50))
    _load_verbs()
    files = [str(tmp_path / "a.npy"), str(tmp_path / "b.npy")]
    arguments = ["embed-files", str(folder), *files, "--output", str(tmp_path / "o.parquet")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "2 series" in done.output


def test_a_study_of_short_recordings_is_refused(tmp_path: Path) -> None:
    options = {"eligibility": {"min_volumes": 30}}
    study = write_study(tmp_path / "study", {"train": 2, "val": 1, "test": 1}, options=options)
    make_shards(study)
    pretrain(study.root)
    reader = ShardReader(study.path("shards_index"))
    from brainlm.cli.embed import _long_enough

    with pytest.raises(DataError, match="No recording has the model's 61"):
        _long_enough(reader, 61)
    assert len(_long_enough(reader, 60)) == 4
