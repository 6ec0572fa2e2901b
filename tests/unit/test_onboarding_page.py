"""`onboarding/report.html`: what it counts, that it stays small, and what it suggests."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from brainlm.bids.phenotypes.read import read_phenotypes
from brainlm.bids.phenotypes.summary import LabelSummary
from brainlm.bids.study import merge
from brainlm.cli.onboard import HashMode, onboard
from brainlm.config import Config, Phenotypes, parse_config
from brainlm.recordings import COLUMNS
from brainlm.report.onboarding.cohort import missing
from brainlm.report.onboarding.kinds import kinds_of
from brainlm.report.onboarding.page import Onboarded, render_page
from brainlm.report.onboarding.suggestions import suggestions, target_of

from .small_bids import make_bids, write_bold


def table_of(count: int, **columns: object) -> pd.DataFrame:
    """Recordings of which some are too short, some noted, some without metadata."""
    numbers = np.arange(count)
    short = numbers % 10 == 0
    content: dict[str, object] = {
        "recording_id": [f"sub-{n:05d}_task-rest" for n in numbers],
        "subject": [f"{n:05d}" for n in numbers],
        "task": "rest",
        "dataset": "Many",
        "site": [f"site{n % 30:02d}" for n in numbers],
        "bold": [f"sub-{n:05d}/func/sub-{n:05d}_task-rest_bold.nii.gz" for n in numbers],
        "t1w": [None if n % 4 else f"sub-{n:05d}/anat/sub-{n:05d}_T1w.nii.gz" for n in numbers],
        "n_volumes": np.where(short, 100 + numbers % 50, 300 + numbers % 150),
        "tr": np.where(numbers % 2, 0.8, 2.0),
        "shape": json.dumps([64, 64, 36]),
        "zooms": json.dumps([3.0, 3.0, 3.5]),
        "pe_direction": "j-",
        "eligible": ~short,
        "reason": [
            f"too short: {100 + n % 50} volumes, at least 200 are needed" if n % 10 == 0 else None
            for n in numbers
        ],
        "notes": [
            f"T1w: sub-{n:05d}/anat/x.nii.gz is odd" if n % 3 == 0 else None for n in numbers
        ],
        **columns,
    }
    table = pd.DataFrame(content, index=numbers)
    for name, dtype in COLUMNS.items():
        table[name] = (table[name] if name in table else pd.Series(pd.NA)).astype(dtype)
    labels = {
        "label_age": np.where(numbers % 100 == 7, -999.0, 20 + numbers % 60),
        "label_sex": np.where(numbers % 2, "F", "M"),
        "label_family": [f"f{n // 3}" for n in numbers],
    }
    return table.assign(**labels)


def labels_of(table: pd.DataFrame) -> list[LabelSummary]:
    """The table's labels, as onboarding reads them from a participants.tsv that holds them."""
    names = [name for name in table.columns if name.startswith("label_")]
    people = table[names].rename(columns=lambda name: name.removeprefix("label_"))
    people.insert(0, "participant_id", "sub-" + table["subject"])
    with tempfile.TemporaryDirectory() as folder:
        bids = Path(folder)
        people.to_csv(bids / "participants.tsv", sep="\t", index=False)
        for subject in table["subject"]:
            (bids / f"sub-{subject}").mkdir()
        found = read_phenotypes(bids, bids, Phenotypes())
        return found.label(table.drop(columns=names)).labels


def page_of(table: pd.DataFrame, config: Config | None = None, **changes: object) -> str:
    about = {"notes": [], "labels": labels_of(table), "estimate": None}
    return render_page(Onboarded(table, config or Config(), **(about | changes)))


def text_of(html: str) -> str:
    body = html[html.index("<main>") :]
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_messages_that_differ_in_numbers_and_names_are_one_kind():
    table = table_of(100)
    (short,) = kinds_of(table, "reason")
    assert short.text == "too short: … volumes, at least … are needed"
    assert (short.recordings, short.subjects) == (10, 10)
    assert short.examples[1] == (
        "sub-00010_task-rest",
        "too short: 110 volumes, at least 200 are needed",
    )
    table["reason"] = "no T1w; too short: 9 volumes"
    assert [kind.text for kind in kinds_of(table, "reason")] == ["no T1w", "too short: 9 volumes"]


