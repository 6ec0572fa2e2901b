"""Runs of the workflow that have ended, and such that live."""

from __future__ import annotations

import dataclasses
import subprocess
import time
from collections.abc import Callable

from brainlm.cluster import queue
from brainlm.cluster.alive import Marker, Process

ME = queue.me()


def marker(process: Process | None = None, **fields: str | None) -> Marker:
    known = {"user": ME, "since": "then", "executor": "local", **fields}
    return Marker(process=process or Process.this(), **known)


def ended_process() -> Process:
    """A process that was there."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    return dataclasses.replace(Process.this(), pid=ended.pid)


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
