from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from brainlm.errors import DataError, UpstreamError
from brainlm.provenance import (
    check_input,
    is_tombstone,
    sha256_file,
    sha256_json,
    sidecar_path,
    software_versions,
    still_is,
    write_sidecar,
)

ENTITIES = {"sub": "01", "task": "rest"}


def _write(path: Path, entities: dict[str, str] = ENTITIES) -> Path:
    write_sidecar(
        path,
        stage="motion",
        code_digest="abc",
        entities=entities,
        sources={"bids::x": "1"},
        parameters={},
        software=software_versions(["numpy"]),
        fields={"RepetitionTime": 2.0},
    )
    path.write_bytes(b"data")
    return path


@pytest.mark.parametrize(
    ("data", "sidecar"),
    [
        ("a_bold.nii.gz", "a_bold.json"),
        ("a_timeseries.tsv", "a_timeseries.json"),
        ("model.safetensors", "model.json"),
        ("a_bold.dtseries.nii", "a_bold.json"),
    ],
)
def test_sidecar_names(data: str, sidecar: str) -> None:
    assert sidecar_path(Path("x") / data) == Path("x") / sidecar


def test_sha256_equals_hashlib(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_a_raw_file_is_known_by_its_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    whole, fast = sha256_file(path), "fast:3:17"
    assert still_is(path, whole) and still_is(path, fast)
    path.write_bytes(b"abd")
    assert not still_is(path, whole) and still_is(path, fast)
    path.write_bytes(b"ab")
    assert not still_is(path, fast)


def test_sha256_json_ignores_key_order_and_sees_values() -> None:
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 2})


def test_check_input_accepts_its_own_and_returns_the_sidecar(tmp_path: Path) -> None:
    sidecar = check_input(_write(tmp_path / "x_bold.nii.gz"), ENTITIES)
    assert sidecar["RepetitionTime"] == 2.0
    assert sidecar["Software"]["numpy"]


def test_check_input_refuses_another_subject(tmp_path: Path) -> None:
    path = _write(tmp_path / "x_bold.nii.gz", {"sub": "02", "task": "rest"})
    with pytest.raises(DataError, match="says that it is of"):
        check_input(path, ENTITIES)


def test_check_input_refuses_missing_orphaned_broken_and_given_up(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist yet"):
        check_input(tmp_path / "none.tsv", ENTITIES)
    (tmp_path / "orphan.tsv").write_text("1")
    with pytest.raises(DataError, match="no sidecar"):
        check_input(tmp_path / "orphan.tsv", ENTITIES)
    (tmp_path / "orphan.json").write_text("{half")
    with pytest.raises(DataError, match="not valid JSON"):
        check_input(tmp_path / "orphan.tsv", ENTITIES)
    (tmp_path / "given_up.tsv").touch()
    assert is_tombstone(tmp_path / "given_up.tsv")
    with pytest.raises(UpstreamError):
        check_input(tmp_path / "given_up.tsv", ENTITIES)


def test_sidecars_hold_no_clock_time_host_or_absolute_path(tmp_path: Path) -> None:
    first = _write(tmp_path / "a" / "x.tsv") if (tmp_path / "a").mkdir() is None else None
    second = _write(tmp_path / "b" / "x.tsv") if (tmp_path / "b").mkdir() is None else None
    assert first is not None and second is not None
    text = sidecar_path(first).read_text()
    assert text == sidecar_path(second).read_text()
    assert str(tmp_path) not in text
    assert "Entities" in json.loads(text)
