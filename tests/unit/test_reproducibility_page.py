"""The reproducibility report: its page, its cohort flow, and what it says when things are wrong."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from brainlm.cli.reproducibility import reproducibility
from brainlm.config import to_commented_yaml
from brainlm.errors import DataError
from brainlm.files import read_json, write_json, write_text
from brainlm.report.reproducibility import page as page_module
from brainlm.report.reproducibility.cohort_flow_leakage import alarms, check_leakage
from brainlm.report.reproducibility.cohort_flow_quality import holm

from .named_study import FAILED, INELIGIBLE, MOVED, PEOPLE, NamedStudy
from .test_report_page import Page


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> NamedStudy:
    made = NamedStudy(tmp_path_factory.mktemp("study")).write()
    reproducibility(study=made.study.root)
    return made


@pytest.fixture
def copied(finished, tmp_path) -> NamedStudy:
    shutil.copytree(finished.study.root, tmp_path / "copy")
    return NamedStudy(tmp_path / "copy")


def html_of(made: NamedStudy) -> str:
    return made.path("reproducibility").read_text(encoding="utf-8")


def alarms_of(made: NamedStudy) -> str:
    """What stands in the red box, or nothing."""
    found = re.search(r'role="alert">(.*?)</div>', html_of(made), re.S)
    return found[1] if found else ""


def test_page_is_one_file_without_outside_links(finished):
    html = html_of(finished)
    page = Page(html)
    for link in page.links:
        beside = link == "lineage.tsv"  # the whole table, which is too large for a page
        assert beside or link.startswith(("#", "data:image/", "https://doi.org/"))
        if link.startswith("#"):
            assert link[1:] in page.ids
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    assert len(page.ids) == len(set(page.ids))


def test_flow_counts_everybody_once(finished):
    text = Page(html_of(finished)).text
    left = [len(INELIGIBLE), len(FAILED), len(MOVED)]
    for number, step in zip(
        (PEOPLE, PEOPLE - 2, PEOPLE - 5, PEOPLE - 8, PEOPLE - 8),
        ("found", "eligible", "processed", "passed quality control", "in the cohort"),
        strict=True,
    ):
        assert f"{number} {step} · {number} subjects" in text
    for number, reason in zip(
        left, ("60 volumes; at least 200", "holds NaN", "mean FD above 0.55"), strict=True
    ):
        assert re.search(rf"{number} [^.]*{reason}", text)
    for split, number in (("train", 40), ("val", 6), ("test", 6)):
        assert f"{split} {number} {number} {number * 8}" in text  # subjects, recordings, minutes


def test_reasons_name_no_recording(finished):
    text = Page(html_of(finished)).text
    assert "(a recording) holds NaN" in text


def test_whole_splits_raise_no_leakage(finished):
    assert "Leakage" not in alarms_of(finished)


def _twice(made: NamedStudy) -> str:
    path = made.path("cohort")
    table = pd.read_parquet(path)
    table.loc[table.index[-1], "subject"] = table["subject"].iloc[0]
    table.to_parquet(path)
    return "Is each subject of the cohort in one split only?"


def _kin(made: NamedStudy) -> str:
    path = made.path("shards_index")
    table = pd.read_parquet(path)
    table.loc[table.index[-1], "family"] = table["family"].iloc[0]
    table.to_parquet(path)
    return "Is each family of the shards' index in one split only?"


def _same_scan(made: NamedStudy) -> str:
    path = made.path("cohort")
    table = pd.read_parquet(path)
    table.loc[table.index[-1], "timeseries_sha256"] = table["timeseries_sha256"].iloc[0]
    table.to_parquet(path)
    return "Is each scan (by its bytes) of the cohort in one split only?"


def _other_shard(made: NamedStudy) -> str:
    path = made.path("shards_index")
    table = pd.read_parquet(path)
    table.loc[table.index[-1], "shard"] = "train-00000.safetensors"
    table.to_parquet(path)
    return "Is each recording in a shard that is named after its split?"


def _other_splits(made: NamedStudy) -> str:
    path = made.path("splits")
    path.write_text(path.read_text().replace("\ttest", "\ttrain", 1))
    return "Does the table of splits say of every subject what the cohort says?"


def _old_proof(made: NamedStudy) -> str:
    proof = read_json(made.path("leakage"))
    write_json(made.path("leakage"), {**proof, "split_sha256": "0" * 64})
    return "Is the proof that the cohort's command wrote of these splits"


def _old_model(made: NamedStudy) -> str:
    folder = made.path("model").parent
    write_json(folder / "config.json", {"split_sha256": "0" * 64})
    return "Were all models and scores made with the splits of now?"


def _scored_on_train(made: NamedStudy) -> str:
    path = made.path("clinical_predictions", target="age")
    pd.read_parquet(path).assign(recording_id=made.ids[made.included[0]]).to_parquet(path)
    return "Is nobody scored in age who, or whose family, was learned from?"


@pytest.mark.parametrize(
    "spoil",
    [
        _twice,
        _kin,
        _same_scan,
        _other_shard,
        _other_splits,
        _old_proof,
        _old_model,
        _scored_on_train,
    ],
)
def test_each_leak_is_an_alarm(copied, spoil):
    question = spoil(copied)
    found = alarms(check_leakage(about_named(copied)))
    assert any(question in alarm for alarm in found)


def test_an_alarm_stands_on_top_and_fails_strictly(copied):
    question = _scored_on_train(copied)
    with pytest.raises(DataError, match="in the report") as raised:
        reproducibility(study=copied.study.root, strict=True)
    assert raised.value.exit_code == 3
    assert question in alarms_of(copied)  # the page was written before


def test_motion_that_goes_with_a_label_is_told(finished):
    text = Page(html_of(finished)).text
    cohort = pd.read_parquet(finished.path("cohort"))
    rho = stats.spearmanr(cohort["mean_fd"], cohort["label_age"]).statistic
    assert f"mean FD (mm) age 52 Spearman's ρ {rho:.2f} <0.001" in text
    assert "mean FD (mm) goes with age" in text
    assert "share of parcels covered goes with" not in text


def test_holm_is_what_the_book_says():
    assert holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1, 1])


def test_before_anything_ran_it_says_how_to_go_on(tmp_path):
    made = NamedStudy(tmp_path)
    write_text(made.path("config"), to_commented_yaml(made.config))
    made._recordings().to_parquet(made.path("recordings"))
    reproducibility(study=tmp_path, strict=True)
    text = Page(html_of(made)).text
    for target in ("shards", "pretrain", "evaluate"):
        assert f"snakemake --profile local {target}" in text
    assert "58 not processed to the end yet" in text
    assert "No cohort yet" in text


def test_damaged_files_are_named_and_the_page_is_made(copied):
    copied.path("cohort").write_bytes(b"half a table")
    copied.path("leakage").write_text("{")
    copied.path("exclusions").write_bytes(b"\x00\xff\tno table")
    copied.path("clinical", target="age").write_text("[")
    reproducibility(study=copied.study.root)
    html = html_of(copied)
    assert "cohort/recordings.parquet" in html and "Damaged files" in html
    assert "evaluation/brainlm/clinical-age/metrics.json" in html


def test_a_section_that_fails_leaves_the_others(finished, monkeypatch):
    def fail(about, sharing):
        raise KeyError("XQZ007")

    others = {"cohort": page_module.SECTIONS["cohort"], "odd": ("Odd", fail)}
    monkeypatch.setattr(page_module, "SECTIONS", others)
    made = page_module.make_sections(about_named(finished), None)
    assert [section.key for section in made] == ["cohort", "odd"]
    assert "XQZ007" in made[1].alarms[0]
    public = page_module.make_sections(about_named(finished), _aliases())
    assert "XQZ007" not in str(public[1]) and public[1].alarms


def test_same_study_elsewhere_gives_the_same_page(finished, tmp_path):
    twin = NamedStudy(tmp_path / "elsewhere").write()
    reproducibility(study=twin.study.root)
    assert html_of(twin) == html_of(finished)
    again = html_of(twin)
    reproducibility(study=twin.study.root)
    assert html_of(twin) == again


def test_many_recordings_make_no_large_page(finished, tmp_path):
    """Four times the people: the page hardly grows."""
    made = NamedStudy(tmp_path / "large")
    made.subjects = [f"XQZ{number:04d}" for number in range(4 * PEOPLE)]
    made.ids = [f"sub-{name}_task-rest" for name in made.subjects]
    made.ages = [20.0 + number / 10 for number in range(4 * PEOPLE)]
    made.included = list(range(8, 4 * PEOPLE))
    made.splits = ["train"] * 100 + ["val"] * 32 + ["test"] * 100
    made.write()
    reproducibility(study=made.study.root)
    assert len(html_of(made)) < 4 * len(html_of(finished))
    crates = [one.path("crate").stat().st_size for one in (made, finished)]
    assert crates[0] < 1.2 * crates[1]
    assert len(json.loads(made.path("crate").read_text())["@graph"]) < 400


def _aliases():
    from brainlm.report.reproducibility.sharing import Aliases

    return Aliases(b"k" * 32, 5)


def about_named(made: NamedStudy):
    from brainlm.report.gather import gather
    from brainlm.report.reproducibility.base import About

    findings = gather(made.study, made.fields, ["age", "group"], made.config.name)
    return About(made.study, made.config, made.fields, ("age", "group"), findings)


def test_the_workflow_in_the_crate_is_the_one_that_runs(finished):
    from brainlm.resources import share_dir

    folder: Path = finished.path("crate_workflow")
    rules = share_dir() / "workflow"
    assert (folder / "Snakefile").read_bytes() == (share_dir() / "Snakefile").read_bytes()
    copies = {path.relative_to(folder / "workflow") for path in folder.rglob("*.smk")}
    assert copies == {path.relative_to(rules) for path in rules.rglob("*.smk")}
