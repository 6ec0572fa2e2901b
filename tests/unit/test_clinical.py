"""A label's whole table: repeats, cohorts, sites left out, and the part of the page."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from brainlm.cli._heads import check_released
from brainlm.cli.embed import embed
from brainlm.cli.evaluate_clinical import evaluate_clinical
from brainlm.cli.finetune import finetune
from brainlm.cli.pretrain import pretrain
from brainlm.cli.probe import probe
from brainlm.errors import DataError, InputError
from brainlm.evaluate.clinical import METHODS
from brainlm.evaluate.label_baselines import Material as Fitted
from brainlm.evaluate.label_baselines import linear_on_connectivity, site_names
from brainlm.evaluate.label_scores import check_finite, predictions_by, score
from brainlm.evaluate.leave_site_out import leave_site_out
from brainlm.model.label_unit import HeadCard
from brainlm.report.evaluation.clinical import section
from brainlm.report.evaluation.parts import Material
from brainlm.report.metrics import baseline_name
from brainlm.shards.reader import ShardReader
from brainlm.train.labelled import labelled_data

from .synthetic_cohort import make_shards, write_recordings, write_study
from .tuning_study import GROUP, SCORE

TARGETS = ("score", "group")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two sites to train on; test subjects of them and of another dataset."""
    torch.set_num_threads(1)
    options = {
        "pretrain": {"epochs": 1},
        "finetune": {
            "epochs": 1,
            "repeats": 2,
            "targets": [
                {"name": "score"},
                {"name": "group", "kind": "binary", "positive": "patient"},
            ],
        },
        "evaluate": {"bootstrap": 100, "permute_within_sites": True},
    }
    study = write_study(
        tmp_path_factory.mktemp("clinical") / "study",
        {"train": 16, "val": 2, "test": 14},
        options=options,
    )
    table = pd.read_parquet(study.path("recordings"))
    number = table["subject"].astype(int)
    table["site"] = np.where(number % 2, "north", "south")
    table.loc[number > 28, "dataset"] = "outside"
    write_recordings(study, table)
    make_shards(study)
    pretrain(study.root)
    embed(study.root)
    for target in TARGETS:
        finetune(target, study.root)
        evaluate_clinical(target, study.root)
    return study


def _content(study, target="score"):
    return json.loads(study.path("clinical", run="brainlm", target=target).read_text())


def test_all_repeats_are_scored_and_the_kept_one_is_among_them(study) -> None:
    repeats = _content(study)["repeats"]
    about = json.loads(
        (study.path("finetuned", run="brainlm", target="score").parent / "model.json").read_text()
    )["Repeats"]
    assert repeats["n"] == 2
    for name, found in repeats["metrics"].items():
        values = np.array(found["values"])
        assert found["mean"] == pytest.approx(values.mean())
        assert found["sd"] == pytest.approx(values.std(ddof=1))
        kept = values[about["best_repeat"] - 1]
        assert kept == pytest.approx(_content(study)["metrics"][name]["value"], rel=1e-4)
    assert len(set(repeats["metrics"]["mse"]["values"])) == 2


def test_repeats_of_another_finetuning_are_refused(study, tmp_path) -> None:
    copy = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    path = copy.path("repeats", run="brainlm", target="score")
    pd.read_parquet(path).iloc[1:].to_parquet(path, index=False)
    with pytest.raises(DataError, match="of another fine-tuning") as told:
        evaluate_clinical("score", copy.root)
    assert "brainlm finetune --target score" in str(told.value.fix)


def test_cohorts_are_scored_apart(study) -> None:
    content = _content(study)
    table = pd.read_parquet(study.path("clinical_predictions", run="brainlm", target="score"))
    assert [(one["cohort"], one["external"]) for one in content["cohorts"]] == [
        ("outside", True),
        ("synthetic", False),
    ]
    outside = table[table["subject"].astype(int) > 28]
    block = content["cohorts"][0]
    assert block["n_subjects"] == len(outside) == 4
    for method in ("brainlm", "connectivity", "frozen-linear"):
        error = ((outside[method] - outside["true"]) ** 2).mean()
        assert block["methods"][method]["mse"]["value"] == pytest.approx(error)


def test_chance_and_permutations_stand_beside_the_scores(study) -> None:
    group = _content(study, "group")
    table = pd.read_parquet(study.path("clinical_predictions", run="brainlm", target="group"))
    assert group["chance"]["auprc"] == pytest.approx(table["true"].mean())
    assert group["permutation"]["statistic"] == "auroc"
    assert group["permutation"]["within_sites"]
    p = group["permutation"]["methods"]
    assert p["connectivity"]["p"] < 0.05 <= p["connectivity"]["p_holm"] + 0.05
    assert p["constant"]["p"] is None
    assert all(one["p_holm"] >= one["p"] for one in p.values() if one["p"] is not None)
    score = _content(study)
    scale = score["train_label_sd"] ** 2
    assert score["metrics"]["mse_scaled"]["value"] == pytest.approx(
        score["metrics"]["mse"]["value"] / scale
    )


