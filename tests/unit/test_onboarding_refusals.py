"""What onboarding refuses before it reads an image, and a dictionary that it can do without."""

from __future__ import annotations

import pytest

from brainlm.cli.onboard import onboard
from brainlm.errors import InputError
from brainlm.shards.exclude_list import read_exclude_list

from .small_bids import make_bids


@pytest.fixture
def bids(tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "no templates"))
    monkeypatch.setenv("BRAINLM_CACHE", str(tmp_path / "empty"))
    return make_bids(tmp_path / "bids")


def test_folders_that_cannot_be_meant(bids, tmp_path):
    with pytest.raises(InputError, match="The BIDS folder does not exist"):
        onboard(tmp_path / "nowhere", tmp_path / "study")
    with pytest.raises(InputError, match="is the BIDS dataset itself"):
        onboard(bids, bids)
    assert not (tmp_path / "study").exists() and not (bids / "onboarding").exists()


def test_options_that_cannot_be_meant(bids, tmp_path):
    with pytest.raises(InputError, match="not of the form key=value"):
        onboard(bids, tmp_path / "study", settings=["seed"])
    with pytest.raises(InputError, match="--quiet asks nothing"):
        onboard(bids, tmp_path / "study", quiet=True, interactive=True)
    other = tmp_path / "participants.csv"
    other.write_text("subject,iq\n01,101\n")
    with pytest.raises(InputError, match="Two tables are called participants"):
        onboard(bids, tmp_path / "study", phenotypes=[other])
    assert not (tmp_path / "study").exists()


def test_a_broken_dictionary_is_told_and_left(bids, tmp_path, capsys):
    (bids / "participants.json").write_text("{")
    onboard(bids, tmp_path / "study", settings=["eligibility.min_volumes=10"])
    told = capsys.readouterr()
    assert "participants.json cannot be read, so codes of missing values" in told.err
    assert "4 eligible" in told.out


def test_an_exclusion_list_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "exclude.tsv"
    path.write_bytes("recording_id\treason\nsub-1\tgeräusch\n".encode("latin-1"))
    with pytest.raises(InputError, match="not text in UTF-8"):
        read_exclude_list(path, {"sub-1"})
