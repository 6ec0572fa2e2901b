"""What a run of the workflow does about those that were killed before it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from brainlm.cluster import queue, runs
from brainlm.cluster.alive import DEAD_AFTER_S, Heart, Marker, Process, markers
from brainlm.cluster.family import descendants, end, started
from brainlm.cluster.patience import remember_jobs, wait_for_controller
from brainlm.errors import InputError, ResourceError
from brainlm.resources import share_dir

_ME = queue.me()


def _marker(process: Process | None = None, **fields: str | None) -> Marker:
    known = {"user": _ME, "since": "then", "executor": "local", **fields}
    return Marker(process=process or Process.this(), **known)


def _dead() -> Process:
    """A process that was there."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    return dataclasses.replace(Process.this(), pid=ended.pid)


def _wait(condition: Callable[[], object], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


# --- who lives ---------------------------------------------------------------------------


def test_a_process_is_known_by_more_than_its_number() -> None:
    mine = Process.this()
    assert mine.is_of_this_machine and mine.lives
    assert not dataclasses.replace(mine, started="1").lives  # another one had this number
    assert not dataclasses.replace(mine, boot="before the power cut").lives
    assert not _dead().lives
    before = dataclasses.replace(mine, boot="before the power cut", namespace="any")
    assert before.is_of_this_machine
    assert not dataclasses.replace(mine, host="elsewhere").is_of_this_machine
    assert not dataclasses.replace(mine, namespace="of a container").is_of_this_machine


def test_a_run_on_another_machine_is_dead_when_it_gives_no_sign_of_life(tmp_path: Path) -> None:
    mine = _marker()
    far = _marker(dataclasses.replace(Process.this(), host="elsewhere"))
    for one in (mine, far):
        one.write(tmp_path)
    assert runs._others(tmp_path, mine) == ([far], [])
    long_ago = time.time() - DEAD_AFTER_S - 5
    os.utime(far.path(tmp_path), (long_ago, long_ago))
    assert runs._others(tmp_path, mine) == ([], [far])


def test_a_marker_that_cannot_be_read_is_told_and_one_being_written_is_not_looked_at(
    tmp_path: Path,
) -> None:
    mine = _marker()
    mine.write(tmp_path)
    folder = mine.path(tmp_path).parent
    (folder / ".tmp-host-1-x.json").write_text("{")
    assert markers(tmp_path) == [mine]
    (folder / "x.json").write_text(json.dumps({"pid": 1}))
    with pytest.raises(InputError, match="does not say which run"):
        markers(tmp_path)


def test_a_heart_beats_until_another_run_takes_its_place(tmp_path: Path) -> None:
    path, told = tmp_path / "marker", threading.Event()
    path.touch()
    os.utime(path, (0, 0))
    heart = Heart(path, told.set, beat_s=0.02)
    _wait(lambda: path.stat().st_mtime > 0)
    path.unlink()
    assert told.wait(20)
    path.touch()
    quiet = threading.Event()
    Heart(path, quiet.set, beat_s=0.02).stop()
    path.unlink()
    assert not quiet.wait(0.2)
    heart.stop()


# --- ending processes --------------------------------------------------------------------


def test_a_family_is_ended_with_those_that_do_not_obey() -> None:
    stubborn = "trap '' TERM; sleep 301 & sleep 300 & wait; wait; wait"
    head = subprocess.Popen(["sh", "-c", f"sh -c \"{stubborn}\" & sh -c 'sleep 302; true'"])
    _wait(lambda: len(descendants(head.pid)) >= 5)
    family = [head.pid, *descendants(head.pid)]
    end(family, grace_s=0.5)
    head.wait()
    assert [started(pid) for pid in family] == [None] * len(family)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_batch_that_is_told_to_end_takes_its_workflow_along(number: int) -> None:
    code = (
        "from brainlm.cluster.family import run_with_family\n"
        "from brainlm.errors import BrainLMError\n"
        "try: run_with_family(['sh', '-c', 'sleep 304 & sleep 303; true'])\n"
        "except BrainLMError as error: print(error)"
    )
    batch = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    _wait(lambda: len(descendants(batch.pid)) == 3)
    family = descendants(batch.pid)
    batch.send_signal(number)
    said = batch.communicate(timeout=20)[0]
    assert f"stopped by {signal.Signals(number).name}" in said
    assert not any(map(started, family))


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
        f"1|of-the-dead|RUNNING|{study}|rule_process_batch_wildcards_0000|{_ME}",
        f"2|of-the-dead|PENDING|/by/another/name|rule_select_cohort|{_ME}",
        f"3_[4-7]|not-known|PENDING|{link}|rule_write_shard|{_ME}",
        f"4|not-known|RUNNING|{study}|a job of the user's own|{_ME}",
        f"5|not-known|RUNNING|{tmp_path}/other|rule_process_batch_wildcards_0000|{_ME}",
    )
    (slurm / "queue").write_text("\n".join(lines) + "\n")
    mine = _marker(executor="slurm")
    dead = _marker(_dead(), executor="slurm", slurm_name="of-the-dead")
    for one in (mine, dead):
        one.write(study)
    runs.clean_up(study, mine)
    assert (slurm / "cancelled").read_text().split() == ["--quiet", "1", "2", "3_[4-7]"]
    assert markers(study) == [mine]
    assert not list((study / ".snakemake" / "locks").iterdir())