def test_the_probe_permutes_as_the_config_says(study, tmp_path) -> None:
    copy = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    probe("group", copy.root)
    found = json.loads(copy.path("probe", run="brainlm", target="group").read_text())
    assert found["permutation"]["within_sites"]


def _given(study, target=SCORE, **changes) -> Fitted:
    reader = ShardReader(study.path("shards_index"))
    data = labelled_data(reader, target, 40)
    return Fitted(reader, data, target.name, target.kind, 1000, 0, **changes)


def test_a_site_is_predicted_by_the_others(study) -> None:
    given = _given(study)
    asked: list[tuple[set[str], set[str]]] = []

    def spy(held: Fitted) -> np.ndarray:
        assert not set(held.train) & set(held.test)
        where = (site_names(held.reader.table, names) for names in (held.train, held.test))
        asked.append(tuple(set(one.tolist()) for one in where))  # type: ignore[arg-type]
        return linear_on_connectivity(held)

    found = leave_site_out(given, {"connectivity": spy, "site": METHODS["site"]}, 100)
    assert [test for _, test in asked] == [
        {"outside/north"},
        {"outside/south"},
        {"synthetic/north"},
        {"synthetic/south"},
    ]
    assert all(not train & test and train for train, test in asked)
    assert asked[2][0] == {"synthetic/south"}
    assert found["methods"]["connectivity"]["r2"]["value"] > 0.3
    assert "all train recordings are of one site" in found["methods"]["site"]["reason"]
    assert [one["n_subjects"] for one in found["sites"]] == [2, 2, 5, 5]
    squared = [one["n_subjects"] * one["methods"]["connectivity"]["mse"] for one in found["sites"]]
    whole = found["methods"]["connectivity"]["mse"]["value"]
    assert whole == pytest.approx(sum(squared) / 14)


def test_one_site_cannot_be_left_out(study) -> None:
    given = _given(study)
    north = [name for name in given.train if int(name[4:6]) % 2]
    inside = [name for name in given.test if int(name[4:6]) % 2 and int(name[4:6]) <= 28]
    assert "one site" in leave_site_out(given.between(north, inside), {}, 100)["reason"]


def test_the_part_of_the_page(study) -> None:
    fields = {"run": "brainlm"}
    made = section(Material(study, fields, (*TARGETS, "absent")))
    assert made is not None
    tables = {table.name: table for table in made.tables}
    first, zero = tables["table-1-clinical"], tables["zero-shot-clinical"]
    assert first.columns == ("Method", "score")
    assert first.rows[0][0] == "BrainLM, fine-tuned" and "±" in first.rows[0][1]
    assert [row[0] for row in zero.rows][:2] == [
        "BrainLM, frozen, nearest neighbours",
        "BrainLM, frozen, linear",
    ]
    content = _content(study)
    values = {
        name: (content["baselines"].get(name) or {}).get("mse_scaled", {}).get("value")
        for name in ("connectivity", "tangent", "svm", "mlp", "frozen-mlp")
    }
    ((best, _),) = first.best
    assert first.rows[best][0] == baseline_name(min(values, key=lambda name: values[name]))
    rows = {
        (row.target, row.method, row.metric, row.cohort, row.condition): row for row in made.rows
    }
    assert len(rows) == len(made.rows)
    own = rows["score", "connectivity", "pearson", "all", ""]
    assert own.p == content["permutation"]["methods"]["connectivity"]["p"]
    assert own.value == content["baselines"]["connectivity"]["pearson"]["value"]
    assert rows["score", "connectivity", "mse", "all", ""].p is None
    beside = rows["score", "connectivity", "error_more", "all", "beside brainlm"]
    test = content["tests"]["connectivity"]
    assert (beside.p, beside.p_corrected) == (test["p"], test["p_holm"])
    assert (
        rows["score", "brainlm", "mse", "all", ""].sd == content["repeats"]["metrics"]["mse"]["sd"]
    )
    beside = rows["score", "connectivity", "error_more", "all", "beside brainlm"]
    assert beside.p == content["tests"]["connectivity"]["p"] is not None
    assert ("score", "tangent", "r2", "outside", "") in rows
    assert {picture.name for picture in made.pictures} == {
        *(f"clinical-{target}-{what}" for target in TARGETS for what in ("methods", "predictions")),
        "clinical-group-curves",
    }
    assert section(Material(study, fields, ("absent",))) is None


