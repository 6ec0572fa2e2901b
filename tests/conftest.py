"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from .order import files_in_turn, long_ones_first

# Before any test loads numpy or torch, which read it once. There is a worker on each core, and
# the networks of tests are so small that threads do little but wait for one another: with two,
# some tests take thirty times the CPU.
for _name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

# How long one example takes depends on what else the machine does.
settings.register_profile("anywhere", deadline=None)
settings.load_profile("anywhere")

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real test data (atlas, fMRI, fixtures), which is not in the repository."""
    if not _SHARED.is_dir():
        pytest.skip(f"the real test data is not on this machine ({_SHARED})")
    return _SHARED


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests longer than the others before they count as hanging, and begin with them."""
    for item in items:
        slow = any(item.get_closest_marker(name) for name in ("slow", "nightly"))
        if slow and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(900))
    long_ones_first(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object | None:
    """With `-n`, whole files for each worker, unless another `--dist` is asked for."""
    if config.getoption("dist") != "load":
        return None
    return files_in_turn(config, log)
