"""A fine-tuning that is stopped in a workflow: Snakemake starts it again, and it goes on."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from brainlm.cli.finetune import finetune
from brainlm.cli.pretrain import pretrain
from brainlm.layout import Study
from brainlm.resources import share_dir
from tests.unit.synthetic_cohort import make_shards, write_study

pytestmark = [pytest.mark.slow, pytest.mark.faults]

MODEL = Path("models/brainlm-score/model.safetensors")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Pretrained, with a fine-tuning before it that takes some seconds."""
    options = {
        "pretrain": {"epochs": 1, "batch_size": 4, "device": "cpu", "checkpoint_every": 5},
        "finetune": {"epochs": 150, "patience": 150, "targets": [{"name": "score"}]},
    }
    study = write_study(tmp_path / "study", {"train": 24, "val": 3, "test": 1}, options=options)
    make_shards(study)
    pretrain(study.root)
    return study


def _start_workflow(study: Study) -> subprocess.Popen[str]:
    """The rule alone: there are no raw files to make its inputs of."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(share_dir() / "Snakefile")]
    command += ["--directory", str(study.root), "--cores", "2", "--retries", "1"]
    command += ["--allowed-rules", "finetune_model", "--", str(MODEL)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=study.root
    )


def _interrupt_when_it_learns(workflow: subprocess.Popen[str], study: Study) -> None:
    """SIGUSR1, as Slurm sends it, to the last of the fine-tuning's processes."""
    logs = (study.root / MODEL).parent / "checkpoints"
    while not any(len(log.read_text().splitlines()) > 20 for log in logs.rglob("metrics.jsonl")):
        assert workflow.poll() is None, workflow.communicate()[0][-3000:]
        time.sleep(0.02)
    learning = [
        process
        for process in psutil.Process(workflow.pid).children(recursive=True)
        if "finetune" in process.cmdline() and "torchrun" not in " ".join(process.cmdline()[:2])
    ]
    learning[-1].send_signal(signal.SIGUSR1)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_it_goes_on_where_it_was(study: Study, tmp_path: Path, processes: int) -> None:
    config = json.loads(study.path("config").read_text())
    config["finetune"]["processes"] = processes
    study.path("config").write_text(json.dumps(config))
    unbroken = Study(shutil.copytree(study.root, tmp_path / "unbroken"))
    finetune("score", unbroken.root)

    workflow = _start_workflow(study)
    _interrupt_when_it_learns(workflow, study)
    told = workflow.communicate(timeout=300)[0]
    assert workflow.returncode == 0, told[-3000:]
    assert "Trying to restart job" in told
    assert "Going on from step-" in (study.root / "logs/finetune-score.log").read_text()
    folder, expected = (
        one.path("finetuned", run="brainlm", target="score").parent for one in (study, unbroken)
    )
    rows, expected_rows = (
        [json.loads(line) for line in (one / "metrics.jsonl").read_text().splitlines()]
        for one in (folder, expected)
    )
    assert [row["step"] for row in rows] == [row["step"] for row in expected_rows]
    if processes == 1:
        assert rows == expected_rows
        assert (folder / MODEL.name).read_bytes() == (expected / MODEL.name).read_bytes()
