"""Trainings as jobs of a cluster: small studies whose shards need no images."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from brainlm.layout import Study
from brainlm.resources import share_dir
from tests.unit.synthetic_cohort import NETWORK, make_shards, write_study

from .slurm import Cluster, ClusterError

#: Wide enough for a step to take about 0.1 s of a CPU.
WIDE = {**NETWORK, "hidden": 256, "mlp": 512, "layers": 2, "dropout": 0.1}


def make_study(root: Path, *, epochs: int, width: dict[str, Any] = WIDE, **sections: Any) -> Study:
    """A study with shards of 32 train subjects: four steps an epoch."""
    pretrain = {"epochs": epochs, "batch_size": 8, "device": "cpu", "checkpoint_every": 50}
    options = {
        **sections,
        "model": {"overrides": width},
        "pretrain": {**pretrain, **sections.get("pretrain", {})},
    }
    study = write_study(root, {"train": 32, "val": 4, "test": 2}, options=options)
    make_shards(study)
    return study


def change(study: Study, section: str, **options: Any) -> None:
    """Change options of a study's config."""
    config = json.loads(study.path("config").read_text())
    config[section] = {**config.get(section, {}), **options}
    study.path("config").write_text(json.dumps(config))


@dataclass
class Workflow:
    """`snakemake --profile slurm` of a study, for some rules that train."""

    lab: Cluster
    study: Study
    process: subprocess.Popen[bytes]

    @classmethod
    def start(
        cls,
        lab: Cluster,
        study: Study,
        rules: tuple[str, ...],
        goals: tuple[Path, ...],
        *options: str,
        partition: str | None = "cpu",
        resources: tuple[str, ...] = ("mem_mb=1500", "runtime=60"),
        **environment: str,
    ) -> Workflow:
        """Start it; its output goes to a file, lest it wait for a reader.

        Without a `partition`, the plugin looks for the one that fits, as on a site that
        `brainlm cluster profile` was told of.
        """
        # Nobody is left behind when this process is killed.
        command = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "snakemake"]
        command += ["--snakefile", share_dir() / "Snakefile"]
        command += [
            "--profile",
            share_dir() / "config/profiles/slurm/config.yaml",
            "--directory",
            study.root,
        ]
        command += ["--slurm-status-command", "squeue", "--latency-wait", "3"]
        command += ["--slurm-init-seconds-before-status-checks", "2"]
        small = [f"{rule}:{what}" for rule in rules for what in resources]
        if partition is None:
            table = study.root / "partitions.yaml"
            table.write_text("partitions:\n  cpu: {}\n  gpu: {max_gpu: 2}\n")
            command += ["--slurm-partition-config", table]
        else:
            command += ["--default-resources", f"slurm_partition={partition}"]
        command += ["--set-resources", *small, *options]
        command += [
            "--allowed-rules",
            *rules,
            "--",
            *(goal.relative_to(study.root) for goal in goals),
        ]
        path = f"{lab.folder / 'bin'}:{Path(sys.executable).parent}:{lab.environment['PATH']}"
        with (study.root / "snakemake.out").open("wb") as out:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=study.root,
                env={**lab.environment, "PATH": path, **environment},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        return cls(lab, study, process)

    def ended(self, seconds: float = 600.0) -> int:
        """Its exit status."""
        return self.process.wait(timeout=seconds)

    @property
    def told(self) -> str:
        """What it has printed."""
        return (self.study.root / "snakemake.out").read_text(errors="replace")

    def job(self, rule: str) -> dict[str, str]:
        """The newest job of a rule."""
        mine = [
            job
            for job in self.lab.jobs()
            if job["comment"].split("_wildcards_")[0] == f"rule_{rule}"
            and self.lab.run("squeue", "-hj", job["id"], "-tall", "-o%Z").strip()
            == str(self.study.root)
        ]
        return max(mine, key=lambda job: int(job["id"])) if mine else {"id": "", "state": ""}

    def wait_for(self, wanted: str, condition: Callable[[], bool], seconds: float = 300.0) -> None:
        """Wait until `condition()`, for as long as the workflow lives."""

        def met() -> bool:
            if self.process.poll() is not None:
                raise ClusterError(f"ended before {wanted}: {self.told[-3000:]}")
            return condition()

        self.lab.wait_for(f"{wanted}; {self.told[-2000:]}", seconds, met)

    def wait_until_it_learns(self, rule: str, folder: Path, rows: int = 5) -> None:
        """Wait until the rule's job runs and has written so many rows more to its log."""
        self.wait_for(f"{rule} runs", lambda: self.job(rule)["state"] == "RUNNING")
        # What was done after the last checkpoint is cut off at the start.
        before = steps_of(folder)
        seen = [before]

        def learns() -> bool:
            seen.append(steps_of(folder))
            return seen[-1] >= min(seen) + rows

        self.wait_for(f"{rule} learns", learns)

    def wait_until_back_in_the_queue(self, rule: str) -> None:
        """Wait until Slurm has taken the job off its node."""
        self.wait_for("back in the queue", lambda: self.job(rule)["state"] == "PENDING")

    def processes(self, verb: str) -> dict[int, dict[str, str]]:
        """Those of the study's trainings that run: their environments."""
        found = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words, there = process.cmdline(), process.environ()
                # Of Python itself, not of the shell or the srun that started it.
                learns = "python" in words[0] and verb in words[:5] if words else False
                if learns and process.cwd() == str(self.study.root) and "SLURM_JOB_ID" in there:
                    found[process.pid] = there
        return found

    def start_again_now(self, rule: str) -> str:
        """Let a job that is back in the queue start: Slurm would wait for two minutes."""
        self.wait_until_back_in_the_queue(rule)
        job = self.job(rule)["id"]
        self.lab.run("scontrol", "update", f"job={job}", "StartTime=now")
        return job


