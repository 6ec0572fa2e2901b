"""`--sdm apptainer`: which command line Snakemake builds, and what the job inside is given.

A stand-in for Apptainer notes its arguments and environment, and runs the command without a
container: the rest of the way is the true one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from brainlm.config import Config
from brainlm.dag_containers import enter_containers
from brainlm.resources import PLANNED_BY, package_digest, share_dir

from ..forked_snakemake import run_snakemake
from .empty_study import make_study

APPTAINER = """\
#!/bin/sh
[ "$1" = --version ] && {{ echo "apptainer version 1.3.4"; exit; }}
{python} - "$@" >>"{record}" <<'END'
import json, os, sys
keep = ("APPTAINER", "BRAINLM", "HF_HOME", "TEMPLATEFLOW_HOME")
print(json.dumps([sys.argv[1:], {{k: v for k, v in os.environ.items() if k.startswith(keep)}}]))
END
while [ "$1" != -c ]; do shift; done
exec bash -c "$2"
"""


class Study:
    """A study of three empty recordings beside its dataset, on a machine with an Apptainer."""

    def __init__(self, root: Path) -> None:
        self.root, self.record = root / "study", root / "record"
        make_study(self.root, 3)
        self.bids = root / "elsewhere" / "bids"
        self.bids.parent.mkdir()
        (self.root / "bids").rename(self.bids)
        self.cache = root / "cache"
        (self.cache / "atlases").mkdir(parents=True)
        self.sif = root / "brainlm.sif"
        self.sif.touch()
        programs = root / "bin"
        programs.mkdir()
        program = programs / "apptainer"
        program.write_text(APPTAINER.format(python=sys.executable, record=self.record))
        program.chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "BRAINLM_CACHE": str(self.cache),
            "APPTAINER_BIND": "/of/the/user",
        }
        self.set(bids_dir=str(self.bids), atlas={"name": "A424approx"}, space={"resolution_mm": 4})

    def set(self, **sections: object) -> None:
        path = self.root / "config" / "config.yaml"
        content = yaml.safe_load(path.read_text())
        for name, value in sections.items():
            content[name] = {**content[name], **value} if isinstance(value, dict) else value
        path.write_text(yaml.safe_dump(content))

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        where = ("--snakefile", str(share_dir() / "Snakefile"), "--directory", str(self.root))
        return run_snakemake(*where, "--cores", "1", *arguments, env=self.environment)

    def calls(self) -> list[tuple[list[str], dict[str, str]]]:
        return [json.loads(line) for line in self.record.read_text().splitlines()]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


ATLAS = "prepare_atlas"


def test_a_rule_runs_in_the_image_and_sees_what_lies_outside_the_study(study: Study) -> None:
    study.set(containers={"image": str(study.sif)})
    done = study.snakemake("--sdm", "apptainer", "--until", ATLAS)
    assert done.returncode == 0, done.stdout + done.stderr
    [(arguments, environment)] = study.calls()
    at = arguments.index(str(study.sif))
    assert arguments[:1] == ["exec"] and arguments[at + 1 : at + 3] == ["bash", "-c"]
    assert arguments[arguments.index("--home") + 1] == str(study.root)
    assert "brainlm prepare-atlas --params " in arguments[at + 3]
    binds = environment["APPTAINER_BIND"].split(",")
    assert binds[0] == "/of/the/user"
    assert {str(study.bids), str(study.cache)} <= set(binds)
    assert all(Path(path).exists() for path in binds[1:]) and len(set(binds)) == len(binds)
    # The home folder is another one inside: caches are named.
    assert environment["BRAINLM_CACHE"] == str(study.cache)
    assert Path(environment["HF_HOME"]).is_absolute()
    assert environment["APPTAINERENV_PYTHONPATH"] == ""
    assert environment[PLANNED_BY] == package_digest()


def test_a_cache_behind_a_link_is_seen_by_its_own_path(tmp_path: Path) -> None:
    """As where ~/.cache is a link to a larger disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    (tmp_path / "study").mkdir()
    (tmp_path / "a.sif").touch()
    image = str(tmp_path / "a.sif")
    study = SimpleNamespace(
        image=image, gpu_image=image, study=tmp_path / "study", config=Config(bids_dir=Path("bids"))
    )
    environment = {"HF_HOME": str(tmp_path / "home")}
    enter_containers(study, environment)
    (binds,) = (value for name, value in environment.items() if name.endswith("_BIND"))
    assert {str(tmp_path / "home"), str(tmp_path / "disk")} <= set(binds.split(","))


def test_rules_for_a_gpu_have_an_image_of_their_own(study: Study) -> None:
    gpu = study.sif.with_name("gpu.sif")
    gpu.touch()
    study.set(containers={"image": str(study.sif), "gpu_image": "../gpu.sif"})
    code = """
import sys, yaml
from pathlib import Path
from brainlm.dag import Dag
from brainlm.dag_containers import enter_containers
dag = Dag(yaml.safe_load(open("config/config.yaml")), Path.cwd())
environment = {}
enter_containers(dag, environment)
print(dag.image, dag.gpu_image, environment.get("APPTAINER_NV"))
"""
    run = [sys.executable, "-c", code]

    def words() -> list[str]:
        done = subprocess.run(
            run, cwd=study.root, env=study.environment, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    assert words() == [str(study.sif), str(gpu), "1"]
    study.set(pretrain={"device": "cpu"}, containers={"gpu_image": None})
    assert words() == [str(study.sif), str(study.sif), "None"]


def test_an_image_in_a_registry_is_named_to_apptainer_by_its_digest(study: Study) -> None:
    reference = f"docker://ghcr.io/lab/brainlm@sha256:{'1' * 64}"
    study.set(containers={"image": reference})
    done = study.snakemake("--sdm", "apptainer", "--dry-run", "--until", ATLAS)
    assert f"Singularity image {reference} will be pulled" in done.stdout + done.stderr
    study.set(containers={"image": "docker://ghcr.io/lab/brainlm:main"})
    done = study.snakemake("--dry-run")
    assert done.returncode and "may be other bytes tomorrow" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("image", "said"),
    [(None, "containers.image names none"), ("gone.sif", "does not exist")],
)
def test_without_an_image_it_is_told_before_anything_runs(
    study: Study, image: str | None, said: str
) -> None:
    study.set(containers={"image": image})
    done = study.snakemake("--sdm", "apptainer", "--until", ATLAS)
    assert done.returncode and said in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not study.record.exists()


def test_an_image_changes_nothing_without_sdm(study: Study) -> None:
    """The job is the same, is run without Apptainer, and is not stale for an image's sake."""
    target = "--until", ATLAS
    assert study.snakemake(*target).returncode == 0
    study.set(containers={"image": "gone.sif", "gpu_image": str(study.sif)})
    again = study.snakemake(*target, "--dry-run")
    assert again.returncode == 0
    assert re.search(r"^total +0$", again.stdout + again.stderr, re.M)
    assert not study.record.exists()
