"""Snakemake as `python -m snakemake` runs it, without a second of imports each time.

One process per test worker imports Snakemake and waits; each run is a fork of it, with its own
environment, folder and output. It never imports `brainlm`: a run takes the one that its
environment names, as a new process would.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn


def run_snakemake(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Snakemake to its end; the caller looks at the return code."""
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder) / name for name in ("stdout", "stderr")]
        order = {
            "arguments": arguments,
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "said": [str(path) for path in said],
        }
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        stdout, stderr = (path.read_text(errors="replace") for path in said)
    return subprocess.CompletedProcess(["snakemake", *arguments], code, stdout, stderr)


@functools.cache
def _server() -> subprocess.Popen[str]:
    """The waiting process; it ends when this one does and its input with it."""
    away = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=away,
        cwd="/",
    )


def _serve() -> None:
    import snakemake.cli  # noqa: F401 - what every fork then has

    assert "brainlm" not in sys.modules
    while line := sys.stdin.readline():
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(order)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(code, flush=True)


def _run(order: dict) -> NoReturn:
    """Become `python -m snakemake` with that order, up to the end of the process."""
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    for target, path in enumerate(order["said"], start=1):
        with Path(path).open("w") as handle:
            os.dup2(handle.fileno(), target)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    path = order["env"].get("PYTHONPATH")
    sys.path[:1] = [order["cwd"], *(path.split(os.pathsep) if path else [])]
    sys.argv = ["snakemake", *order["arguments"]]
    from snakemake.cli import main

    main()
    sys.exit()


if __name__ == "__main__":
    _serve()
