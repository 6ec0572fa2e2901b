"""Trainings on a real Slurm: told to stop, preempted, on a node that dies, out of time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brainlm.layout import Study
from brainlm.shards.tensorfile import load_tensors

from .slurm import Cluster, why_not
from .trainings import (
    WIDE,
    Workflow,
    bring_back,
    change,
    gpu_cluster,
    lose,
    make_study,
    note_of,
    steps_of,
)

#: Of the largest entry of a tensor: what docs/training.md says of several processes.
TOLERANCE = 1e-3
NAMES = ("model.safetensors", "model.json", "metrics.jsonl", "metrics.json")


def _begin(
    *command: str | Path, program: tuple[str, ...] = (sys.executable, "-m", "brainlm")
) -> subprocess.Popen[bytes]:
    """A command of a study, which comes last, begun."""
    *words, study = (str(part) for part in command)
    return subprocess.Popen([*program, *words, "--study", study])


def _undisturbed(study: Study, root: Path, *command: str) -> subprocess.Popen[bytes]:
    """The same in a copy of the study, begun."""
    return _begin(*command, shutil.copytree(study.root, root))


def _files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in NAMES if (folder / name).exists()}


@pytest.mark.faults
def test_a_pretraining_goes_on_through_all_that_happens_to_it(lab: Cluster, tmp_path: Path) -> None:
    """USR1, preemption, a node that dies: one job, and the bytes of no accident."""
    study = make_study(tmp_path / "study", epochs=300)
    undisturbed = _undisturbed(study, tmp_path / "undisturbed", "pretrain")
    model = study.path("model", run="brainlm")
    checkpoints, rule = model.parent / "checkpoints", "pretrain_model"
    workflow = Workflow.start(lab, study, (rule,), (model,), partition="scavenge")
    workflow.wait_until_it_learns(rule, checkpoints)
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
    workflow.wait_until_it_learns(rule, checkpoints)
    bring_back(lab, lost)
    assert workflow.ended() == 0, workflow.told[-5000:]
    assert [note["times"] for note in stopped] == [1, 2]
    assert stopped[0]["step"] < stopped[1]["step"]
    assert "Going on from step-" in log.read_text()
    assert workflow.job(rule)["id"] == job
    assert "Trying to restart" not in workflow.told
    assert undisturbed.wait(timeout=300) == 0
    expected = Study(tmp_path / "undisturbed").path("model", run="brainlm").parent
    assert _files(model.parent) == _files(expected)
    assert steps_of(checkpoints) == steps_of(expected / "checkpoints")


@pytest.mark.nightly
@pytest.mark.faults
def test_at_its_time_limit_a_training_stops_by_itself_and_goes_on(
    lab: Cluster, tmp_path: Path
) -> None:
    """Longer than any machine takes for it here: it is cancelled in the end."""
    study = make_study(tmp_path / "study", epochs=5000)
    model, rule = study.path("model", run="brainlm"), "pretrain_model"
    checkpoints, log = model.parent / "checkpoints", study.root / "logs/pretrain.log"
    workflow = Workflow.start(lab, study, (rule,), (model,), "--retries", "0")
    workflow.wait_for("the job runs", lambda: workflow.job(rule)["state"] == "RUNNING")
    begun = time.monotonic()
    workflow.wait_until_it_learns(rule, checkpoints)
    start_s = time.monotonic() - begun
    lab.run("scancel", "--signal=USR1", workflow.job(rule)["id"])
    workflow.wait_until_back_in_the_queue(rule)

    # Limits are minutes: of the hour that it has, it now takes some times what a start takes.
    change(study, "pretrain", stop_before_end_s=3600 - 3 * start_s - 15)
    job = workflow.start_again_now(rule)
    workflow.wait_until_it_learns(rule, checkpoints)
    workflow.wait_until_back_in_the_queue(rule)
    assert "Stopped after step" in log.read_text()
    stopped = note_of(checkpoints)
    assert stopped["times"] == 2

    assert workflow.start_again_now(rule) == job
    workflow.wait_until_it_learns(rule, checkpoints)
    assert f"Going on from step-{stopped['step']:08d}" in log.read_text()
    lab.run("scancel", job)
    assert workflow.ended() == 1


@pytest.mark.nightly
@pytest.mark.faults
def test_finetuning_and_scaling_curves_go_on_too(lab: Cluster, tmp_path: Path) -> None:
    """The former by two processes of torchrun."""
    steps = {"sizes": [{"name": "wide", "overrides": WIDE}], "shares": [1.0], "steps": 150}
    labels = {"epochs": 40, "patience": 40, "targets": [{"name": "score"}], "processes": 2}
    study = make_study(tmp_path / "study", epochs=1, finetune=labels, scaling=steps)
    assert _begin("pretrain", study.root).wait(timeout=300) == 0
    ways = {
        "finetune_model": ("finetuned", ("finetune", "--target", "score"), {"target": "score"}),
        "train_scaling": (
            "scaled_model",
            ("train-scaling", "--point", "wide-1"),
            {"point": "wide-1"},
        ),
    }
    models = {
        rule: study.path(kind, run="brainlm", **fields) for rule, (kind, _, fields) in ways.items()
    }
    copy = shutil.copytree(study.root, tmp_path / "undisturbed")
    undisturbed = [_begin(*ways["train_scaling"][1], copy)]
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    two = (*torchrun, "--nproc-per-node", "2", "-m", "brainlm")
    undisturbed.append(_begin(*ways["finetune_model"][1], copy, program=two))
    workflow = Workflow.start(lab, study, tuple(models), tuple(models.values()))
    for rule, model in models.items():
        workflow.wait_until_it_learns(rule, model.parent / "checkpoints")
        lab.run("scancel", "--signal=TERM", workflow.job(rule)["id"])
    for rule in models:
        workflow.start_again_now(rule)
    assert workflow.ended() == 0, workflow.told[-5000:]
    assert "Trying to restart" not in workflow.told
    assert [process.wait(timeout=300) for process in undisturbed] == [0, 0]
    for rule, model in models.items():
        assert note_of(model.parent / "checkpoints")["times"] == 1, rule
        assert _files(model.parent) == _files(copy / model.parent.relative_to(study.root)), rule


@pytest.mark.nightly
@pytest.mark.faults
def test_ranks_are_tasks_on_two_nodes(tmp_path: Path) -> None:
    """They save at a signal, end when one of them dies, and learn what one process learns."""
    if (reason := why_not()) is not None:
        pytest.skip(f"no Slurm: {reason}")
    study = make_study(
        tmp_path / "study",
        epochs=40,
        width={**WIDE, "dropout": 0.0},
        pretrain={"device": "auto", "learning_rate": 0.00001},
        jobs={"gpu_gres": "gpu:a100"},
    )
    alone = _undisturbed(study, tmp_path / "alone", "pretrain")
    change(study, "pretrain", nodes=2)
    model, rule = study.path("model", run="brainlm"), "pretrain_model"
    checkpoints = model.parent / "checkpoints"
    with gpu_cluster(tmp_path / "lab") as lab:
        workflow = Workflow.start(
            lab,
            study,
            (rule,),
            (model,),
            *("--retries", "1"),
            partition=None,
            MASTER_ADDR="127.0.0.1",
        )
        workflow.wait_until_it_learns(rule, checkpoints)
        ranks = workflow.processes("pretrain")
        assert {rank["SLURMD_NODENAME"] for rank in ranks.values()} == {"cpu1", "cpu2"}
        assert {rank["CUDA_VISIBLE_DEVICES"] for rank in ranks.values()} == {"0"}
        first = workflow.job(rule)["id"]
        lab.run("scancel", "--signal=USR1", first)
        workflow.start_again_now(rule)
        stopped = note_of(checkpoints)
        workflow.wait_until_it_learns(rule, checkpoints)
        log = study.root / "logs/pretrain.log"
        assert f"Going on from step-{stopped['step']:08d}" in log.read_text()

        last = max(workflow.processes("pretrain"))
        os.kill(last, signal.SIGKILL)
        workflow.lab.wait_for(
            "the job fails",
            20,
            lambda: lab.run("squeue", "-hj", first, "-tall", "-o%T") == "FAILED\n",
        )
        assert not workflow.processes("pretrain")
        assert workflow.ended() == 0, workflow.told[-5000:]
    assert workflow.told.count("Trying to restart") == 1
    assert alone.wait(timeout=300) == 0
    found, expected = (
        load_tensors(folder / model.relative_to(study.root))[0]
        for folder in (study.root, tmp_path / "alone")
    )
    for name, value in expected.items():
        assert abs(found[name] - value).max() <= TOLERANCE * abs(value).max(), name


def test_a_job_gets_the_gpus_that_it_asks_for_and_stays_cancelled(
    lab: Cluster, tmp_path: Path
) -> None:
    """One study asks by number, the other by the cluster's name for them."""
    asked = {"number": {}, "name": {"gpu_gres": "gpu"}}
    # Each would get all CPUs of the node.
    half = {"number": "cpus_per_gpu=4", "name": "cpus_per_task=4"}
    rule, workflows = "pretrain_model", []
    for name, jobs in asked.items():
        study = make_study(tmp_path / name, epochs=5000, jobs=jobs, pretrain={"device": "auto"})
        model = study.path("model", run="brainlm")
        resources = ("mem_mb=1500", "runtime=60", half[name])
        workflows.append(
            Workflow.start(
                lab,
                study,
                (rule,),
                (model,),
                *("--retries", "0"),
                partition=None,
                resources=resources,
            )
        )
    seen = []
    for workflow in workflows:
        checkpoints = workflow.study.path("model", run="brainlm").parent / "checkpoints"
        workflow.wait_until_it_learns(rule, checkpoints)
        (environment,) = workflow.processes("pretrain").values()
        seen.append(environment["CUDA_VISIBLE_DEVICES"])
        job = lab.run("scontrol", "show", "job", workflow.job(rule)["id"])
        assert "TRES=cpu=4,mem=1500M,node=1" in job
    assert sorted(seen) == ["0", "1"]
    for workflow in workflows:
        lab.run("scancel", workflow.job(rule)["id"])
    for workflow in workflows:
        assert workflow.ended() == 1
        assert workflow.job(rule)["state"] == "CANCELLED"
