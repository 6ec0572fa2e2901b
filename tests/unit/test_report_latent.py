"""The page's sections on the latent space and on perturbations say what the results say."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest

from brainlm.cli import _embeddings
from brainlm.cli.embed import embed
from brainlm.cli.evaluate_latent import evaluate_latent
from brainlm.cli.evaluate_perturbation import evaluate_perturbation
from brainlm.cli.pretrain import pretrain
from brainlm.files import read_json
from brainlm.report.evaluation import latent, latent_maps, perturbation
from brainlm.report.evaluation.parts import Material
from brainlm.report.evaluation.wording import p_text

from . import synthetic_cohort
from .synthetic_cohort import FIELDS, make_shards, parcel_table, write_study

NETWORKS = ["Visual"] * 3 + ["Default"] * 3 + ["n/a"] * 2


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    def with_networks() -> pd.DataFrame:
        return parcel_table().assign(yeo7_network=NETWORKS)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "umap", None)
        patch.setattr(synthetic_cohort, "parcel_table", with_networks)
        study = write_study(
            tmp_path_factory.mktemp("sections") / "study",
            {"train": 5, "val": 2, "test": 10},
            runs=2,
            options={
                "finetune": {
                    "forecast_timepoints": 5,
                    "targets": [
                        {"name": "score"},
                        {"name": "group", "kind": "binary", "positive": "patient"},
                    ],
                },
                "latent": {"permutations": 39, "labels": ["site"]},
                "perturbation": {"shams": 2},
            },
        )
        make_shards(study)
        pretrain(study.root)
        embed(study.root)
        evaluate_latent(study.root)
        evaluate_perturbation(study.root)
    return Material(study, {**FIELDS, "run": "brainlm"}, ("score", "group"))


def test_vectors_that_do_not_differ_stop_nothing(material: Material, tmp_path, monkeypatch) -> None:
    """CLS of a model that has hardly learned is the same in all recordings."""
    study = type(material.study)(shutil.copytree(material.study.root, tmp_path / "study"))
    monkeypatch.setattr(
        _embeddings, "present_vectors", lambda run, pool: (names, np.ones((34, 8), np.float32))
    )
    names = sorted(pd.read_parquet(study.path("shards_index"))["recording_id"])
    evaluate_latent(study.root)
    found = latent.section(Material(study, material.fields, material.targets))
    assert found is not None
    assert "the train recordings' vectors do not differ" in found.text
    assert not found.rows and not found.tables and not found.pictures


def test_a_label_without_p_is_no_headline() -> None:
    score = {"value": 0.1, "ci_low": None, "ci_high": None, "p": None, "chance": None}
    label = {"spaces": {"vectors": {"headline": "pearson", "metrics": {"pearson": score}}}}
    assert "could not be asked" in latent._headline({"labels": {"motion": label}})


def test_the_latent_space_is_told(material: Material) -> None:
    found = latent.section(material)
    content = material.json("latent")
    assert found is not None and content is not None
    rows = {(row.target, row.method, row.metric): row for row in found.rows}
    for target, metric in (("score", "pearson"), ("group", "balanced_accuracy")):
        score = content["labels"][target]["spaces"]["pca"]["metrics"][metric]
        row = rows[target, "pca", metric]
        assert (row.value, row.p, row.p_corrected) == (
            score["value"],
            score["p"],
            score["p_holm"],
        )
    assert rows["subject", "vectors", "same_subject"].value == content["subject"]["value"]
    assert "have it" in rows["site", "vectors", ""].note
    corrected = {
        f"p {p_text(one['spaces']['vectors']['metrics'][metric]['p_holm'])} (Holm)"
        for name, metric in (("score", "pearson"), ("group", "balanced_accuracy"))
        for one in [content["labels"][name]]
    }
    assert found.headline.split(", ")[-1] in corrected
    [table] = found.tables
    assert [row[0] for row in table.rows] == ["Group", "Score", "Same subject"]
    assert table.columns == ("Label", "Score", "Subjects", "Among the vectors", "PCA", "Chance")
    assert "pip install 'brainlm[umap]'" in found.text
    names = [picture.name for picture in found.pictures]
    assert names == ["latent-score", "latent-group", "latent-by-split", "latent-by-subject"]
    assert "sub-" not in found.text + repr(found.tables) + repr(found.rows)


def test_perturbations_are_told(material: Material) -> None:
    found = perturbation.section(material)
    content = material.json("perturbation")
    assert found is not None and content is not None
    assert [one["name"] for one in content["experiments"]] == [
        "Default silenced",
        "Visual silenced",
        "Default doubled",
        "Visual doubled",
    ]
    rows = {(row.condition, row.method, row.metric, row.target): row for row in found.rows}
    for one in content["experiments"]:
        assert rows[one["name"], "zero-shot", "size", ""].value == one["size"]["value"]
        assert rows[one["name"], "zero-shot", "size", ""].p_corrected == one["sham"]["p_holm"]
        own = rows[one["name"], "zero-shot", "size", one["network"]]
        assert own.note == "its own past was changed"
    assert "zero-shot" in found.text and "no evidence of what causes what" in found.text
    assert [picture.name for picture in found.pictures][:2] == [
        "perturbation-networks",
        "perturbation-steps",
    ]
    maps = {picture.name for picture in found.pictures[2:]}
    assert maps == {"perturbation-map-default-silenced", "perturbation-map-visual-silenced"}
    [view] = found.views
    assert list(found.links.values()) == [f"views/{view}.html"]
    assert len(found.tables[0].rows) == 4


def test_what_was_perturbed_is_not_drawn(material: Material) -> None:
    effects = material.table("perturbation_effects")
    assert effects is not None
    values = perturbation._values(effects, {"name": "Visual silenced", "value": None})
    assert np.isnan(values).tolist() == [True] * 3 + [False] * 5


def test_what_was_not_run_has_no_section(material: Material) -> None:
    empty = Material(material.study, {**material.fields, "run": "other"}, ())
    assert latent.section(empty) is None and perturbation.section(empty) is None


def test_rare_classes_share_a_grey() -> None:
    """Of nine classes the seven most frequent have a colour of their own."""
    values = np.repeat(np.arange(9.0), np.arange(10, 1, -1))
    values[0] = np.nan
    plane = pd.DataFrame({"pca_1": values, "pca_2": values}).fillna(0.0)
    names = [f"c{number}" for number in range(9)]
    figure = latent_maps.class_map(plane, values, names, np.zeros(len(values), bool))
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told == [
        *(f"c{number} ({10 - number - (number == 0)})" for number in range(7)),
        "2 others (5)",
        "not known (1)",
    ]


def test_no_result_is_written_as_nan(material: Material) -> None:
    for kind in ("latent", "perturbation"):
        path = material.study.path(kind, run="brainlm")
        json.dumps(read_json(path), allow_nan=False)
