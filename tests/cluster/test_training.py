"""Trainings on a real Slurm: told to stop, preempted, on a node that dies, out of time."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brainlm.layout import Study

from .slurm import Cluster
from .trainings import Workflow, bring_back, change, lose, make_study, note_of, steps_of

NAMES = ("model.safetensors", "model.json", "metrics.jsonl", "metrics.json")


def _undisturbed(study: Study, root: Path, *command: str) -> subprocess.Popen[bytes]:
    """The same command in a copy of the study, begun."""
    copy = shutil.copytree(study.root, root)
    return subprocess.Popen([sys.executable, "-m", "brainlm", *command, "--study", str(copy)])


def _files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in NAMES if (folder / name).exists()}


@pytest.mark.faults
def test_a_pretraining_goes_on_through_all_that_happens_to_it(lab: Cluster, tmp_path: Path) -> None:
    """USR1, preemption, a node that dies, the time limit: one job, and the bytes of no accident."""
    study = make_study(tmp_path / "study", epochs=90)
    undisturbed = _undisturbed(study, tmp_path / "undisturbed", "pretrain")
    model = study.path("model", run="brainlm")
    checkpoints, rule = model.parent / "checkpoints", "pretrain_model"
    begun = time.monotonic()
    workflow = Workflow.start(lab, study, (rule,), (model,), partition="scavenge")
    workflow.wait_until_it_learns(rule, checkpoints)
    start_s = time.monotonic() - begun

    job = workflow.job(rule)["id"]
    lab.run("scancel", "--signal=USR1", job)
    assert workflow.start_again_now(rule) == job
    stopped = [note_of(checkpoints)]
    log = study.root / "logs/pretrain.log"

    workflow.wait_until_it_learns(rule, checkpoints)
    assert f"Going on from step-{stopped[0]['step']:08d}" in log.read_text()
    node = workflow.job(rule)["node"]
    lab.run("srun", "-p", "urgent", "-w", node, "--exclusive", "true")
    workflow.start_again_now(rule)
    stopped.append(note_of(checkpoints))

    workflow.wait_until_it_learns(rule, checkpoints)
    assert f"Going on from step-{stopped[1]['step']:08d}" in log.read_text()
    lost = workflow.job(rule)["node"]
    lose(lab, lost)
    workflow.start_again_now(rule)

    # The next start ends when it has learned for a few seconds.
    change(study, "pretrain", stop_before_end_s=3600 - 2 * start_s)
    workflow.wait_until_it_learns(rule, checkpoints)
    workflow.start_again_now(rule)
    stopped.append(note_of(checkpoints))
    change(study, "pretrain", stop_before_end_s=120)

    bring_back(lab, lost)
    assert workflow.ended() == 0, workflow.told[-5000:]
    assert [note["times"] for note in stopped] == [1, 2, 3]
    assert stopped[0]["step"] < stopped[1]["step"] < stopped[2]["step"]
    assert workflow.job(rule)["id"] == job
    assert "Trying to restart" not in workflow.told
    assert undisturbed.wait(timeout=300) == 0
    expected = Study(tmp_path / "undisturbed").path("model", run="brainlm").parent
    assert _files(model.parent) == _files(expected)
    assert steps_of(checkpoints) == steps_of(expected / "checkpoints")
