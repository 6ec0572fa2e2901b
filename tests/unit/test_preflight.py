"""What is refused before a run on Slurm, by a Slurm that is played."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from brainlm.cluster import admission, preflight
from brainlm.cluster.admission import Following, Request, problems, raise_all
from brainlm.cluster.ask import Answer
from brainlm.cluster.site import Partition, Site
from brainlm.errors import BrainLMError, InputError, ResourceError

_SITE = Site(
    "uni",
    (
        Partition("cpu", default=True, max_minutes=2880, nodes=9),
        Partition("gpu", accounts=("neuro",), max_minutes=1440, nodes=2, gpu_nodes=2, gpus=8),
        Partition("closed", usable=False),
    ),
    accounts=("lab", "neuro"),
    min_job_age_s=300,
)
_BY_SACCT = Following("sacct", 20)


class Slurm:
    """Answers that a test gives, and the questions that were asked."""

    def __init__(self) -> None:
        self.says: dict[str, Answer] = {}
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, *command: str) -> Answer:
        self.asked.append(command)
        return self.says.get(command[0], Answer(True, "", ""))


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Slurm:
    """A Slurm that takes every job, on a machine that has `sacct`."""
    played = Slurm()
    monkeypatch.setattr(admission, "answer", played)
    (tmp_path / "sacct").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return played


def told(site: Site = _SITE, following: Following = _BY_SACCT, **asked: Any) -> list[str]:
    return [str(one) for one in problems(site, following, [Request("motion", **asked)])]


def test_what_is_right_is_let_through(slurm: Slurm) -> None:
    requests = [Request(name, minutes=60, options=("--mem=9",)) for name in ("a", "b")]
    assert problems(_SITE, _BY_SACCT, requests) == []
    # Jobs that ask for the same are asked about once.
    assert slurm.asked == [("sbatch", "--test-only", "--time=60", "--mem=9", "--wrap", "true")]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"minutes": 2881}, "motion asks for 2881 minutes, but partition cpu gives 2880"),
        ({"minutes": 2000, "last_minutes": 6000}, "when tried again 6000, but partition cpu"),
        ({"gpus": 1}, "asks for 1 GPUs, and partition cpu has no GPUs; partitions with GPUs: gpu"),
        ({"partition": "gpu", "account": "neuro", "gpus": 9}, "partition gpu has 8 GPUs"),
        ({"partition": "gpu"}, "Partition gpu takes no jobs of account lab"),
        ({"partition": "gpu", "account": "lab"}, "slurm_account: neuro below"),
        ({"partition": "closed"}, "Partition closed is closed, or not for"),
        ({"account": "theirs"}, "Account theirs is not among yours"),
    ],
)
def test_what_would_wait_for_ever_is_refused(
    slurm: Slurm, asked: dict[str, Any], expected: str
) -> None:
    (problem,) = told(**asked)
    assert expected in problem
    assert "file: slurm/config.yaml" in problem
    assert "fix:" in problem


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("allocation failure: Invalid account or account/partition combination", "(lab, neuro)"),
        ("sbatch: error: invalid partition specified: x", "slurm_partition below"),
        ("allocation failure: Invalid qos specification", "qos below set-resources"),
        ("allocation failure: Requested node configuration is not available", "larger nodes"),
    ],
)
def test_what_slurm_refuses_is_told_with_what_helps(slurm: Slurm, said: str, fix: str) -> None:
    slurm.says["sbatch"] = Answer(False, "", said)
    (problem,) = told(minutes=5, options=("--mem=9",))
    assert (
        f"Slurm refuses rule motion, which asks for --time=5 --mem=9: {said[-9:]}"[:60] in problem
    )
    assert "allocation failure" not in problem and "sbatch: error" not in problem
    assert fix in problem


def test_gpus_of_a_name_that_no_node_has(slurm: Slurm) -> None:
    slurm.says["sbatch"] = Answer(False, "", "Requested node configuration is not available")
    (problem,) = told(minutes=5, options=("--gpus=a100:1",))
    assert "as `sinfo -o %G` calls the GPUs" in problem


def test_what_passes_is_no_reason_to_refuse(slurm: Slurm) -> None:
    slurm.says["sbatch"] = Answer(False, "", "Nodes required for job are DOWN, DRAINED or reserved")
    assert told() == []
    slurm.says["sbatch"] = Answer(False, "", "Unable to contact slurm controller (connect failure)")
    (problem,) = problems(_SITE, _BY_SACCT, [Request("motion")])
    assert isinstance(problem, ResourceError)


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize(
    ("command", "books", "age", "expected"),
    [
        # (refused where sacct is installed, refused where it is not)
        ("sacct", True, 300, (None, None)),
        ("sacct", False, 300, ("status-command: squeue", None)),
        ("squeue", False, 300, (None, None)),
        ("squeue", False, 100, ("MinJobAge=300", "MinJobAge=300")),
        ("squeue", False, None, ("MinJobAge=300", "MinJobAge=300")),
        ("squeue", True, 100, ("status-command: sacct", "status-command: sacct")),
        ("squeue", True, 30, (None, "MinJobAge")),  # the plugin itself takes sacct
    ],
)
def test_how_jobs_are_followed(
    slurm: Slurm,
    tmp_path: Path,
    installed: bool,
    command: str,
    books: bool,
    age: int | None,
    expected: tuple[str | None, str | None],
) -> None:
    if not installed:
        (tmp_path / "sacct").unlink()
        books = False if command == "squeue" and age == 30 else books
    why = None if books else "this cluster keeps no accounting"
    site = Site("uni", _SITE.partitions, (), why, age)
    problem = admission.following_problem(site, Following(command, 20))
    wanted = expected[0 if installed else 1]
    assert (problem is None) if wanted is None else wanted in str(problem)


@pytest.mark.parametrize("command", ["sacct", "squeue"])
def test_array_jobs_are_refused(slurm: Slurm, command: str) -> None:
    (problem,) = told(_SITE, Following(command, 20, array_jobs="process_batch"))
    assert "the first task's files" in problem


def test_an_account_where_sacctmgr_does_not_answer(slurm: Slurm) -> None:
    """The plugin would refuse every job, although Slurm takes them."""
    slurm.says["sacctmgr"] = Answer(False, "", "sacctmgr is not installed")
    site = Site("uni", _SITE.partitions[:1], (), None, 300)
    (problem,) = told(site, account="lab")
    assert "export SBATCH_ACCOUNT=lab" in problem


def test_several_reasons_are_one_error(slurm: Slurm) -> None:
    raise_all([])
    with pytest.raises(InputError, match=r"^first$"):
        raise_all([InputError("first")])
    both: list[BrainLMError] = [InputError("first"), InputError("second", fix="this")]
    with pytest.raises(InputError, match=r"2 reasons:\n1\. first\n2\. second\n  fix:  this"):
        raise_all(both)
    # A reason that many jobs share is told once.
    gpu = [Request("embed", gpus=1), Request("embed", gpus=1, options=("--mem=1",))]
    assert len(problems(_SITE, _BY_SACCT, gpu)) == 1


class Job:
    """A job of Snakemake, as far as it is looked at."""

    is_local = False
    threads = 4
    restart_times = 2
    wildcards_dict: dict[str, str] = {}  # noqa: RUF012
    input = ()

    def __init__(self, name: str, **resources: Any) -> None:
        self.name, self.resources = name, resources
        self.rule = self

    def expand_resources(self, wildcards: Any, files: Any, attempt: int) -> dict[str, Any]:
        return {"runtime": self.resources.get("runtime", 0) * attempt}


def test_of_each_rule_the_longest_and_the_largest_job_are_asked_about() -> None:
    jobs = [
        Job("batch", runtime=10, mem_mb=1),
        Job("batch", runtime=30, mem_mb=2),
        Job("batch", runtime=20, mem_mb=3),
        Job("report", runtime=5, mem_mb=1),
        local := Job("audit"),
    ]
    local.is_local = True
    found = list(preflight.requests(jobs, lambda job: "cpu"))
    assert [(one.rule, one.minutes, one.options[0]) for one in found] == [
        ("batch", 30, "--mem=2"),
        ("batch", 20, "--mem=3"),
        ("report", 5, "--mem=1"),
    ]
    assert found[0].last_minutes == 90
    assert found[0].partition == "cpu"


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"mem_mb": 5}, ["--mem=5", "--cpus-per-task=4"]),
        ({"mem_mb": 5, "mem_mb_per_cpu": 2}, ["--mem-per-cpu=2", "--cpus-per-task=4"]),
        ({"gpu": 2, "cpus_per_gpu": 8}, ["--gpus=2", "--cpus-per-gpu=8"]),
        ({"gpu": 2, "gpu_model": "a100"}, ["--gpus=a100:2", "--cpus-per-task=4"]),
        (
            {"gpu": 0, "gres": "gpu:1", "cpus_per_gpu": 8, "constraint": "x", "qos": "q"},
            ["--gres=gpu:1", "--constraint=x", "--qos=q", "--cpus-per-gpu=8"],
        ),
        ({"gpu": 0, "cpus_per_gpu": 8, "nodes": 2}, ["--nodes=2", "--cpus-per-task=4"]),
        ({"cpus_per_task": 3}, ["--cpus-per-task=3"]),
    ],
)
def test_a_job_is_asked_about_as_the_plugin_submits_it(
    resources: dict[str, Any], expected: list[str]
) -> None:
    """Compared with the plugin's own command line, so that neither changes alone."""
    from snakemake_executor_plugin_slurm.submit_string import get_submit_command
    from snakemake_executor_plugin_slurm.utils import set_gres_string

    class Named(dict[str, Any]):
        __getattr__ = dict.__getitem__

    job = Job("rule")
    job.resources = Named(resources)
    asked = preflight.request(job, "")
    assert list(asked.options) == expected
    assert asked.gpus == (resources.get("gpu") or int("gres" in resources))
    given = {"run_uuid": "x", "slurm_logfile": "x", "comment_str": "x", "workdir": ""}
    call = get_submit_command(job, {**given, "account": "", "partition": ""}) + set_gres_string(job)
    for option in expected:
        name, value = option.replace("--constraint", "-C").split("=")
        assert f"{name}={value}" in call or f"{name} {value}" in call


def test_many_jobs_without_batches_are_told() -> None:
    """`--config seed=3` on the command line takes the profile's batches away, silently."""
    assert "--config" in str(preflight.without_batches(770_000, {"seed": 3}))
    assert preflight.without_batches(770_000, {"jobs": {"recordings_per_job": 25}}) is None
    assert preflight.without_batches(100, {}) is None


def test_what_the_profile_says_of_all_jobs_is_asked_about_too() -> None:
    """Where a site demands a QOS, a job without it would be refused that Slurm takes."""
    from snakemake_executor_plugin_slurm import ExecutorSettings

    further = preflight._of_all_jobs(ExecutorSettings(qos="long", reservation="course"))
    job = Job("rule", slurm_extra="--signal=USR1@300 --comment='a b'", slurm_account="one, two")
    (found,) = preflight.requests([job], lambda job: "", further)
    assert found.options[-4:] == (
        *("--qos=long", "--reservation=course", "--signal=USR1@300", "--comment=a b"),
    )
    assert found.account == "one"  # as the plugin does
    assert preflight._of_all_jobs(ExecutorSettings()) == ()


def test_memory_that_is_not_known_yet_is_not_asked_about() -> None:
    from snakemake.common.tbdstring import TBDString

    assert "--mem" not in str(preflight.request(Job("rule", mem_mb=TBDString()), "").options)


def test_another_executor_is_not_looked_at() -> None:
    preflight.check(SimpleNamespace(executor_settings=None))


def test_a_slurm_that_is_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from snakemake_executor_plugin_slurm import ExecutorSettings

    workflow = SimpleNamespace(executor_settings=ExecutorSettings(status_command="squeue"))
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, text in {"sbatch": "exit 0", "sinfo": "echo nobody there >&2; exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(ResourceError, match="does not answer: nobody there"):
        preflight.check(workflow)


def test_a_stand_in_says_that_there_is_no_sacct(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    preflight.stand_in_for_sacct()
    done = subprocess.run(["sacct"], capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, done.stderr) == (1, "sacct is not installed on this machine\n")
