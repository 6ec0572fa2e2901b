from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from . import runner


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the end-to-end tests, as slow ones if they need a demo, and give them time."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(900))
            if "demo" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small demo that ran to its end; copy it before changing anything.

    One for all workers: the first that needs it makes it, on all cores, while the others wait.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, whole = shared / "demo", shared / "demo.whole"
    with (shared / "demo.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not whole.exists():
            command = runner.demo_command(folder)
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=runner.environment()
            )
            assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
            last = done.stdout.splitlines()[-2:]
            assert last[0].endswith("reports/report.html"), last
            assert last[1].endswith("evaluation/tiny/index.html"), last
            whole.touch()
    return folder


@pytest.fixture
def demo_copy(demo: Path, tmp_path: Path) -> Path:
    """A private copy of the demo, with its modification times."""
    return Path(shutil.copytree(demo, tmp_path / "demo", symlinks=True))
