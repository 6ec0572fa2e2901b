"""Dataset files, what onboarding takes of them, and fetching with the tools that serve them."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import pytest
import yaml

from brainlm.bids.datasets import fetching
from brainlm.bids.datasets.labels import labels_here
from brainlm.bids.datasets.load import dataset_names, load_dataset
from brainlm.cli.dataset import fetch, list_datasets, show
from brainlm.cli.onboard import LayoutName, onboard
from brainlm.config import load_config, parse_config
from brainlm.errors import InputError, ResourceError

from .small_bids import make_bids

NAMES = [
    *("ABIDE", "ADNI", "ds000030", "ds000228", "EMBARC", "HCP", "ToPS", "UKB", "YooAttn"),
]
PLAIN = {
    "name": "Mine",
    "title": "My data",
    "about": "Of my lab.",
    "layouts": ["bids"],
    "access": {"open": True, "licence": "CC0", "portal": "https://x.org", "how": "Take it."},
    "citations": [{"text": "Me"}],
}


def write(path: Path, **changes) -> Path:
    path.write_text(yaml.safe_dump({**PLAIN, **changes}))
    return path


def test_all_are_known_and_each_can_be_told(capsys):
    assert dataset_names() == NAMES
    list_datasets()
    listed = capsys.readouterr().out
    for name in NAMES:
        known = load_dataset(name.lower())
        assert known.name == name
        assert known.access.open == bool(known.fetch)
        assert f"\n{name} " in listed
        show(name)
        told = " ".join(capsys.readouterr().out.split())
        for label in known.labels:
            assert f"label {label.name}" in told
        assert told.count("CHECK: ") == len(known.to_check)
        labels = [label.rule("participants", label.columns[0]) for label in known.labels]
        parse_config({**known.settings, "phenotypes": {"labels": labels}}, source=name)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"titel": "x"}, "titel: Extra inputs"),
        ({"layouts": ["spm"]}, "layouts.0"),
        ({"settings": {"motion": {"iteration": 3}}}, "iteration"),
        ({"settings": {"engine": "native"}}, "decided by the layout"),
        ({"labels": [{"name": "a", "about": "x", "columns": []}]}, "labels.0.columns"),
        (
            {"labels": [{"name": "a", "about": "x", "columns": ["a"]}] * 2},
            "two labels are called a",
        ),
        ({"fetch": [{"tool": "wget", "gives": "x", "everything": [["wget"]]}]}, "fetch.0.tool"),
        (
            {"fetch": [{"tool": "aws", "gives": "x", "everything": [["sh", "-c"]]}]},
            "begins with sh",
        ),
        (
            {"fetch": [{"tool": "nilearn", "gives": "x", "everything": [["os_system", "a=1"]]}]},
            "fetch_SOMETHING",
        ),
        (
            {"fetch": [{"tool": "aws", "gives": "x", "everything": [["aws", "{home}"]]}]},
            "cannot hold {home}",
        ),
        ({"citations": [{"text": "x", "doi": "https://doi.org/10.1/x"}]}, "citations.0.doi"),
    ],
)
def test_a_fault_of_a_file_is_told_with_its_key(tmp_path, changes, fault):
    path = write(tmp_path / "mine.yaml", **changes)
    with pytest.raises(InputError, match="not valid") as told:
        load_dataset(str(path))
    assert fault in told.value.what and told.value.file == str(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no dataset called 'ABCD'") as told:
        load_dataset("ABCD")
    assert "ds000030" in told.value.fix
    with pytest.raises(InputError, match="does not exist"):
        load_dataset(str(tmp_path / "none.yaml"))
    for content, fault in (("a: [", "not valid YAML"), ("- 1", "must be a mapping")):
        (tmp_path / "bad.yaml").write_text(content)
        with pytest.raises(InputError, match=fault):
            load_dataset(str(tmp_path / "bad.yaml"))


def test_labels_are_those_whose_columns_are_here(tmp_path):
    (tmp_path / "participants.tsv").write_text("participant_id\tsex\nsub-01\tM\n")
    (tmp_path / "phenotype").mkdir()
    (tmp_path / "phenotype/scores.tsv").write_text("participant_id\tphq9\nsub-01\t3\n")
    export = tmp_path / "export.csv"
    export.write_text('eid,"21003-2.0",20127-0.0\n1,63,4\n')
    labels, missing = labels_here(load_dataset("UKB"), tmp_path, [export])
    found = {label["name"]: (label["table"], label["column"]) for label in labels}
    assert found == {
        "age": ("export", "21003-2.0"),
        "sex": ("participants", "sex"),
        "neuroticism": ("export", "20127-0.0"),
        "phq9": ("scores", "phq9"),
    }
    assert missing == ["fluid", "gad7", "ptsd"]
    assert next(label for label in labels if label["name"] == "neuroticism")["missing"] == [
        "-1", "-3",
    ]  # fmt: skip
    other = tmp_path / "others.tsv"
    other.write_text("participant_id\tp31\n")
    labels, _ = labels_here(load_dataset("UKB"), tmp_path, participants=other)
    assert ("participants", "p31") in {(label["table"], label["column"]) for label in labels}


def test_a_table_is_read_and_called_as_onboarding_does_it(tmp_path):
    """Of semicolons, and with a blank in its name."""
    export = tmp_path / "my export.csv"
    export.write_text("eid;p31;p21003_i2\n1;0;60\n")
    labels, _ = labels_here(load_dataset("UKB"), tmp_path, [export])
    assert [(label["name"], label["table"]) for label in labels] == [
        *(("age", "my_export"), ("sex", "my_export"))
    ]


def test_onboarding_takes_labels_and_options_of_a_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("BRAINLM_CACHE", str(tmp_path / "none"))
    bids = make_bids(tmp_path / "bids")
    mine = write(
        tmp_path / "mine.yaml",
        settings={"eligibility": {"min_volumes": 12}, "seed": 7},
        labels=[
            {"name": "years", "columns": ["AGE", "age"], "about": "age", "missing": ["41"]},
            {"name": "score", "columns": ["score"], "about": "a score"},
        ],
        to_check=["the score"],
    )
    study = tmp_path / "study"
    onboard(bids, study, dataset=str(mine), settings=["seed=3"])
    told = capsys.readouterr()
    assert "Layout: bids (sub-01/func/" in told.out and "Dataset: Mine" in told.out
    assert "labels of Mine that no table here has: score" in told.err
    assert "check: the score" in told.err
    config = load_config(study / "config/config.yaml")
    assert (config.eligibility.min_volumes, config.seed) == (12, 3)
    assert [label.name for label in config.phenotypes.labels] == ["years"]
    text = (study / "onboarding/recordings.tsv").read_text()
    assert "label_years" in text.splitlines()[0]
    onboard(bids, study, layout=LayoutName.bids)
    with pytest.raises(InputError, match="reads layout bids, not hcp"):
        onboard(bids, study, layout=LayoutName.hcp)
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    onboard(bids, study, dataset=str(mine))
    assert all(path.read_bytes() == content for path, content in before.items())
    with pytest.raises(InputError, match="was made with --dataset Mine, not UKB"):
        onboard(bids, study, dataset="UKB")
    with pytest.raises(InputError, match=r"looks like bids \(sub-01/func/"):
        onboard(bids, tmp_path / "other", layout=LayoutName.ukb)
    assert not (tmp_path / "other").exists()


# --- fetching ----------------------------------------------------------------------------

#: Stands for a tool: notes its arguments, brings a table of participants, or fails as it is told.
TOOL = """#!{python}
import os, pathlib, sys
with open({notes!r}, "a") as notes:
    print("|".join(sys.argv[1:]), file=notes)
