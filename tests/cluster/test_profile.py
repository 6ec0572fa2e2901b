"""`snakemake --profile slurm`, word for word, on a real cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ..e2e import runner
from .slurm import Cluster

#: Nobody waits in this cluster's queue.
_QUICK = ("--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "3")
_SIZE = (
    "--subjects",
    5,
    "--two-runs",
    0,
    "--two-sessions",
    0,
    "--volumes",
    60,
    "--voxel-mm",
    5,
    "--t1w-mm",
    3,
)
_SETTINGS = (
    "atlas.name=A424approx",
    "space.template=MNI152NLin2009aSym",
    "eligibility.min_volumes=50",
    "normalize.transform=affine",
    "denoise.method=motion24",
    "space.resolution_mm=5",
    "split.train=0.5",
    "split.val=0.2",
    "split.salt=demo-8",
    "quality.max_mean_fd_mm=1.0",
    "model.overrides={timepoints: 40, hidden: 16, heads: 2, mlp: 32, decoder_hidden: 16}",
    "pretrain.epochs=2",
    "pretrain.device=cpu",
    "evaluate.bootstrap=100",
    "evaluate.tasks=[reconstruction]",  # each task is a job, whose start costs more than its work
)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BIDS dataset of five subjects."""
    bids = tmp_path_factory.mktemp("phantom") / "bids"
    made = runner.brainlm("phantom", bids, *_SIZE, "--atlas", "A424approx")
    assert made.returncode == 0, made.stderr
    return bids


def test_the_phantom_cohort_comes_through_to_its_report(
    lab: Cluster, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And batches of three end with the same parcels, to the bit, as on one machine.

    The profile is as onboarding on the cluster fills it in.
    """
    studies = {name: tmp_path / name for name in ("cluster", "local")}
    runner.onboard(phantom, studies["local"], *_SETTINGS)
    with monkeypatch.context() as on_cluster:
        on_cluster.setenv("PATH", lab.environment["PATH"])
        told = runner.onboard(phantom, studies["cluster"], *_SETTINGS)
    assert "CPU jobs to partition cpu, GPU jobs to gpu" in told
    batches = ("--config", "jobs={recordings_per_job: 3, cores_per_job: 2}")
    command = ["snakemake", "--profile", "slurm", *_QUICK, *batches]
    environment = lab.environment
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment["PATH"] = f"{lab.folder / 'bin'}:{environment['PATH']}"
    done = subprocess.run(
        command,
        cwd=studies["cluster"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    own = [job for job in lab.jobs() if Path(job["folder"]) == studies["cluster"]]
    ended = [job["state"] for job in own if job["comment"].startswith("rule_process_batch")]
    assert ended == ["COMPLETED", "COMPLETED"]
    assert (studies["cluster"] / "reports" / "report.html").exists()

    parcels = sorted((studies["cluster"] / "derivatives").rglob("*_timeseries.parquet"))
    assert len(parcels) == 5
    of_each_batch = [path.relative_to(studies["cluster"]) for path in (parcels[0], parcels[-1])]
    local = runner.snakemake(studies["local"], *map(str, of_each_batch))
    assert local.returncode == 0, local.stderr[-5000:]
    for path in of_each_batch:
        assert (studies["cluster"] / path).read_bytes() == (studies["local"] / path).read_bytes()
    again = subprocess.run(
        [*command, "--dry-run"], cwd=studies["cluster"], env=environment, capture_output=True
    )
    assert b"Nothing to be done" in again.stdout + again.stderr
