from __future__ import annotations

import shutil
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
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom BIDS dataset; never write into it."""
    folder = tmp_path_factory.mktemp("phantom") / "bids"
    runner.make_phantom(folder)
    return folder


@pytest.fixture(scope="session")
def onboarded(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that is set up and has run nothing; copy it before use."""
    study = tmp_path_factory.mktemp("onboarded") / "study"
    runner.onboard(phantom, study)
    return study


@pytest.fixture(scope="session")
def finished(onboarded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that ran to its end; copy it before changing anything."""
    study = tmp_path_factory.mktemp("finished") / "study"
    shutil.copytree(onboarded, study, symlinks=True)
    done = runner.snakemake(study)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return study


@pytest.fixture
def finished_copy(finished: Path, tmp_path: Path) -> Path:
    """A private copy of the finished study, with its modification times."""
    study = tmp_path / "study"
    shutil.copytree(finished, study, symlinks=True)
    return study