# --- bad input ------------------------------------------------------------------------------


def test_predictions_that_are_no_numbers_are_refused(study) -> None:
    given = _given(study)
    guess = np.zeros(len(given.test))
    guess[3] = np.nan
    with pytest.raises(DataError, match=f"brainlm predicts no number of 1 .*{given.test[3]}"):
        score({"brainlm": guess}, {}, given, bootstrap=100)
    with pytest.raises(DataError, match="gcn predicts no number of 2"):
        check_finite({"gcn": np.array([[0, np.inf], [np.nan, 1], [0, 1.0]])}, list("abc"))


def _changed(study, tmp_path, change):
    copy = type(study)(shutil.copytree(study.root, tmp_path / "study"))
    table = pd.read_parquet(copy.path("shards_index"))
    change(table)
    table.to_parquet(copy.path("shards_index"))
    return copy


def test_a_label_that_the_shards_lack_is_named(study, tmp_path) -> None:
    def drop(table):
        del table["label_score"]

    copy = _changed(study, tmp_path, drop)
    with pytest.raises(InputError, match="No recording has a label 'score'"):
        evaluate_clinical("score", copy.root)


@pytest.mark.parametrize(
    ("label", "target", "told"),
    [(1.0, SCORE, "is constant in the train split"), ("patient", GROUP, "has one class only")],
)
def test_a_label_that_does_not_vary_is_refused(study, tmp_path, label, target, told) -> None:
    copy = _changed(
        study, tmp_path, lambda table: table.update({f"label_{target.name}": [label] * len(table)})
    )
    with pytest.raises(DataError, match=told):
        evaluate_clinical(target.name, copy.root)


def test_one_class_of_test_subjects_has_no_auroc_and_says_so(study) -> None:
    given = _given(study, GROUP)
    one = given.between(given.train, [n for n in given.test if given.data.values[n] == 1])
    chance = {"brainlm": np.linspace(0.2, 0.9, len(one.test))}
    found = score(chance, {}, one, bootstrap=100).metrics
    for name in ("auroc", "auprc", "balanced_accuracy"):
        assert found["metrics"][name]["value"] is None
        assert "without variation" in found["metrics"][name]["reason"]
    assert found["permutation"]["methods"]["brainlm"]["p"] is None


def test_fewer_subjects_than_folds_take_fewer_folds_or_say_so(study) -> None:
    given = _given(study)
    few = given.between(given.train[:3], given.test)
    assert np.isfinite(linear_on_connectivity(few)).all()
    _, reasons = predictions_by(METHODS, given.between(given.train[:1], given.test))
    assert all(reasons[name] for name in ("connectivity", "svm", "mlp", "tangent"))


def test_labels_in_another_unit_are_told(study, tmp_path, capsys) -> None:
    """Months where the model learned years is refused; of test subjects alone it is a warning."""

    def months(table):
        table["label_score"] *= 12

    with pytest.raises(DataError, match="fine-tuned on other values of the label score"):
        evaluate_clinical("score", _changed(study, tmp_path / "all", months).root)

    def of_test(table):
        table.loc[table["split"] == "test", "label_score"] *= 12

    copy = _changed(study, tmp_path / "test", of_test)
    embed(copy.root)
    probe("score", copy.root)
    assert "far outside of the train range" in capsys.readouterr().err


def test_a_released_head_of_another_unit_is_refused(study) -> None:
    data = _given(study).data
    head = HeadCard("score", "regression", None, 54.0, 7.5, 0.0)
    years = {name: 54 + 7.5 * value for name, value in data.values.items()}
    check_released(head, SCORE, replace(data, values=years), Path("model"))
    months = {name: 12 * value for name, value in years.items()}
    with pytest.raises(DataError, match="another unit"):
        check_released(head, SCORE, replace(data, values=months), Path("model"))


def test_an_external_cohort_with_train_subjects_is_refused(study, tmp_path) -> None:
    def overlap(table):
        table.loc[table["dataset"] == "outside", "subject"] = "01"

    copy = _changed(study, tmp_path, overlap)
    with pytest.raises(DataError, match="Leakage: 1 subjects are in more than one split"):
        evaluate_clinical("score", copy.root)


def test_vectors_of_other_shards_are_refused(study, tmp_path) -> None:
    def other(table):
        table["mean_fd"] += 0.01

    with pytest.raises(DataError, match="of another model or of other shards"):
        evaluate_clinical("score", _changed(study, tmp_path, other).root)
