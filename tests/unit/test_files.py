from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brainlm.errors import InputError, ResourceError
from brainlm.files import atomic_path, exclusive, read_json, whole_folder, write_json


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "result.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["result.txt"]


def test_the_temporary_name_keeps_the_extension_and_folder(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "new" / "x.nii.gz") as temporary:
        assert temporary.parent == tmp_path / "new"
        assert temporary.name.endswith("x.nii.gz")
        assert not (tmp_path / "new" / "x.nii.gz").exists()
        temporary.write_bytes(b"1")
    assert (tmp_path / "new" / "x.nii.gz").read_bytes() == b"1"


def test_the_bytes_are_on_the_disk_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renamed first, a crash of the machine could leave a whole name on an empty file."""
    target, synced = tmp_path / "x.txt", []

    def note(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, target.exists()))

    monkeypatch.setattr(os, "fsync", note)
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
        inode = temporary.stat().st_ino
    assert synced == [(inode, False), (tmp_path.stat().st_ino, True)]


def test_a_killed_writer_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from brainlm.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path:\n"
        "    path.write_text('half')\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    target = tmp_path / "result.txt"
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert not target.exists()
    assert len(list(tmp_path.iterdir())) == 1  # the temporary
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["result.txt"]


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="No space") as caught, atomic_path(tmp_path / "x"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.file == str(tmp_path / "x")
    assert caught.value.exit_code == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="No space"), atomic_path(tmp_path / "x"):
        Path("/dev/full").write_bytes(b"0" * 100_000)


def test_json_bytes_do_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5, None]})
    write_json(tmp_path / "b.json", {"a": [1.5, None], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"a": [1.5, None], "b": 1}


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_exclusive_is_refused_while_held_and_free_after_a_kill(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from brainlm.files import exclusive\n"
        "with exclusive(Path(sys.argv[1]), what='x'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    lock = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(InputError, match="busy"), exclusive(lock, what="busy"):
        pass
    holder.kill()
    holder.wait()
    time.sleep(0.05)
    with exclusive(lock, what="busy"):
        pass


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder"
    with pytest.raises(RuntimeError), whole_folder(target) as folder:
        (folder / "half").write_text("half")
        raise RuntimeError
    assert list((tmp_path / "new").iterdir()) == []
    for content in ("first", "second"):
        with whole_folder(target) as folder:
            assert folder.parent == target.parent
            (folder / content).write_text(content)
            assert not (target / content).exists()
    assert [path.name for path in target.iterdir()] == ["second"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]


def test_a_full_disk_is_told_of_a_folder_too(tmp_path: Path) -> None:
    with (
        pytest.raises(ResourceError, match="No space is left"),
        whole_folder(tmp_path / "folder") as folder,
    ):
        (folder / "file").write_text("x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []
