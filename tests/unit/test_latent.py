"""Neighbours and maps of vectors: what was planted is found, what was not is not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from sklearn.manifold import trustworthiness as reference

from brainlm.cli.embed import embed
from brainlm.cli.evaluate_latent import evaluate_latent
from brainlm.cli.pretrain import pretrain
from brainlm.errors import DataError, InputError
from brainlm.evaluate.latent import draw
from brainlm.evaluate.latent_labels import latent_labels
from brainlm.evaluate.latent_maps import (
    NoMapError,
    principal_components,
    trustworthiness,
    umap_plane,
)
from brainlm.evaluate.latent_neighbours import (
    Judged,
    asked_of,
    identify_subjects,
    nearest,
    score_label,
)
from brainlm.files import read_json
from brainlm.shards.reader import ShardReader
from brainlm.train.settings import TargetSettings

from .synthetic_cohort import make_shards, params, write_study

JUDGED = Judged(neighbours=5, bootstrap=100, permutations=99, seed=0)


def _cohort(seed: int, n: int = 40, runs: int = 3, spread: float = 0.05):
    """Vectors of `runs` recordings of each of `n` subjects, who differ, close to one another's."""
    rng = np.random.default_rng(seed)
    people = rng.standard_normal((n, 6))
    vectors = np.repeat(people, runs, axis=0) + spread * rng.standard_normal((n * runs, 6))
    subjects = np.repeat([f"s{number:03d}" for number in range(n)], runs)
    return rng, people, (vectors + 100).astype(np.float32), subjects


def test_planted_labels_are_found() -> None:
    _, people, vectors, subjects = _cohort(0, n=60)
    age = np.repeat(people[:, 0] * 10 + 50, 3)
    found = score_label(vectors, age, "regression", subjects, JUDGED)
    r = found["metrics"]["pearson"]
    assert r["value"] > 0.5 and r["ci_low"] > 0.3 and r["p"] == 0.01
    assert abs(r["chance"]) < 0.2
    site = np.repeat((people[:, 1] > 0).astype(float) + (people[:, 1] > 1), 3)
    found = score_label(vectors, site, "classes", subjects, JUDGED)
    balanced, same = found["metrics"]["balanced_accuracy"], found["metrics"]["same_class"]
    assert balanced["value"] > 0.5 and balanced["p"] == same["p"] == 0.01
    shares = np.bincount(site.astype(int)) / len(site)
    assert same["chance"] == pytest.approx((shares**2).sum(), abs=0.05)
    assert balanced["chance"] == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.parametrize("kind", ["regression", "classes"])
def test_p_is_uniform_where_there_is_nothing(kind: str) -> None:
    """Subjects with different numbers of recordings, their labels drawn by lot."""
    p = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        counts = rng.integers(1, 4, 24)
        people = rng.standard_normal((24, 3))
        vectors = np.repeat(people, counts, axis=0) + 0.1 * rng.standard_normal((counts.sum(), 3))
        label = rng.standard_normal(24) if kind == "regression" else rng.integers(0, 2, 24) * 1.0
        subjects = np.repeat([f"s{number}" for number in range(24)], counts)
        judged = Judged(neighbours=4, bootstrap=1, permutations=39, seed=seed)
        found = score_label(vectors, np.repeat(label, counts), kind, subjects, judged)
        p.append(found["metrics"][found["headline"]]["p"])
    steps = np.array(p) - np.random.default_rng(0).uniform(0, 1 / 40, len(p))
    assert kstest(steps, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) <= 0.05) < 0.12


def test_p_is_uniform_for_what_changes_between_visits() -> None:
    """Motion, of people who came once or ten times: one value ten times over is no such deal."""
    p = []
    for seed in range(150):
        rng = np.random.default_rng(1000 + seed)
        owner = np.repeat(np.arange(24), rng.choice([1, 1, 1, 10], 24))
        vectors, label = rng.standard_normal((24, 3))[owner], rng.standard_normal(len(owner))
        judged = Judged(neighbours=10, bootstrap=1, permutations=39, seed=seed)
        found = score_label(vectors, label, "regression", owner.astype(str), judged)
        p.append(found["metrics"]["pearson"]["p"])
    steps = np.array(p) - np.random.default_rng(0).uniform(0, 1 / 40, len(p))
    assert kstest(steps, "uniform").pvalue > 0.01


def test_labels_that_nobody_can_change_have_no_p() -> None:
    owner = np.repeat(np.arange(5), [1, 2, 3, 4, 5])
    rng = np.random.default_rng(0)
    vectors, label = rng.standard_normal((15, 3)), rng.standard_normal(15)
    judged = Judged(neighbours=3, bootstrap=1, permutations=39, seed=0)
    found = score_label(vectors, label, "regression", owner.astype(str), judged)["metrics"]
    assert (found["pearson"]["p"], found["pearson"]["chance"]) == (None, None)
    assert found["pearson"]["value"] is not None


