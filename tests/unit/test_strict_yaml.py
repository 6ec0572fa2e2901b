"""Keys that stand twice in a YAML file are refused with file and line, wherever users write it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from brainlm.atlas.registry import read_registry
from brainlm.bids.datasets.load import read_dataset_file
from brainlm.bids.study import parse_settings
from brainlm.cluster.profile import read_profile
from brainlm.cluster.site import Site
from brainlm.config import load_config
from brainlm.config.strict_yaml import parse_yaml, read_yaml
from brainlm.errors import InputError
from brainlm.fmriprep.images import _read_lock
from brainlm.resources import share_dir

TWICE = "split:\n  seed: 1\n  # and below, by a slip\n  seed: 2\n"


@pytest.mark.parametrize(
    "read",
    [load_config, read_dataset_file, read_registry, _read_lock, lambda file: _profile(file)],
)
def test_a_key_that_stands_twice_is_told_with_file_and_line(tmp_path: Path, read) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(TWICE)
    with pytest.raises(InputError) as told:
        read(file)
    assert "line 4: the key 'seed' stands there once more, first in line 2" in told.value.what
    assert told.value.file == str(file)


def _profile(file: Path) -> object:
    return read_profile(file.parent, Site("here", ()))


def test_in_one_line_too_and_in_a_setting() -> None:
    with pytest.raises(InputError, match="the key 'mean' stands there once more"):
        parse_settings(["parcellate={mean: 1, mean: 2}"])
    assert parse_settings(["a.b=1", "a.b=2"]) == {"a": {"b": 2}}  # as with any option


@pytest.mark.parametrize(
    "text",
    [
        "a: {k: 1}\nb: {k: 1}",
        "- k: 1\n- k: 1",
        "1: int\n'1': text",
        "base: &b {k: 1}\nc: {<<: *b, k: 2}",
        # A mapping with keys merged in, itself merged into another before it is read.
        "base: &b {k: 1}\nx: {a: &a {<<: *b, k: 2}}\nc: {<<: *a, k: 3}",
    ],
)
def test_what_stands_once_is_read_as_before(text: str) -> None:
    assert parse_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"a: 1\nb: [1,\nc: 2", "line 3: while parsing a flow sequence that begins in line 2 "),
        (b"a: 1\nb: 2\n\tc: 3", "line 3: "),
        (b"a: \xff", "codec can't decode byte"),
        (b"day: 2024-02-30", "day is out of range"),
    ],
)
def test_other_faults_are_told_in_one_line(tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "some.yaml").write_bytes(content)
    with pytest.raises(InputError, match="The file is not valid YAML: ") as told:
        read_yaml(tmp_path / "some.yaml", "The file")
    assert fault in told.value.what and "\n" not in told.value.what


def test_the_files_that_come_with_the_package_have_each_key_once() -> None:
    files = [file for folder in ("config", "atlases", "containers") for file in _yaml_of(folder)]
    assert len(files) > 10
    for file in files:
        assert read_yaml(file, "A file of the package") is not None


def _yaml_of(folder: str) -> list[Path]:
    return sorted((share_dir() / folder).rglob("*.yaml"))