if os.environ.get("FAULT"):
    sys.exit("fatal error: " + os.environ["FAULT"])
to = pathlib.Path(next(word for word in sys.argv[1:] if word.startswith({root!r})))
to.mkdir(parents=True, exist_ok=True)
if "sub-" not in to.name:
    rows = ["participant_id\\tage", "sub-02\\t1", "sub-01\\t2", "sub-03\\t3"]
    (to / "participants.tsv").write_text("\\n".join(rows))
print("fetched", to.name)
"""


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """A folder to fetch to, with a space in its name, and the notes of a stand-in for `aws`."""
    notes, place = tmp_path / "notes", tmp_path / "bin"
    place.mkdir()
    path = place / "aws"
    path.write_text(TOOL.format(python=sys.executable, notes=str(notes), root=str(tmp_path)))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(place))
    return tmp_path / "my data", notes


def test_a_dry_run_shows_the_commands_and_runs_nothing(tool, capsys):
    to, notes = tool
    fetch("ds000030", to, subjects=2, dry_run=True)
    shown = capsys.readouterr().out
    assert f"aws s3 sync --no-sign-request s3://openneuro.org/ds000030 '{to}' --exclude" in shown
    assert "for each of the first 2 subjects" in shown and "ds000030/SUBJECT" in shown
    assert "CC0" in shown
    fetch("ds000228", to, tool="datalad", dry_run=True)
    assert f"datalad get --dataset '{to}' '{to}'" in capsys.readouterr().out
    fetch("ABIDE", to, tool="nilearn", subjects=4, dry_run=True)
    assert '"n_subjects": 4' in capsys.readouterr().out
    assert not notes.exists() and not to.exists()


def test_subjects_are_fetched_one_by_one_without_a_shell(tool, capsys):
    to, notes = tool
    fetch("ds000030", to, subjects=2, yes=True)
    lines = [line.split("|") for line in notes.read_text().splitlines()]
    assert len(lines) == 3
    assert lines[0][-4:] == ["--exclude", "sub-*", "--exclude", "derivatives/*"]
    assert [line[-1] for line in lines[1:]] == [f"{to}/sub-01", f"{to}/sub-02"]
    shown = capsys.readouterr().out
    assert "fetched my data" in shown
    assert f"brainlm onboard '{to}' --dataset ds000030" in shown


def test_nothing_is_fetched_unless_somebody_agrees(tool, monkeypatch):
    to, notes = tool
    with pytest.raises(InputError, match="nobody is here"):
        fetch("ds000030", to)
    assert not notes.exists()


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ('Could not connect to the endpoint URL: "https://s3.amazonaws.com"', "could not reach"),
        ("An error occurred (NoSuchBucket)", r"exit code 1: .*NoSuchBucket"),
    ],
)
def test_what_a_tool_cannot_do_is_told(tool, monkeypatch, fault, expected):
    monkeypatch.setenv("FAULT", fault)
    with pytest.raises(ResourceError, match=expected) as told:
        fetch("ds000030", tool[0], yes=True)
    assert "run this again" in told.value.fix


def test_tools_and_ways_that_are_not_there(tool):
    to, _ = tool
    with pytest.raises(InputError, match="datalad is not installed") as told:
        fetch("ds000030", to, tool="datalad", yes=True)
    assert "pip install datalad" in told.value.fix
    with pytest.raises(InputError, match="no way to fetch ds000030 with nilearn") as told:
        fetch("ds000030", to, tool="nilearn", dry_run=True)
    assert told.value.fix == "choose of datalad, aws"
    with pytest.raises(InputError, match="UKB cannot be fetched by a command") as told:
        fetch("UKB", to, dry_run=True)
    assert "ukbiobank.ac.uk" in told.value.fix
    with pytest.raises(InputError, match="as a whole only"):
        fetch("ABIDE", to, tool="aws", subjects=2, dry_run=True)


def test_what_nilearn_is_asked_it_can_do():
    """Function and options exist in the nilearn that is installed, whose source is read."""
    root = Path(importlib.util.find_spec("nilearn").submodule_search_locations[0])
    tree = ast.parse((root / "datasets" / "func.py").read_text())
    known = {
        node.name: {argument.arg for argument in node.args.args}
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }
    asked = [
        command
        for name in NAMES
        for way in load_dataset(name).fetch
        if way.tool == "nilearn"
        for command in (*way.some, *way.everything)
    ]
    assert len(asked) == 4
    for function, *options in asked:
        assert {option.partition("=")[0] for option in options} <= known[function]


def test_the_first_subjects_are_those_that_are_there(tmp_path):
    with pytest.raises(InputError, match="Which subjects there are"):
        fetching.first_subjects(tmp_path, 1)
    for name in ("sub-03", "sub-01", "sub-02"):
        (tmp_path / name).mkdir()
    assert fetching.first_subjects(tmp_path, 2) == ["sub-01", "sub-02"]
    (tmp_path / "participants.tsv").write_text("participant_id\nsub-00\nsub-02\nsub-03\n")
    assert fetching.first_subjects(tmp_path, 2) == ["sub-02", "sub-03"]
