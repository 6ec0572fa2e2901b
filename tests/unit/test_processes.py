"""Which processes live, ending them with their families, and waiting for Slurm's controller."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from brainlm.cluster import runs
from brainlm.cluster.alive import DEAD_AFTER_S, Heart, Process, markers
from brainlm.cluster.family import descendants, end, started
from brainlm.cluster.patience import be_patient, remember_jobs, wait_for_controller
from brainlm.errors import InputError

from .dead_runs import ended_process, marker, wait_until

# --- who lives ---------------------------------------------------------------------------


def test_a_process_is_known_by_more_than_its_number() -> None:
    mine = Process.this()
    assert mine.is_of_this_machine and mine.lives
    assert not dataclasses.replace(mine, started="1").lives  # another one had this number
    assert not dataclasses.replace(mine, boot="before the power cut").lives
    assert not ended_process().lives
    before = dataclasses.replace(mine, boot="before the power cut", namespace="any")
    assert before.is_of_this_machine
    assert not dataclasses.replace(mine, host="elsewhere").is_of_this_machine
    assert not dataclasses.replace(mine, namespace="of a container").is_of_this_machine


def test_a_run_on_another_machine_is_dead_when_it_gives_no_sign_of_life(tmp_path: Path) -> None:
    mine = marker()
    far = marker(dataclasses.replace(Process.this(), host="elsewhere"))
    for one in (mine, far):
        one.write(tmp_path)
    assert runs._others(tmp_path, mine) == ([far], [])
    long_ago = time.time() - DEAD_AFTER_S - 5
    os.utime(far.path(tmp_path), (long_ago, long_ago))
    assert runs._others(tmp_path, mine) == ([], [far])


def test_a_colleagues_run_whose_process_is_hidden_is_known_by_its_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Login nodes often show to each user only processes of that user (hidepid=2)."""

    def not_yours(pid: int, number: int) -> None:
        raise PermissionError

    mine, theirs = marker(), marker(ended_process())
    for one in (mine, theirs):
        one.write(tmp_path)
    assert runs._others(tmp_path, mine) == ([], [theirs])
    monkeypatch.setattr(os, "kill", not_yours)
    assert runs._others(tmp_path, mine) == ([theirs], [])
    long_ago = time.time() - DEAD_AFTER_S - 5
    os.utime(theirs.path(tmp_path), (long_ago, long_ago))
    assert runs._others(tmp_path, mine) == ([], [theirs])


def test_a_run_whose_slurm_job_was_put_back_is_not_in_its_own_way(tmp_path: Path) -> None:
    """Snakemake by `sbatch`: after its node is lost, the same job runs on another one."""
    mine = marker(slurm_job="7")
    lost = marker(dataclasses.replace(Process.this(), host="lost"), slurm_job="7")
    for one in (mine, lost):
        one.write(tmp_path)
    assert runs._others(tmp_path, mine) == ([], [lost])


def test_a_marker_that_cannot_be_read_is_told_and_one_being_written_is_not_looked_at(
    tmp_path: Path,
) -> None:
    mine = marker()
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
    wait_until(lambda: path.stat().st_mtime > 0)
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
    wait_until(lambda: len(descendants(head.pid)) >= 5)
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
    wait_until(lambda: len(descendants(batch.pid)) == 3)
    family = descendants(batch.pid)
    batch.send_signal(number)
    said = batch.communicate(timeout=20)[0]
    assert f"stopped by {signal.Signals(number).name}" in said
    assert not any(map(started, family))


# --- patience ---


def test_jobs_wait_for_the_controller_and_are_not_submitted_after_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    ping = tmp_path / "scontrol"

    def say(state: str) -> None:
        new = tmp_path / "new"
        new.write_text(f"#!/bin/sh\necho 'Slurmctld(primary) at login is {state}'\n")
        new.chmod(0o755)
        new.rename(ping)

    submitted: list[str] = []
    cancelled: list[str] = []
    executor = SimpleNamespace(
        run_job=submitted.append,
        cancel=lambda: cancelled.append("all"),
    )
    say("UP")
    wait_for_controller(executor, pause_s=0.02)
    executor.run_job("a")
    say("DOWN")
    thread = threading.Thread(target=executor.run_job, args=("b",))
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


def test_an_executor_of_another_version_goes_on_without_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warned: list[str] = []
    monkeypatch.setattr("brainlm.cluster.patience.logger.warning", warned.append)
    submit, cancel = print, repr
    executor = SimpleNamespace(run_job=submit, cancel=cancel)
    be_patient(executor)
    assert "check_active_jobs" in "".join(warned) and len(warned) == 1
    executor = SimpleNamespace(report_job_success=submit, check_active_jobs=cancel, cancel=cancel)
    be_patient(executor)  # nothing is replaced by half
    assert vars(executor) == {
        "report_job_success": submit,
        "check_active_jobs": cancel,
        "cancel": cancel,
    }


def test_what_is_replaced_is_there_in_the_plugin() -> None:
    """And called by it through the executor: else it is replaced in vain."""
    import inspect

    import snakemake_executor_plugin_slurm as plugin
    from snakemake.scheduling import job_scheduler
    from snakemake_interface_executor_plugins.executors import remote

    text = "".join(map(inspect.getsource, (plugin, remote, job_scheduler)))
    for called in (
        "submit(self.run_job, job)",
        "self.check_active_jobs(active_jobs)",
        "self.report_job_success(",
        "self.report_job_error(",
        "self._executor.cancel()",
        "self.run_uuid = ",
    ):
        assert called in text, called


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