def test_a_subjects_own_recordings_are_never_asked() -> None:
    """They lie on top of each other: asked, they would tell any label that was drawn by lot."""
    rng, _, vectors, subjects = _cohort(1, spread=1e-3)
    label = np.repeat(rng.standard_normal(40), 3)
    owner = np.unique(subjects, return_inverse=True)[1]
    near = nearest(vectors, owner, 5, of_others=True)
    assert (owner[near] != owner[:, None]).all()
    asked = nearest(vectors, owner, 2, of_others=False)
    assert (owner[asked] == owner[:, None]).all()
    assert np.corrcoef(label[asked].mean(axis=1), label)[0, 1] > 0.99
    r = score_label(vectors, label, "regression", subjects, JUDGED)["metrics"]["pearson"]
    assert abs(r["value"]) < 0.3 and r["p"] > 0.05


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(1, 4), st.integers(1, 20))
def test_nearest_are_the_nearest(seed: int, n: int, runs: int, wanted: int) -> None:
    _, _, vectors, subjects = _cohort(seed, n=n, runs=runs)
    owner = np.unique(subjects, return_inverse=True)[1]
    k = asked_of(owner, wanted)
    assert 1 <= k <= wanted
    near = nearest(vectors, owner, k, of_others=True)
    distances = np.linalg.norm(vectors[:, None].astype(float) - vectors[None], axis=2)
    distances[owner[:, None] == owner] = np.inf
    expected = np.sort(distances, axis=1)[:, :k]
    np.testing.assert_allclose(
        np.take_along_axis(distances, near, axis=1), expected, rtol=1e-6, atol=1e-9
    )


def test_subjects_are_told_apart_by_their_own_recordings() -> None:
    _, _, vectors, subjects = _cohort(2)
    found = identify_subjects(vectors, subjects, JUDGED)
    assert found["value"] == 1.0 and found["p"] == 0.01
    assert found["chance"] == pytest.approx(2 / 119)
    rng = np.random.default_rng(0)
    dealt = identify_subjects(vectors, rng.permutation(subjects), JUDGED)
    assert dealt["value"] < 0.1 and dealt["p"] > 0.02
    once = identify_subjects(vectors[::3], subjects[::3], JUDGED)
    assert "several recordings" in once["reason"]


def test_axes_are_those_of_the_train_recordings() -> None:
    rng = np.random.default_rng(3)
    train = rng.standard_normal((300, 5)) * [5, 3, 1, 0.5, 0.1] + 7
    other = rng.standard_normal((40, 5)).astype(np.float32)
    plane, explained = principal_components(train.astype(np.float32), other)
    values = np.sort(np.linalg.eigvalsh(np.cov(train.T)))[::-1]
    np.testing.assert_allclose(explained, values / values.sum(), rtol=1e-5)
    _, _, axes = np.linalg.svd(train - train.mean(axis=0), full_matrices=False)
    expected = (other - train.mean(axis=0)) @ axes.T
    np.testing.assert_allclose(np.abs(plane), np.abs(expected), atol=1e-4)
    again, _ = principal_components(train.astype(np.float32), other[:3])
    np.testing.assert_allclose(again, plane[:3], rtol=1e-12)
    with pytest.raises(NoMapError, match="need 3"):
        principal_components(train[:2].astype(np.float32), other)
    with pytest.raises(NoMapError, match="do not differ"):
        principal_components(np.ones((9, 5), np.float32), other)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(4, 60), st.integers(1, 12))
