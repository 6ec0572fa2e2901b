"""The GPU benchmarks run, that of the network from a bare checkout: torch, numpy, safetensors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Hide every package that a bare machine lacks, then run the script as one would.
BARE = """
import runpy, sys
from importlib.machinery import PathFinder
class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        lacking = {"pandas", "pyarrow", "scipy", "sklearn", "yaml", "transformers", "typer"}
        return None if name.split(".")[0] in lacking else super().find_spec(name, path, target)
sys.meta_path = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
sys.argv = ["gpu_model.py", *sys.argv[1:]]
runpy.run_path("tests/benchmarks/gpu_model.py", run_name="__main__")
"""


def test_bare_checkout() -> None:
    options = ["--tiny", "--no-compile", "--sizes", "111m"]
    done = subprocess.run(
        [sys.executable, "-c", BARE, *options], cwd=ROOT, capture_output=True, text=True, check=True
    )
    rows = [line for line in done.stdout.splitlines() if line.startswith("| 111m")]
    assert len(rows) == 4, done.stdout  # two decoders, two kernels
    assert "Error" not in done.stdout
    losses = {row.split("|")[-2].strip() for row in rows}
    assert len(losses) <= 2, rows  # kernels agree; the decoders begin with guesses of 0 both


def test_training() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.gpu_training", "--tiny", "--sizes", "111m"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for words in ("gathering the windows", "mmap", "a thread writes it", "DDP of one process"):
        assert words in done.stdout