def test_the_matrix_of_what_is_missing_adds_up():
    table = table_of(400)
    found = missing(table)
    assert found["by"] == "site"
    rows = {row["what"]: row for row in found["rows"]}
    assert rows["T1w"]["all"] == pytest.approx(0.75)
    assert rows["phase-encoding direction"]["all"] == 0
    assert rows["field map"]["shares"] == [1.0] * len(found["columns"])
    assert found["columns"][-1] == "18 others"
    assert all(len(row["shares"]) == 13 for row in found["rows"])


def test_what_it_says():
    said = text_of(page_of(table_of(200), notes=["there is no dataset_description.json"]))
    assert "200 recordings 180 eligible, 20 not" in said
    assert "there is no dataset_description.json" in said
    assert "-999 stands 2 times, far from all other values, so it counts as missing" in said
    assert "snakemake --profile slurm" in said


def test_nothing_from_files_is_taken_for_html():
    table = table_of(20, task="<script>alert(1)</script>", site="<b>A</b>")
    table["reason"] = "<i>odd</i>"
    table["label_sex"] = np.where(np.arange(20) % 2, "<u>", "M")
    html = page_of(table, Config(name="<h1>"), notes=["<em>"])
    for tag in ("<script>alert", "<b>A<", "<i>odd", "<u>", "<em>", "<h1><h1>"):
        assert tag not in html
    assert "&lt;script&gt;" in html


def test_it_needs_nothing_else_and_many_recordings_do_not_make_it_large():
    small, large = page_of(table_of(200)), page_of(table_of(20_000))
    assert len(large) < 1.3 * len(small)
    for html in (small, large):
        assert not re.search(r"(?:src|href)=\"(?!#)|https?://|url\(", html)
    assert page_of(table_of(200)) == small


def test_suggested_lines_are_a_valid_config():
    table = table_of(1000)
    found = suggestions(table, Config(), labels_of(table))
    options = {key for one in found for key in one.options}
    assert options == {"timing", "distortion", "resample", "split", "finetune", "model"}
    content: dict = {}
    for one in found:
        assert one.yaml.startswith("# ")
        content = merge(content, yaml.safe_load(one.yaml))
    config = parse_config(content, source="page")
    assert config.split.family == "family"
    assert config.split.stratify == ("site", "age", "sex")
    assert [target.name for target in config.finetune.targets] == ["age", "sex"]
    assert config.finetune.targets[1].positive == "M"
    assert suggestions(table, config, labels_of(table)) == []


@pytest.mark.parametrize(
    ("codes", "expected"),
    [((0, 1), {"kind": "binary"}), ((1, 2), {"kind": "binary", "positive": "2"})],
)
def test_a_number_of_two_values_is_not_regressed_on(codes, expected):
    table = table_of(40)
    table["label_sex"] = pd.array(np.resize(codes, 40), dtype="Float64")
    table["label_familyid"] = pd.array(np.arange(40) // 2, dtype="Float64")
    labels = {label.name: label for label in labels_of(table)}
    assert target_of(labels["sex"]) == {"name": "sex", **expected}
    assert target_of(labels["familyid"]) is None


def test_onboarding_leaves_it_and_leaves_it_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "no templates"))
    monkeypatch.setenv("BRAINLM_CACHE", str(tmp_path / "empty"))
    bids, study = make_bids(tmp_path / "bids"), tmp_path / "study"

    def run() -> tuple[bytes, int]:
        onboard(bids, study, HashMode.fast, None, ["eligibility.min_volumes=10"], 1)
        path = study / "onboarding/report.html"
        return path.read_bytes(), path.stat().st_mtime_ns

    first = run()
    said = capsys.readouterr().out
    assert "CPU-hours to the shards, to a factor of 2" in said
    assert "on the disk in the end" in said
    assert "`brainlm estimate` tells all of it" in said
    assert run() == first
    write_bold(bids / "sub-03/func/sub-03_task-new_bold.nii.gz", n_volumes=4)
    assert b"too short: 4 volumes" in run()[0]
