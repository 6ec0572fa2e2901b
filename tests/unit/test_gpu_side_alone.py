"""The GPU side needs the packages that the docs name, and none besides: all others are hidden."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .synthetic_cohort import params
from .tuning_study import make_study

ROOT = Path(__file__).parents[2]
#: What docs/training.md names: for Python, and for the commands besides.
LIBRARIES = ("numpy", "pandas", "pyarrow", "safetensors", "scikit-learn", "scipy", "torch")
COMMANDS = ("pydantic", "pyyaml", "typer")
#: Optional by their docs, each with a package of its own.
OPTIONAL = ("brainlm.model.auto", "brainlm.model.hub")

#: Hide every package but those in argv[1], then run what argv[2] says.
ALONE = """
import json, sys
from importlib.machinery import PathFinder
allowed = {*json.loads(sys.argv[1]), *sys.stdlib_module_names, "brainlm"}
class Alone(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top = name.split(".")[0]
        known = top in allowed or top.startswith("_sysconfigdata")  # Python's own
        return super().find_spec(name, path, target) if known else None
sys.meta_path = [Alone if finder is PathFinder else finder for finder in sys.meta_path]
exec(sys.argv[2])
"""
IMPORT_ALL = """
import importlib, pkgutil
for part in ("model", "shards", "train", "evaluate"):
    package = importlib.import_module(f"brainlm.{part}")
    for found in pkgutil.walk_packages(package.__path__, f"brainlm.{part}."):
        if found.name not in OPTIONAL:
            importlib.import_module(found.name)
            print(found.name)
"""
RUN_ALL = """
import shlex
from brainlm.cli import main
for line in LINES:
    sys.argv = ["brainlm", *line]
    try:
        main()
    except SystemExit as done:
        assert not done.code, (line, done.code)
"""


def _modules_of(packages: tuple[str, ...]) -> list[str]:
    """What can be imported where these packages are installed, with those that they ask for."""
    waiting, found = list(packages), set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found.add(name)
        try:
            asked = map(Requirement, metadata.requires(name) or ())
        except metadata.PackageNotFoundError:  # asked for on other machines, or with a GPU
            continue
        waiting += [
            one.name for one in asked if not one.marker or one.marker.evaluate({"extra": ""})
        ]
    by_module = metadata.packages_distributions()
    return [
        module
        for module, owners in by_module.items()
        if any(canonicalize_name(owner) in found for owner in owners)
    ]


def _alone(packages: tuple[str, ...], code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ALONE, json.dumps(_modules_of(packages)), code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_every_module_is_imported_with_the_libraries_alone() -> None:
    there = _modules_of(LIBRARIES)
    assert not {"nibabel", "pydantic", "yaml", "typer", "matplotlib", "transformers"} & set(there)
    imported = _alone(LIBRARIES, f"OPTIONAL = {OPTIONAL}\n{IMPORT_ALL}").split()
    assert len(imported) > 100
    assert {"brainlm.train.pretrain", "brainlm.evaluate.clinical"} <= set(imported)


@pytest.mark.slow
def test_the_commands_train_tune_and_evaluate_where_little_is_installed(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    lines = [
        [*command, "--study", str(study.root), "--params", params(study, command[0])]
        for command in (
            ["pretrain"],
            ["finetune", "--target", "score"],
            ["embed"],
            ["probe", "--target", "score"],
            ["evaluate-reconstruction"],
            ["evaluate-clinical", "--target", "score"],
        )
    ]
    _alone((*LIBRARIES, *COMMANDS), f"LINES = {lines!r}\n{RUN_ALL}")
    for kind, fields in (
        ("model", {}),
        ("finetuned", {"target": "score"}),
        ("embeddings", {}),
        ("probe", {"target": "score"}),
        ("reconstruction", {}),
        ("clinical", {"target": "score"}),
    ):
        assert study.path(kind, run="brainlm", **fields).stat().st_size > 0
