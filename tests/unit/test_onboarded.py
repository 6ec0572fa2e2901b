"""A study whose config or tables changed after onboarding is refused, and told what to run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from brainlm.bids import onboarded
from brainlm.bids.onboarded import check_onboarded
from brainlm.cli.onboard import Engine, HashMode, onboard
from brainlm.config import load_config
from brainlm.errors import InputError

from ..forked_snakemake import run_snakemake
from .small_bids import make_bids

SESSIONS = "session_id\tbdi\nses-1\t7\nses-2\t9\n"


@pytest.fixture(scope="module")
def onboarded_once(tmp_path_factory):
    place = tmp_path_factory.mktemp("onboarded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEMPLATEFLOW_HOME", str(place / "no templates"))
        patch.setenv("BRAINLM_CACHE", str(place / "empty"))
        make_bids(place / "bids")
        (place / "bids/sub-02/sub-02_sessions.tsv").write_text(SESSIONS)
        (place / "iq.csv").write_text("subject,iq\n01,101\n02,102\n")
        onboard(
            place / "bids",
            place / "study",
            HashMode.fast,
            None,
            ["eligibility.min_volumes=10", "phenotypes.tables=[sessions, iq]"],
            phenotypes=[place / "iq.csv"],
            quiet=True,
        )
    return place


@pytest.fixture
def place(onboarded_once, tmp_path):
    return Path(shutil.copytree(onboarded_once, tmp_path / "here"))


def check(place: Path) -> None:
    check_onboarded(load_config(place / "study/config/config.yaml"), place / "study")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("bids/participants.tsv", "30.5", "31.5"),
        ("iq.csv", "102", "99"),
        ("bids/sub-02/sub-02_sessions.tsv", "9", "8"),
    ],
)
def test_a_table_that_changed_is_named_with_the_command(place, name, old, new):
    check(place)
    edit(place / name, old, new)
    with pytest.raises(InputError, match=f"{name[-10:]} changed after") as told:
        check(place)
    assert str(told.value.file) == str(place / name).replace("sub-02", "sub-*")
    assert "`brainlm onboard ../bids --study . --hash fast` in the study" in told.value.fix
    edit(place / name, new, old)
    check(place)


def test_a_new_dictionary_or_table_of_participants_is_seen(place):
    dictionary = place / "bids/participants.json"
    dictionary.write_text('{"age": {"MissingValues": 41}}')
    with pytest.raises(InputError, match=r"participants\.json is new after"):
        check(place)
    dictionary.unlink()
    (place / "bids/sub-01/sub-01_sessions.tsv").write_text(SESSIONS)
    with pytest.raises(InputError, match=r"sessions\.tsv changed"):
        check(place)


@pytest.mark.parametrize("large", [1 << 24, 1])
def test_a_link_that_points_at_another_table_is_seen(place, monkeypatch, large):
    monkeypatch.setattr(onboarded, "_LARGE", large)
    (place / "iq.csv").rename(place / "iq-1.csv")
    (place / "iq-2.csv").write_text((place / "iq-1.csv").read_text().replace("102", "107"))
    (place / "iq.csv").symlink_to("iq-1.csv")
    edit(place / "study/config/config.yaml", "path: ../iq.csv", "path: ../iq.csv\n    name: iq")
    onboard(place / "bids", place / "study", HashMode.fast, quiet=True)
    check(place)
    (place / "iq.csv").unlink()
    (place / "iq.csv").symlink_to("iq-2.csv")
    with pytest.raises(InputError, match=r"^iq\.csv changed"):
        check(place)


@pytest.mark.parametrize(
    "section, old, new",
    [
        ("phenotypes", "path: ../iq.csv", "path: ../iq.csv\n    subject: subject"),
        ("eligibility", "min_volumes: 10", "min_volumes: 15"),
        ("derivatives", "tr: null", "tr: 2.5"),
    ],
)
def test_options_that_onboarding_acts_on_are_compared_without_the_dataset(place, section, old, new):
    shutil.rmtree(place / "bids")
    check(place)
    config = place / "study/config/config.yaml"
    edit(config, old, new)
    with pytest.raises(InputError, match=f"^{section} changed after the study was") as told:
        check(place)
    assert told.value.file == str(config)


@pytest.mark.parametrize(
    "series, refused, free",
    [
        (
            "sub-01/func/sub-01_task-rest_space-MNI152NLin2009aSym_desc-preproc_bold.nii.gz",
            ("template: MNI152NLin2009aSym", "template: MNI152NLin6Asym"),
            ("name: A424\n", "name: A424approx\n"),
        ),
        (
            "sub-01_task-rest_timeseries.csv",
            ("name: A424\n", "name: A424approx\n"),
            ("template: MNI152NLin2009aSym", "template: MNI152NLin6Asym"),
        ),
    ],
)
def test_files_of_another_pipeline_stay_those_of_the_space_or_atlas(
    tmp_path, series, refused, free
):
    path = tmp_path / "bids" / series
    path.parent.mkdir(parents=True)
    path.write_text("1,2\n")
    settings = ["atlas.name=A424", "space.template=MNI152NLin2009aSym"]
    onboard(
        tmp_path / "bids",
        tmp_path / "study",
        HashMode.fast,
        settings=settings,
        engine=Engine.derivatives,
        quiet=True,
    )
    config = tmp_path / "study/config/config.yaml"
    edit(config, *free)
    check(tmp_path)
    edit(config, *refused)
    with pytest.raises(InputError, match=r"^(space|atlas) changed after the study was"):
        check(tmp_path)
    onboard(tmp_path / "bids", tmp_path / "study", HashMode.fast, quiet=True)
    check(tmp_path)


def test_what_stages_read_by_themselves_is_free_to_change(place):
    edit(place / "study/config/config.yaml", "name: A424\n", "name: A424approx\n")
    edit(place / "study/config/config.yaml", "order: 3", "order: 1")
    edit(place / "study/config/config.yaml", "min_parcels: ", "min_parcels: 0")
    check(place)


def test_a_study_of_an_earlier_version_is_let_through_and_a_broken_record_is_not(place):
    record = place / "study/onboarding/sources.json"
    record.write_text("{}")
    with pytest.raises(InputError, match="no record of an onboarding"):
        check(place)
    record.unlink()
    edit(place / "iq.csv", "102", "99")
    check(place)


def test_a_large_table_is_read_only_where_size_or_time_say_so(place, monkeypatch):
    monkeypatch.setattr(onboarded, "_LARGE", 1)
    record, seen = place / "study/onboarding/sources.json", []
    digest = onboarded.sha256_file
    monkeypatch.setattr(
        onboarded, "sha256_file", lambda path: seen.append(path.name) or digest(path)
    )
    later = record.stat().st_ctime + 60
    os.utime(record, (later, later))  # as after a while
    check(place)
    assert seen == ["sub-02_sessions.tsv"]
    os.utime(record, (1, 1))  # tables copied or touched since
    check(place)
    assert {"participants.tsv", "iq.csv"} < set(seen)
    os.utime(record, (later, later))
    edit(place / "iq.csv", "102", "1020")
    with pytest.raises(InputError, match=r"iq\.csv changed"):
        check(place)


def test_the_workflow_and_the_cohort_by_hand_stop_until_it_is_onboarded_again(place):
    edit(place / "bids/participants.tsv", "30.5", "31.5")
    dry = ("--dry-run", "--quiet", "--directory", str(place / "study"))
    snakefile = ("--snakefile", str(place / "study/Snakefile"))
    stopped = run_snakemake(*snakefile, *dry)
    assert stopped.returncode == 1 and "participants.tsv changed after" in stopped.stdout
    command = [sys.executable, "-m", "brainlm", "cohort", "--study", str(place / "study")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2 and "participants.tsv changed after" in done.stderr
    onboard(place / "bids", place / "study", HashMode.fast, quiet=True)
    done = run_snakemake(*snakefile, *dry)
    assert done.returncode == 0, done.stdout
