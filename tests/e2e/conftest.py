from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from . import runner


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the end-to-end tests on one worker, so that they share the finished study."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.xdist_group("e2e"))
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small demo that ran to its end; copy it before changing anything."""
    folder = tmp_path_factory.mktemp("demo")
    command = runner.demo_command(folder)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    assert done.stdout.splitlines()[-1].endswith("reports/report.html")
    return folder


@pytest.fixture
def demo_copy(demo: Path, tmp_path: Path) -> Path:
    """A private copy of the demo, with its modification times."""
    return Path(shutil.copytree(demo, tmp_path / "demo", symlinks=True))
