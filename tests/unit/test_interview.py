"""`brainlm onboard --interactive` and `--quiet`: the real command, on a real terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from brainlm.config import load_config

from .small_bids import make_bids

ROOT = Path(__file__).parents[2]


class Terminal:
    """The command at a pseudo-terminal: what it shows, and keys for it."""

    def __init__(self, *arguments: object, env: dict[str, str]):
        self.screen, self._seen = "", 0
        self._end, other = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "brainlm", *map(str, arguments)],
            stdin=other,
            stdout=other,
            stderr=other,
            env=env,
            start_new_session=True,
            preexec_fn=_own_terminal,
        )
        os.close(other)

    def wait_for(self, text: str, seconds: float = 120) -> None:
        """Until this text, behind the last that was waited for, is on the screen."""
        deadline = time.monotonic() + seconds
        while (found := self.screen.find(text, self._seen)) < 0:
            assert self._read(deadline), f"{text!r} never came:\n{self.screen}"
        self._seen = found + len(text)

    def type(self, keys: str) -> None:
        os.write(self._end, keys.encode())

    def end(self) -> int:
        deadline = time.monotonic() + 120
        while self._read(deadline):
            pass
        os.close(self._end)
        return self.process.wait(10)

    def leave(self, key: str) -> int:
        """Press a key that ends the command, as people do: again where nothing happened.

        A signal that comes just before Python sleeps in its read is told of at the next key.
        """
        for _ in range(12):
            time.sleep(0.3)
            self.type(key)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
                break
        return self.end()

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._end], [], [], max(0, deadline - time.monotonic()))
        try:
            data = os.read(self._end, 4096) if ready else b""
        except OSError:  # the other end is closed
            data = b""
        self.screen += data.decode(errors="replace")
        return bool(data)


def _own_terminal() -> None:
    """Ctrl-C is for the session whose terminal this is, also where the tests ignore it."""
    import fcntl
    import signal
    import termios

    signal.signal(signal.SIGINT, signal.SIG_DFL)

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def bids(tmp_path):
    return make_bids(tmp_path / "bids")


@pytest.fixture
def env(tmp_path):
    bare = tmp_path / "bin"
    bare.mkdir()
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "PATH": str(bare),  # without sbatch
        "TEMPLATEFLOW_HOME": str(tmp_path / "no templates"),
        "BRAINLM_CACHE": str(tmp_path / "empty"),
        "TERM": "dumb",
    }


def test_answers_become_the_config_and_defaults_stay(bids, tmp_path, env):
    study = tmp_path / "study"
    terminal = Terminal("onboard", bids, "--study", study, "--interactive", env=env)
    for question, answer in (
        ("engine [native]", ""),
        ("atlas.name [A424]", "A425"),
        ("choose of", "A424approx"),
        ("denoise.method [aroma]", "36p"),
        ("eligibility.min_volumes [200]", "many"),
        ("'many' is not a number", "15"),
        ("eligibility.tr_min [0.3]", ""),
        ("eligibility.tr_max [5]", "0.1"),
        ("it must be above 0.3", ""),
        ("finetune.targets [none]", "group, age"),
        ("split.train [0.8]", "0.6"),
        ("split.val [0.1]", "0.5"),
        ("it must be above 0 and below 0.4", "0.2"),
        ("run on [local]", ""),
    ):
        terminal.wait_for(question)
        terminal.type(f"{answer}\n")
    terminal.wait_for("Write the study?")
    assert not study.exists()
    terminal.type("\n")
    assert terminal.end() == 0, terminal.screen
    assert "4 of 4 recordings are within these limits" in terminal.screen
    config = load_config(study / "config/config.yaml")
    assert (config.engine, config.atlas.name, config.denoise.method) == (
        "native",
        "A424approx",
        "36p",
    )
    assert config.eligibility.min_volumes == 15
    assert (config.split.train, config.split.val) == (0.6, 0.2)
    assert [target.name for target in config.finetune.targets] == ["group", "age"]
    assert config.finetune.targets[0].kind == "binary"
    assert "# shortest run, in volumes" in (study / "config/config.yaml").read_text()
    assert "snakemake --profile local" in terminal.screen
    assert (study / "onboarding/report.html").exists()


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["Ctrl-C", "Ctrl-D"])
def test_leaving_writes_nothing(bids, tmp_path, env, key):
    study = tmp_path / "study"
    terminal = Terminal("onboard", bids, "--study", study, "--interactive", env=env)
    terminal.wait_for("engine [native]")
    terminal.type("\n")
    terminal.wait_for("atlas.name [A424]: ")
    assert terminal.leave(key) != 0
    assert "Aborted" in terminal.screen
    assert "Traceback" not in terminal.screen
    assert not study.exists()


def brainlm(*arguments: object, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "brainlm", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=env,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


def test_without_a_terminal_and_for_scripts(bids, tmp_path, env):
    study = tmp_path / "study"
    command = ("onboard", bids, "--study", study, "--set", "eligibility.min_volumes=10")
    done = brainlm(*command, "--interactive", env=env)
    assert done.returncode == 2
    assert "there is no terminal" in done.stderr
    assert not study.exists()
    done = brainlm(*command, "--quiet", env=env)
    assert done.returncode == 0
    assert done.stderr == ""
    told = dict(pair.split("=") for pair in done.stdout.split())
    assert told["recordings"] == told["eligible"] == "4"
    assert told["subjects"] == "3"
    assert re.fullmatch(r"\d[\d.]*", told["disk_gb"])
    assert yaml.safe_load((study / "config/config.yaml").read_text())["name"] == "bids"


def test_a_config_that_is_there_is_not_asked_about(bids, tmp_path, env):
    config = tmp_path / "study/config/config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("bids_dir: ../bids\n")
    terminal = Terminal("onboard", bids, "--study", tmp_path / "study", "--interactive", env=env)
    assert terminal.end() == 2
    assert "belongs to you" in terminal.screen
    assert config.read_text() == "bids_dir: ../bids\n"
