"""What a run of the workflow does about those that were killed before it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from brainlm.cluster import queue, runs
from brainlm.cluster.alive import Process, markers
from brainlm.cluster.family import descendants, end, started
from brainlm.errors import ResourceError
from brainlm.resources import share_dir

from .dead_runs import ME, ended_process, marker, wait_until

# --- the queue ---------------------------------------------------------------------------

_SQUEUE = """#!/bin/sh
sed "s/|/$(printf '\\037')/g" {folder}/queue
"""
_SCANCEL = """#!/bin/sh
for one in "$@"; do
  echo "$one" >> {folder}/cancelled
  awk -F'|' -v id="$one" '$1 != id' {folder}/queue > {folder}/left
  mv {folder}/left {folder}/queue
done
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose file `queue` is what squeue knows."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in (("squeue", _SQUEUE), ("scancel", _SCANCEL)):
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_only_jobs_of_the_dead_run_and_of_this_study_are_ended(slurm: Path, tmp_path: Path) -> None:
    study, link = tmp_path / "study", tmp_path / "link"
    (study / ".snakemake" / "locks").mkdir(parents=True)
    (study / ".snakemake" / "locks" / "0.input.lock").touch()
    link.symlink_to(study)
    lines = (
        f"1|of-the-dead|RUNNING|{study}|rule_process_batch_wildcards_0000|{ME}",
        f"2|of-the-dead|PENDING|/by/another/name|rule_select_cohort|{ME}",
        f"3_[4-7]|not-known|PENDING|{link}|rule_write_shard|{ME}",
        f"4|not-known|RUNNING|{study}|a job of the user's own|{ME}",
        f"5|not-known|RUNNING|{tmp_path}/other|rule_process_batch_wildcards_0000|{ME}",
    )
    (slurm / "queue").write_text("\n".join(lines) + "\n")
    mine = marker(executor="slurm")
    dead = marker(ended_process(), executor="slurm", slurm_name="of-the-dead")
    for one in (mine, dead):
        one.write(study)
    runs.clean_up(study, mine)
    assert (slurm / "cancelled").read_text().split() == ["--quiet", "1", "2", "3_[4-7]"]
    assert markers(study) == [mine]
    assert not list((study / ".snakemake" / "locks").iterdir())


def test_jobs_of_somebody_else_are_told_and_not_doubled(slurm: Path, tmp_path: Path) -> None:
    (slurm / "queue").write_text(f"1|of-the-dead|RUNNING|{tmp_path}|rule_x|bob\n")
    mine = marker()
    dead = marker(ended_process(), executor="slurm", slurm_name="of-the-dead", user="bob")
    for one in (mine, dead):
        one.write(tmp_path)
    with pytest.raises(ResourceError, match="A killed run of bob has left jobs"):
        runs.clean_up(tmp_path, mine)
    assert len(markers(tmp_path)) == 2 and not (slurm / "cancelled").exists()


def test_where_another_run_lives_its_jobs_and_its_lock_stay(slurm: Path, tmp_path: Path) -> None:
    lock = tmp_path / ".snakemake" / "locks" / "0.input.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    lines = (
        f"1|of-the-dead|RUNNING|{tmp_path}|rule_process_batch_wildcards_0000|{ME}",
        f"2|of-the-living|RUNNING|{tmp_path}|rule_process_batch_wildcards_0001|{ME}",
    )
    (slurm / "queue").write_text("\n".join(lines) + "\n")
    mine, living = marker(), marker(slurm_name="of-the-living", executor="slurm")
    dead = marker(ended_process(), executor="slurm", slurm_name="of-the-dead")
    for one in (mine, living, dead):
        one.write(tmp_path)
    runs.clean_up(tmp_path, mine)
    assert (slurm / "cancelled").read_text().split() == ["--quiet", "1"]
    assert lock.exists()
    assert {one.run for one in markers(tmp_path)} == {mine.run, living.run}


@pytest.mark.parametrize(
    ("user", "job", "lives"), [(ME, "19", True), (ME, "20", False), ("bob", "20", True)]
)
def test_a_run_within_a_job_lives_while_the_job_does(
    slurm: Path, tmp_path: Path, user: str, job: str, lives: bool
) -> None:
    """Job 19 is a task of array 17; of bob's jobs nothing is told here."""
    text = '#!/bin/sh\ncase "$*" in *%A*) echo 19 ;; *) echo 17_3 ;; esac\n'
    (slurm / "squeue").write_text(text)
    mine = marker()
    far = marker(replace(Process.this(), host="elsewhere"), user=user, slurm_job=job)
    for one in (mine, far):
        one.write(tmp_path)
    assert bool(runs._others(tmp_path, mine)[0]) == lives


def test_jobs_that_cannot_be_asked_about_are_not_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slurm: Path
) -> None:
    mine = marker()
    dead = marker(ended_process(), executor="slurm", slurm_name="of-the-dead")
    for one in (mine, dead):
        one.write(tmp_path)
    (slurm / "squeue").write_text("#!/bin/sh\necho no controller >&2; exit 1\n")
    with pytest.raises(ResourceError, match=r"`squeue`\): no controller"):
        runs.clean_up(tmp_path, mine)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ResourceError) as found:
        runs.clean_up(tmp_path, mine)
    assert "scancel --name of-the-dead" in str(found.value)
    assert len(markers(tmp_path)) == 2  # and the next run asks again


def test_slurm_that_does_not_answer_is_an_error(slurm: Path) -> None:
    (slurm / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(ResourceError, match="squeue did not answer within"):
        queue.ask("squeue", timeout=0.2)


# --- Snakemake itself --------------------------------------------------------------------

_SNAKEFILE = """
include: "{start}"
rule all:
    output: "done"
    shell: "touch begun; {body}; touch {{output}}"
rule other:
    output: "other"
    shell: "touch {{output}}"
"""


def _snakemake(study: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--rerun-incomplete", *arguments]
    return subprocess.Popen(
        command,
        cwd=study,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[Path]:
    """A study whose Snakemake was killed while its job slept; the job sleeps on."""
    start = share_dir() / "workflow" / "rules" / "start.smk"
    file = tmp_path / "Snakefile"
    file.write_text(_SNAKEFILE.format(start=start, body="sleep 305"))
    process = _snakemake(tmp_path)
    wait_until((tmp_path / "begun").exists, 60)
    family = descendants(process.pid)
    (tmp_path / "family").write_text(" ".join(map(str, family)))
    process.kill()
    process.wait()
    file.write_text(_SNAKEFILE.format(start=start, body="true"))
    yield tmp_path
    end(family)


def test_the_same_command_goes_on_behind_a_killed_run(killed: Path) -> None:
    family = [int(pid) for pid in (killed / "family").read_text().split()]
    assert any(map(started, family))
    assert list((killed / ".snakemake" / "locks").iterdir())
    looked = _snakemake(killed, "--dry-run")
    looked.communicate(timeout=60)
    assert any(map(started, family))  # a dry run ends nothing
    again = _snakemake(killed)
    said = again.communicate(timeout=60)[0]
    assert again.returncode == 0, said
    assert "An earlier run was killed: process " in said
    assert not any(map(started, family))
    assert (killed / "done").exists()
    assert not markers(killed)


def test_a_study_that_is_worked_on_is_left_alone_by_others(killed: Path) -> None:
    text = (killed / "Snakefile").read_text()
    (killed / "begun").unlink()
    (killed / "Snakefile").write_text(text.replace("true", "until test -e go; do sleep 0.1; done"))
    first = _snakemake(killed)
    wait_until((killed / "begun").exists, 60)
    for target in ((), ("other",)):  # of files that Snakemake's lock names, and of others
        second = _snakemake(killed, *target)
        said = second.communicate(timeout=60)[0]
        assert second.returncode != 0
        assert f"Another Snakemake works on this study: process {first.pid} of " in said, said
    assert not (killed / "other").exists()
    (killed / "go").touch()
    said = first.communicate(timeout=60)[0]
    assert first.returncode == 0, said
    assert (killed / "done").exists() and not markers(killed)