def test_trustworthiness_is_that_of_scikit_learn(seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, plane = rng.standard_normal((n, 5)), rng.standard_normal((n, 2))
    found = trustworthiness(vectors, plane, k)
    if k >= n / 2:
        assert np.isnan(found)
        return
    assert found == pytest.approx(reference(vectors, plane, n_neighbors=k), abs=1e-12)
    assert trustworthiness(vectors, vectors, k) == 1.0


@pytest.mark.slow  # UMAP compiles itself anew in every process
def test_umap_keeps_clusters_apart_and_its_bytes() -> None:
    pytest.importorskip("umap")
    rng = np.random.default_rng(0)
    centres = np.repeat(20 * np.eye(3, 8), 20, axis=0)
    vectors = (centres + rng.standard_normal((60, 8))).astype(np.float32)
    start, _ = principal_components(vectors, vectors)
    plane = umap_plane(vectors, start[:, :2], 10, 5)
    groups = plane.reshape(3, 20, 2)
    within = groups.std(axis=1).max()
    between = np.linalg.norm(
        groups.mean(axis=1)[[0, 1, 2]] - groups.mean(axis=1)[[1, 2, 0]], axis=1
    )
    assert between.min() > 4 * within
    assert umap_plane(vectors, start[:, :2], 10, 5).tobytes() == plane.tobytes()
    assert umap_plane(vectors, start[:, :2], 10, 6).tobytes() != plane.tobytes()
    with pytest.raises(NoMapError, match="needs 10"):
        umap_plane(vectors[:9], start[:9, :2], 10, 5)


def test_without_umap_the_reason_says_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(NoMapError, match=r"pip install 'brainlm\[umap\]'"):
        umap_plane(np.zeros((20, 3), np.float32), np.zeros((20, 2)), 5, 0)


def test_labels_are_numbers_or_classes() -> None:
    table = pd.DataFrame(
        {
            "recording_id": [f"r{number}" for number in range(8)],
            "split": "test",
            "site": ["b", "a", None, "n/a", "b", "a", "a", "b"],
            "mean_fd": [0.1, 0.2, 0.3, np.nan, 0.5, 0.6, 0.7, 0.8],
            "label_age": ["50", "51", "n/a", "53", "54", "55", "56", "57"],
            "label_sex": ["F", "M"] * 4,
            "label_score": [1.0, 2.0] * 4,
        }
    ).set_index("recording_id", drop=False)
    target = TargetSettings("sex", "binary", "M", None, "zscore")
    found = latent_labels(table, [target], ["site", "mean_fd", "age", "score", "sex", "site"])
    assert [(one.name, one.kind) for one in found] == [
        ("sex", "classes"),
        ("site", "classes"),
        ("mean_fd", "regression"),
        ("age", "regression"),
        ("score", "classes"),
    ]
    sex, site, fd, age, score = found
    assert sex.classes == ("other", "M") and sex.values.tolist() == [0, 1] * 4
    assert site.classes == ("a", "b")
    np.testing.assert_array_equal(site.values, [1, 0, np.nan, np.nan, 1, 0, 0, 1])
    assert np.isnan(fd.values).sum() == 1 and np.isnan(age.values).nonzero()[0].tolist() == [2]
    assert score.classes == ("1", "2")
    above = TargetSettings("score", "binary", None, 0.0, "zscore")
    assert latent_labels(table, [above], [])[0].classes == ("other", "above 0")
    with pytest.raises(InputError, match="does not have"):
        latent_labels(table, [], ["moon"])
    with pytest.raises(InputError, match="names subject, whose values are people's names"):
        latent_labels(table.assign(subject="01"), [], ["subject"])


def test_whole_subjects_are_drawn_test_ones_apart() -> None:
    table = pd.DataFrame(
        {
            "recording_id": [f"r{number:02d}" for number in range(40)],
            "subject": np.repeat([f"s{number:02d}" for number in range(20)], 2),
            "split": ["train"] * 20 + ["test"] * 20,
        }
    ).set_index("recording_id", drop=False)
    few = draw(table, 7, 1)
    rows = table.loc[few]
    assert rows["split"].value_counts().to_dict() == {"train": 6, "test": 6}
    assert (rows["subject"].value_counts() == 2).all()
    assert draw(table, 7, 2) != few and draw(table, 40, 2) == sorted(table.index)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = write_study(
        tmp_path_factory.mktemp("latent") / "study",
        {"train": 6, "val": 2, "test": 12},
        runs=2,
        options={"latent": {"labels": ["site", "mean_fd"], "permutations": 39}},
    )
    make_shards(study)
    pretrain(study.root)
    embed(study.root)
    return study


def test_the_command_maps_and_scores(study, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)  # whose compiling takes longer than all else
    evaluate_latent(study.root)
    metrics = read_json(study.path("latent", run="brainlm"))
    assert metrics["pool"] == "cls" and "umap-learn" in metrics["umap"]["reason"]
    assert metrics["n_recordings"] == {"test": 24, "train": 12, "val": 4}
    assert set(metrics["labels"]) == {"score", "group", "site", "mean_fd"}
    assert metrics["labels"]["score"]["kind"] == "regression"
    for name in ("score", "group"):
        spaces = metrics["labels"][name]["spaces"]
        assert set(spaces) == {"vectors", "pca"}
        for one in spaces.values():
            headline = one["metrics"][one["headline"]]
            assert headline["p_holm"] >= headline["p"] and headline["ci_low"] is not None
    assert "have it" in metrics["labels"]["site"]["reason"]
    assert metrics["labels"]["mean_fd"]["reason"]  # all moved alike
    assert metrics["subject"]["n_subjects"] == 12
    assert 0.4 < metrics["trustworthiness"]["pca"] <= 1
    path = study.path("latent_coordinates", run="brainlm")
    table = pd.read_parquet(path)
    assert list(table.columns)[:4] == ["recording_id", "split", "pca_1", "pca_2"]
    assert len(table) == 40
    before = path.read_bytes()
    chosen = json.loads(params(study, "evaluate-latent"))
    evaluate_latent(study.root, json.dumps(chosen))
    assert path.read_bytes() == before
    chosen["latent"] |= {"most_recordings": 10, "pool": "mean"}
    evaluate_latent(study.root, json.dumps(chosen))
    metrics = read_json(study.path("latent", run="brainlm"))
    assert metrics["n_recordings"]["test"] == 10 and len(pd.read_parquet(path)) == 20


def test_vectors_of_another_model_are_refused(study) -> None:
    reader = ShardReader(study.path("shards_index"))
    assert len(reader.table) == 40
    model: Path = study.path("embeddings", run="brainlm")
    sidecar = model.with_suffix(".json")
    content = sidecar.read_text()
    broken = json.loads(content)
    broken["Sources"]["models/brainlm/model.safetensors"] = "0" * 64
    sidecar.write_text(json.dumps(broken))
    with pytest.raises(DataError, match="another model"):
        evaluate_latent(study.root)
    sidecar.write_text(content)
