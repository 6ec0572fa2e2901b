"""The crates pass the public validator, which is in packages of its own (`make rocrate`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from brainlm.cli.reproducibility import reproducibility

from .named_study import NamedStudy

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / ".venv-rocrate"
PROFILES = ("ro-crate-1.1", "process-run-crate", "workflow-ro-crate", "workflow-run-crate")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> NamedStudy:
    made = NamedStudy(tmp_path_factory.mktemp("study")).write()
    reproducibility(study=made.study.root, shareable=True)
    return made


def validate(folder: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    if not (PACKAGES / ".installed").exists():
        pytest.skip("the validator is not here: make rocrate")
    program = ROOT / "tests/environments/validate_crate.py"
    return subprocess.run(
        [sys.executable, program, folder, cache, *PROFILES],
        env={**os.environ, "PYTHONPATH": str(PACKAGES), "ROCRATE_VALIDATOR_AUTO_WARM": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["crate", "shareable_crate"])
def test_crates_are_valid(study, tmp_path, kind):
    done = validate(study.path(kind).parent, tmp_path / "cache")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


@pytest.mark.slow
def test_the_validator_sees_what_is_wrong(study, tmp_path):
    path = study.path("shareable_crate")
    kept = path.read_text()
    crate = json.loads(kept)
    for entity in crate["@graph"]:
        entity.pop("instrument", None)
    path.write_text(json.dumps(crate))
    try:
        done = validate(path.parent, tmp_path / "cache")
    finally:
        path.write_text(kept)
    assert done.returncode == 1 and "instrument" in done.stdout


def entities(study: NamedStudy, kind: str) -> dict[str, dict]:
    crate = json.loads(study.path(kind).read_text())
    found = {entity["@id"]: entity for entity in crate["@graph"]}
    assert len(found) == len(crate["@graph"]), "every id once"
    return found


@pytest.mark.parametrize("kind", ["crate", "shareable_crate"])
def test_all_that_is_referred_to_is_described(study, kind):
    found = entities(study, kind)
    outside = ("https://w3id.org/ro/crate/1.1", "https://snakemake.github.io")

    def check(value):
        if isinstance(value, dict):
            if set(value) == {"@id"}:
                assert value["@id"] in found or value["@id"] in outside, value
            for one in value.values():
                check(one)
        elif isinstance(value, list):
            for one in value:
                check(one)

    check(list(found.values()))


def test_files_are_there_with_their_hashes(study):
    from brainlm.provenance import sha256_file

    found = entities(study, "crate")
    parts = [part["@id"] for part in found["./"]["hasPart"]]
    assert "cohort/recordings.parquet" in parts and "reports/reproducibility.html" in parts
    for name in parts:
        assert sha256_file(study.study.root / name) == found[name]["sha256"], name


def test_stages_say_what_they_made_from_what(study):
    found = entities(study, "crate")
    cohort = found["#cohort"]
    assert {"@id": "cohort/recordings.parquet"} in cohort["result"]
    given = [found[one["@id"]] for one in cohort["object"]]
    assert "onboarding/recordings.parquet" in [one["name"] for one in given]
    assert "52 files: timeseries" in [one["name"] for one in given]
    options = json.loads(found["#cohort-parameters"]["value"])
    assert options["quality"]["max_mean_fd_mm"] == study.config.quality.max_mean_fd_mm
    assert "for 52 recordings" in found["#parcellate"]["description"]
    assert found["#brainlm-cohort"]["softwareVersion"].count("+") == 1


def test_licence_and_date_are_the_configs(study, tmp_path):
    from brainlm.config import to_commented_yaml
    from brainlm.files import write_text

    assert entities(study, "crate")["./"]["license"] == {"@id": "#licence-not-stated"}
    address = "https://creativecommons.org/licenses/by/4.0/"
    made = NamedStudy(tmp_path)
    about = {"licence": address, "published": "2026-02-03"}
    made.config = made.config.model_copy(
        update={"report": made.config.report.model_copy(update=about)}
    )
    write_text(made.path("config"), to_commented_yaml(made.config))
    made._recordings().to_parquet(made.path("recordings"))
    reproducibility(study=tmp_path)
    root = entities(made, "crate")["./"]
    assert root["license"] == {"@id": address} and root["datePublished"] == "2026-02-03"
