"""The images' recipes: pinned, without root, from the lock file, made of all they need."""

from __future__ import annotations

import ast
import hashlib
import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from brainlm.provenance import sha256_file
from brainlm.resources import PLANNED_BY, package_digest, package_dir
from brainlm.stages import source_modules

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "containers"
DOCKERFILES = ("Dockerfile", "Dockerfile.gpu")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def base() -> dict[str, str]:
    return yaml.safe_load((HERE / "images.lock.yaml").read_text())["bases"]["python"]


def extras_of(recipe: str) -> str:
    found = re.search(r"^(?:ARG EXTRAS|\s+extras)=(\S+)$", (HERE / recipe).read_text(), re.M)
    assert found is not None
    return found[1]


def wanted(extras: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(HERE / "wanted.py"), extras]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("recipe", [*DOCKERFILES, "brainlm.def"])
def test_every_recipe_stands_on_the_base_of_the_lock_file(recipe: str) -> None:
    text = (HERE / recipe).read_text()
    pinned = f"{base()['repository']}:{base()['tag']}@{base()['digest']}"
    assert re.search(rf"^\s*(?:ARG BASE|base)={re.escape(pinned)}$", text, re.M)
    others = re.findall(r"^From:? (?!\$\{BASE\}|\{\{ base \}\})(.*)$", text, re.M | re.I)
    assert not others, "every stage is built on BASE"
    assert "latest" not in text


@pytest.mark.parametrize("recipe", DOCKERFILES)
def test_what_is_run_is_not_root_and_holds_no_build_tools(recipe: str) -> None:
    *_, last = (HERE / recipe).read_text().split("\nFROM ")
    users = re.findall(r"^USER (\S+)$", last, re.M)
    assert users == ["1000:1000"]
    assert 'ENTRYPOINT ["brainlm"]' in last
    assert "install.sh" not in last and "COPY --from=build /opt/brainlm" in last


@pytest.mark.parametrize("recipe", [*DOCKERFILES, "brainlm.def"])
def test_what_is_installed_is_locked(recipe: str) -> None:
    done = wanted(extras_of(recipe))
    assert done.returncode == 0, done.stderr
    names = [re.split(r"[<>=\[]", line)[0] for line in done.stdout.split()]
    assert {"numpy", "torch", "typer"} <= set(names)
    lock = (ROOT / "requirements.lock").read_text()
    assert not [name for name in names if not re.search(rf"^{name}==", lock, re.M)]
    assert "--constraint requirements.lock" in (HERE / "install.sh").read_text()


def test_an_extra_that_does_not_exist_is_told() -> None:
    done = wanted("train,imagin")
    assert done.returncode and "no extra called imagin" in done.stderr


def test_the_cpu_recipes_are_one() -> None:
    assert extras_of("Dockerfile") == extras_of("brainlm.def")
    command = f"extras={extras_of('Dockerfile.gpu')}"
    assert command in (HERE / "brainlm.def").read_text(), "the way to the GPU image"


def test_the_builder_gets_all_that_the_wheel_is_made_of() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    wheel = build["targets"]["wheel"]
    parts = {*wheel["packages"], *wheel["force-include"], "pyproject.toml", "requirements.lock"}
    parts |= {PROJECT["readme"], *PROJECT["license-files"]}
    kept = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.M))
    assert kept == parts
    copied = re.findall(r"^\s+(\S+) /src/\1$", (HERE / "brainlm.def").read_text(), re.M)
    assert set(copied) == parts


def test_the_gpu_image_does_without_the_imaging_libraries() -> None:
    """No module that a rule for a GPU reaches imports what only the extra `imaging` brings."""
    imaging = {re.split("[<>=]", one)[0] for one in PROJECT["optional-dependencies"]["imaging"]}
    owners = packages_distributions()
    absent = {top for top, dists in owners.items() if {d.lower() for d in dists} & imaging}
    assert {"nibabel", "ants", "numba"} <= absent
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    blocks = [part for part in re.split(r"^\s*rule ", rules, flags=re.M) if "gpu_image" in part]
    assert len(blocks) == len(re.findall(r"\*\*study\.\w+\.resources,", rules)) > 10
    for block in blocks:
        verb = re.search(r'study\.options(?:_of_point)?\("([a-z-]+)"\)', block)
        assert verb is not None
        entry = f"brainlm.cli.{verb[1].replace('-', '_')}"
        for module in source_modules(entry):
            assert not imports_of(module) & absent, (entry, module)


def imports_of(module: str) -> set[str]:
    path = package_dir().parent.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = set()
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return found


# --- renewing the base -------------------------------------------------------------------------

MANIFEST = json.dumps({"schemaVersion": 2, "manifests": []}).encode()


class Registry(http.server.BaseHTTPRequestHandler):
    """Has one tag of the base image."""

    def do_GET(self) -> None:
        here = self.path == "/v2/library/python/manifests/3.11.99-slim-bookworm"
        self.send_response(200 if here else 404)
        self.send_header("Content-Length", str(len(MANIFEST)))
        self.end_headers()
        self.wfile.write(MANIFEST)

    def log_message(self, *arguments: object) -> None:
        pass


def pin_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pin", HERE / "pin.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_renewing_the_base_changes_it_wherever_it_stands(tmp_path: Path) -> None:
    pin = pin_module()
    for name in pin.FILES:
        shutil.copy(HERE / name, tmp_path / name)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        new = pin.pin(tmp_path, "3.11.99-slim-bookworm", address)
    finally:
        server.shutdown()
        server.server_close()
    digest = hashlib.sha256(MANIFEST).hexdigest()
    assert new == f"docker.io/library/python:3.11.99-slim-bookworm@sha256:{digest}"
    for name in pin.FILES:
        text = (tmp_path / name).read_text()
        assert digest in text and base()["digest"] not in text and base()["tag"] not in text, name
        # Nothing else has changed.
        old = text.replace(f"sha256:{digest}", base()["digest"])
        assert old.replace("3.11.99-slim-bookworm", base()["tag"]) == (HERE / name).read_text()


# --- which brainlm works in an image -----------------------------------------------------------


@pytest.mark.parametrize("planned_by", ["", package_digest(), "0123456789abcdef"])
def test_an_image_of_another_brainlm_is_refused(
    monkeypatch: pytest.MonkeyPatch, planned_by: str
) -> None:
    monkeypatch.setenv(PLANNED_BY, planned_by)
    command = [sys.executable, "-m", "brainlm", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if planned_by == "0123456789abcdef":
        assert done.returncode == 2 and "is not the one that planned this job" in done.stderr
        assert "build the image anew" in done.stderr and "Traceback" not in done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_an_image_holds_the_same_brainlm_as_the_source_it_was_built_from(tmp_path: Path) -> None:
    """The digest is that of the code, wherever it is installed; images install a wheel."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    code = (
        "from brainlm.report.reproducibility.code import read_code; code = read_code();"
        "print(code.digest, code.lock_sha256)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [package_digest(), sha256_file(ROOT / "requirements.lock")]
    assert (tmp_path / "installed" / "brainlm" / "_share" / "containers" / "Dockerfile").is_file()
