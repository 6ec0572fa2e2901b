from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from brainlm.resources import share_dir
from brainlm.stages import STAGES


def _brainlm(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "brainlm", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )


def test_help_lists_every_stage_and_imports_nothing_heavy() -> None:
    done = _brainlm("--help")
    assert done.returncode == 0
    for name in STAGES:
        assert f" {name} " in done.stdout
    assert "Others:" not in done.stdout, "give the new verb its section in brainlm/cli/_help.py"
    code = (
        "import sys; sys.argv = ['brainlm', '--help']\n"
        "from brainlm.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'pandas', 'torch', 'ants', 'nibabel', 'nilearn', 'matplotlib',\n"
        "         'scipy', 'sklearn', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_starts_within_a_few_bare_interpreters() -> None:
    """A ratio, not a time: --help against starting Python with typer alone."""

    def best(arguments: list[str]) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
            times.append(time.perf_counter() - start)
        return min(times)

    bare = best(["-c", "import typer.main, typer.core, rich.console"])
    assert best(["-m", "brainlm", "--help"]) < 4 * bare


@pytest.mark.parametrize("verb", sorted(STAGES))
def test_every_stage_teaches(verb: str) -> None:
    done = _brainlm(verb, "--help")
    assert done.returncode == 0
    assert "--study" in done.stdout
    assert "--params" in done.stdout


def test_known_errors_take_three_lines_and_exit_2(tmp_path: Path) -> None:
    done = _brainlm("motion", "sub-01_task-rest", cwd=tmp_path)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) <= 3
    assert lines[0].startswith("Error: There is no config here")
    assert "fix:" in lines[-1]


def test_lock_and_conda_environment_hold_the_same_pins() -> None:
    lock = [
        line
        for line in (share_dir() / "requirements.lock").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    environment = yaml.safe_load((share_dir() / "environment.yml").read_text())
    pip = next(entry for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip["pip"] == lock
    assert any(pin.startswith("torch==2.") for pin in lock)


@pytest.mark.parametrize("frozen", ["", "numpy==2.4.0\ntorch @ file:///home/me/torch.whl\n"])
def test_a_lock_is_not_written_of_what_nobody_could_install(tmp_path: Path, frozen: str) -> None:
    script = tmp_path / "scripts" / "write_lock.py"
    script.parent.mkdir()
    shutil.copy(share_dir() / "scripts" / script.name, script)

    def write(frozen: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script)]
        return subprocess.run(command, input=frozen, capture_output=True, text=True, check=False)

    assert write("Torch==2.13.0+cpu\nnumpy==2.4.0\nlazy_loader==0.5\n").returncode == 0
    lock = tmp_path / "requirements.lock"
    before = lock.read_text()
    assert before.splitlines()[1:] == ["lazy-loader==0.5", "numpy==2.4.0", "torch==2.13.0"]
    refused = write(frozen)
    assert refused.returncode == 1 and "Nothing was written" in refused.stderr
    assert lock.read_text() == before


def test_the_lock_satisfies_the_project(tmp_path: Path) -> None:
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = dict(
        line.split("==")
        for line in (share_dir() / "requirements.lock").read_text().splitlines()
        if "==" in line
    )
    project = tomllib.loads((share_dir() / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"]]
    for name in ("imaging", "train", "tracking", "workflow", "dev"):
        wanted += extras[name]
    for text in wanted:
        requirement = Requirement(text)
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), text


def test_each_task_of_the_evaluation_is_behind_one_door_in_the_papers_order() -> None:
    from brainlm.cli.evaluate import TASKS
    from brainlm.report.evaluation.sections import TITLES

    assert list(TASKS) == [*TITLES, "page"]
    stages = {stage.verb.replace("-", "_") for stage in STAGES.values()}
    assert {verb.__name__ for verb, _ in TASKS.values()} <= stages
    told = _brainlm("evaluate", "--help").stdout
    places = [told.index(f"\n  {task} ") for task in TASKS]
    assert places == sorted(places)
    own, stage = _brainlm("evaluate", "forecast", "--help"), _brainlm("compare-forecasts", "--help")
    assert own.returncode == 0
    assert own.stdout.partition("\n")[2] == stage.stdout.partition("\n")[2]
