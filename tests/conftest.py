"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

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
