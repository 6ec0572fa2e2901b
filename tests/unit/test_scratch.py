"""Large arrays: in memory within a bound, else in a nameless file, and the same values."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from brainlm.errors import ResourceError
from brainlm.images import write_image
from brainlm.scratch import BASE_GB, make_array
from brainlm.series import read_bold

LIMITED = """
import resource, sys
import numpy as np
from brainlm.scratch import make_array
limit = 300_000_000
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
bound = float(sys.argv[1]) if len(sys.argv) > 1 else None
array = make_array((100, 1_000_000), np.float32, bound)
array[:] = 1
print(float(array[::9].sum(dtype=float)))
"""


def test_arrays_within_the_bound_are_in_memory() -> None:
    for bound in (None, BASE_GB + 0.001):
        array = make_array((10, 1000), np.float32, bound)
        assert type(array) is np.ndarray
        assert array.shape == (10, 1000) and array.flags.c_contiguous


def test_arrays_beyond_the_bound_leave_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    array = make_array((10, 1000), np.int16, BASE_GB, order="F")
    assert isinstance(array, np.memmap)
    assert array.shape == (10, 1000) and array.flags.f_contiguous
    array[3] = 7
    assert array[3].sum() == 7000
    assert not list(tmp_path.iterdir())


def test_a_process_that_may_not_have_the_memory_can_still_do_it() -> None:
    """400 MB where the system grants 300 MB of data: only a scratch file can hold it."""
    call = [sys.executable, "-c", LIMITED]
    refused = subprocess.run(call, capture_output=True, text=True)
    assert refused.returncode != 0 and "MemoryError" in refused.stderr
    done = subprocess.run([*call, "0.8"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == 12_000_000


def test_full_scratch_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ResourceError, match="No space left") as caught:
        make_array((10, 1000), np.float32, BASE_GB)
    assert "TMPDIR" in str(caught.value)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64])
def test_runs_are_held_as_stored_and_read_the_same(tmp_path: Path, dtype: type) -> None:
    values = np.random.default_rng(0).integers(0, 200, (5, 6, 7, 8)).astype(dtype)
    write_image(tmp_path / "x.nii.gz", values, np.eye(4), tr=2.0)
    roomy, tight = read_bold(tmp_path / "x.nii.gz"), read_bold(tmp_path / "x.nii.gz", BASE_GB)
    assert roomy.stored.dtype == (np.float32 if dtype is np.float64 else dtype)
    assert isinstance(tight.stored, np.memmap) and not isinstance(roomy.stored, np.memmap)
    for held in (roomy, tight):
        np.testing.assert_array_equal(held.data, values.astype(np.float32))
        assert held.volume(3).dtype == np.float32