class _GpuCluster(Cluster):
    """Its CPU nodes have GPUs as well, with names: a whole one and a part of one each."""

    def _write_configuration(self) -> None:
        super()._write_configuration()
        conf, gres = (self.folder / "etc" / name for name in ("slurm.conf", "gres.conf"))
        nodes = r"\1 Gres=gpu:a100:1,gpu:1g.10gb:1"
        text = re.sub(r"^(NodeName=cpu\d .*)$", nodes, conf.read_text(), flags=re.M)
        conf.write_text(
            text.replace("PartitionName=gpu Nodes=gpu1", "PartitionName=gpu Nodes=cpu[1-2]")
        )
        names = {"a100": "/dev/null", "1g.10gb": "/dev/zero"}
        lines = [f"NodeName=cpu[1-2] Name=gpu Type={name} File={at}" for name, at in names.items()]
        gres.write_text("\n".join([gres.read_text(), *lines, ""]))


@contextlib.contextmanager
def gpu_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster whose partition gpu has two nodes with an A100 each."""
    lab = _GpuCluster(folder.resolve())
    try:
        lab.start()
        yield lab
    finally:
        lab.stop()


def lose(lab: Cluster, node: str) -> None:
    """A node of which nothing is left, as after a power cut; its controller is told."""
    lost = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            there = process.environ()
            if there.get("SLURMD_NODENAME") == node and str(lab.folder) in there.get("PATH", ""):
                lost |= {process, *(one for one in process.parents() if "slurmstepd" in one.name())}
    lab.kill(node)
    for process in lost:
        with contextlib.suppress(psutil.Error):
            process.kill()
    lab.run("scontrol", "update", f"nodename={node}", "state=down", "reason=killed")


def bring_back(lab: Cluster, node: str) -> None:
    """The node is repaired."""
    lab.start_node(node)
    lab.run("scontrol", "update", f"nodename={node}", "state=resume")


def steps_of(folder: Path) -> int:
    """Rows of the logs of all trainings below a folder of checkpoints."""
    return sum(len(log.read_bytes().splitlines()) for log in folder.rglob("metrics.jsonl"))


def note_of(folder: Path) -> dict[str, int]:
    """What the training below `folder` noted when it was put back into the queue."""
    (notes,) = folder.rglob("requeued.json")
    return json.loads(notes.read_text())