def test_jobs_of_somebody_else_are_told_and_not_doubled(slurm: Path, tmp_path: Path) -> None:
    (slurm / "queue").write_text(f"1|of-the-dead|RUNNING|{tmp_path}|rule_x|bob\n")
    mine = _marker()
    dead = _marker(_dead(), executor="slurm", slurm_name="of-the-dead", user="bob")
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
        f"1|of-the-dead|RUNNING|{tmp_path}|rule_process_batch_wildcards_0000|{_ME}",
        f"2|of-the-living|RUNNING|{tmp_path}|rule_process_batch_wildcards_0001|{_ME}",
    )
    (slurm / "queue").write_text("\n".join(lines) + "\n")
    mine, living = _marker(), _marker(slurm_name="of-the-living", executor="slurm")
    dead = _marker(_dead(), executor="slurm", slurm_name="of-the-dead")
    for one in (mine, living, dead):
        one.write(tmp_path)
    runs.clean_up(tmp_path, mine)
    assert (slurm / "cancelled").read_text().split() == ["--quiet", "1"]
    assert lock.exists()
    assert {one.run for one in markers(tmp_path)} == {mine.run, living.run}


def test_jobs_that_cannot_be_asked_about_are_not_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slurm: Path
) -> None:
    mine = _marker()
    dead = _marker(_dead(), executor="slurm", slurm_name="of-the-dead")
    for one in (mine, dead):
        one.write(tmp_path)
    (slurm / "squeue").write_text("#!/bin/sh\necho no controller >&2; exit 1\n")
    with pytest.raises(ResourceError, match=r"squeue.*failed: no controller"):
        runs.clean_up(tmp_path, mine)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ResourceError) as found:
        runs.clean_up(tmp_path, mine)
    assert "scancel --name of-the-dead" in str(found.value)
    assert len(markers(tmp_path)) == 2  # and the next run asks again


def test_slurm_that_does_not_answer_is_an_error(slurm: Path) -> None:
    (slurm / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(ResourceError, match=re.escape("did not answer `squeue` within 0.2 s")):
        queue.ask("squeue", timeout=0.2)


def test_jobs_wait_for_the_controller_and_are_not_submitted_after_an_end(slurm: Path) -> None:
    ping = slurm / "scontrol"

    def say(state: str) -> None:
        new = slurm / "new"
        new.write_text(f"#!/bin/sh\necho 'Slurmctld(primary) at login is {state}'\n")
        new.chmod(0o755)
        new.rename(ping)

    submitted: list[str] = []
    cancelled: list[str] = []
    executor = SimpleNamespace(
        run_job=submitted.append,
        run_array_jobs=submitted.append,
        cancel=lambda: cancelled.append("all"),
    )
    say("UP")
    wait_for_controller(executor, pause_s=0.02)
    executor.run_job("a")
    say("DOWN")
    thread = threading.Thread(target=executor.run_array_jobs, args=("b",))
    thread.start()
    time.sleep(0.3)
    assert submitted == ["a"]
    say("UP")
    thread.join(20)
    assert submitted == ["a", "b"]
    say("DOWN")
    thread = threading.Thread(target=executor.run_job, args=("c",))
    thread.start()
    executor.cancel()
    thread.join(20)
    say("UP")
    executor.run_job("d")
    assert submitted == ["a", "b"] and cancelled == ["all"]


def test_jobs_that_slurm_does_not_tell_of_are_asked_about_again() -> None:
    """As the executor does: of what it knows it reports the ended ones and yields the others."""
    known: dict[str, bool] = {}
    jobs = [SimpleNamespace(name=name) for name in "abc"]
    ended: list[str] = []

    async def check(active: list[SimpleNamespace]) -> AsyncIterator[SimpleNamespace]:
        for job in active:
            if known.get(job.name):
                executor.report_job_success(job)
            elif job.name in known:
                yield job

    executor = SimpleNamespace(
        check_active_jobs=check,
        report_job_success=lambda job: ended.append(job.name),
        report_job_error=lambda job, msg: ended.append(msg),
    )
    remember_jobs(executor)

    async def left() -> str:
        return "".join([job.name async for job in executor.check_active_jobs(jobs)])

    assert asyncio.run(left()) == "abc"
    known.update(b=True, c=False)
    assert asyncio.run(left()) == "ca"
    assert ended == ["b"]
    jobs.pop(1)
    assert asyncio.run(left()) == "ca"


# --- Snakemake itself --------------------------------------------------------------------

_SNAKEFILE = """
include: "{start}"
rule all:
    output: "done"
    shell: "touch begun; {body}; touch {{output}}"
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
    _wait((tmp_path / "begun").exists, 60)
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
    _wait((killed / "begun").exists, 60)
    second = _snakemake(killed)
    said = second.communicate(timeout=60)[0]
    assert second.returncode != 0
    assert f"Another Snakemake works on this study: process {first.pid} of " in said, said
    (killed / "go").touch()
    said = first.communicate(timeout=60)[0]
    assert first.returncode == 0, said
    assert (killed / "done").exists() and not markers(killed)
