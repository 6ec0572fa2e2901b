"""Real runs of the cohort's rules on ready parcel series: what a second onboarding changes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from brainlm.layout import Study
from brainlm.resources import share_dir
from tests.unit.synthetic_cohort import add_wave, write_study

pytestmark = pytest.mark.slow


def snakemake(study: Study, *arguments: str) -> str:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(share_dir() / "Snakefile")]
    command += ["--directory", str(study.root), "--cores", "2", *arguments]
    done = subprocess.run(
        [*command, "shards/index.parquet"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def _shards(study: Study) -> dict[str, tuple[int, bytes]]:
    folder = study.path("shards_index").parent
    return {
        path.stem: (path.stat().st_ino, path.read_bytes())
        for path in folder.glob("*-*.safetensors")
    }


def test_a_study_can_freeze_its_own_scaler(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", {"train": 2, "val": 1, "test": 1})
    snakemake(study)
    before = _shards(study)
    config = json.loads(study.path("config").read_text())
    config["scale"] = {"fitted": "shards/normalization.safetensors"}
    study.path("config").write_text(json.dumps(config))
    add_wave(study, ["train", "val"])
    snakemake(study)
    after = _shards(study)
    assert {name: after[name] for name in before} == before
    assert set(after) == {*before, "train-w1-00000", "val-w1-00000"}
    snakemake(study)
    assert _shards(study) == after
    assert "Nothing to be done" in snakemake(study)


def test_a_second_wave_keeps_the_first_ones_shards(tmp_path: Path) -> None:
    """Snakemake runs each job behind the cohort again, and deletes its outputs first."""
    study = write_study(tmp_path / "study", {"train": 2, "val": 1, "test": 1})
    snakemake(study)
    before = _shards(study)
    assert set(before) == {"train-00000", "val-00000", "test-00000"}
    assert "Nothing to be done" in snakemake(study)

    add_wave(study, ["val", "test"])
    snakemake(study)
    after = _shards(study)
    assert set(after) == {*before, "val-w1-00000", "test-w1-00000"}
    assert {name: after[name] for name in before} == before
    log = study.root / "logs" / "write-shard" / "train-00000.log"
    assert "kept as it was" in log.read_text()
    index = pd.read_parquet(study.path("shards_index"))
    assert index["shard"].nunique() == 5 and len(index) == 6
    assert "Nothing to be done" in snakemake(study)

    (study.path("shard", shard="val-00000")).unlink()
    snakemake(study, "shards/val-00000.safetensors")
    assert _shards(study) == after
