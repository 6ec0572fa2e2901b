"""`brainlm containers`: lock files, pins from a registry on this machine, pulls, caches."""

from __future__ import annotations

import hashlib
import http.server
import json
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from brainlm.cli.containers import _inside, containers_app
from brainlm.errors import InputError, ResourceError
from brainlm.fmriprep import inside
from brainlm.fmriprep.caches import FSAVERAGE_MARK, files_of, missing_templates
from brainlm.fmriprep.images import STUDY_LOCK, Image, find_image, known_images, write_pin
from brainlm.fmriprep.registry import resolve_digest
from brainlm.resources import share_dir

from .fmriprep_study import install_engine

MANIFEST = json.dumps({"schemaVersion": 2, "layers": []}).encode()
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"


class Registry(http.server.BaseHTTPRequestHandler):
    """A registry that wants a token, as Docker Hub does."""

    announced = DIGEST
    open_to_all = False

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        if self.path.startswith("/token?"):
            wanted = "scope=repository%3Anipreps%2Ffmriprep%3Apull" in self.path
            self._answer(200 if wanted else 400, b'{"token": "secret"}')
        elif not self.open_to_all and self.headers.get("Authorization") != "Bearer secret":
            self.send_response(401)
            self.send_header(
                "WWW-Authenticate",
                f'Bearer realm="http://127.0.0.1:{port}/token",service="registry",'
                'scope="repository:nipreps/fmriprep:pull"',
            )
            self.end_headers()
        elif self.path.removeprefix("/v2/nipreps/fmriprep/manifests/") in ("25.2.5", "latest"):
            assert "image.index" in self.headers["Accept"]
            self._answer(200, MANIFEST)
        else:
            self._answer(404, b"{}")

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Docker-Content-Digest", self.announced)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[tuple[str, type[Registry]]]:
    handler = type("Handler", (Registry,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def image(**changes: object) -> Image:
    fields = {
        "name": "fmriprep",
        "repository": "docker.io/nipreps/fmriprep",
        "tag": "25.2.5",
        "digest": None,
        "version": "25.2.5",
        "license": "always",
    }
    return Image(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_lock_file_names_every_image_by_digest_and_is_shipped() -> None:
    for found in known_images():
        assert found.digest is not None and found.reference.endswith(found.digest)
        assert found.repository.count("/") >= 2, "the registry is named"
    wheel = (share_dir() / "pyproject.toml").read_text()
    assert '"containers" = "brainlm/_share/containers"' in wheel


def test_an_image_without_a_digest_is_not_run() -> None:
    with pytest.raises(InputError, match="not pinned") as raised:
        _ = image().reference
    assert "brainlm containers pin fmriprep" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 2


def test_the_studys_own_pin_goes_first(tmp_path: Path) -> None:
    write_pin(image(name="other", digest=DIGEST), tmp_path)
    write_pin(image(digest=DIGEST, tag="26.0.0"), tmp_path)
    assert find_image("fmriprep", tmp_path).tag == "26.0.0"
    assert find_image("other", tmp_path).digest == DIGEST
    assert find_image("fmriprep").tag != "26.0.0"
    with pytest.raises(InputError, match="knows an image called 'xcp_d'"):
        find_image("xcp_d", tmp_path)


@pytest.mark.parametrize(
    "entry",
    [
        {"digest": "sha256:12"},
        {"digest": "latest"},
        {"license": "sometimes"},
        {"surprise": 1},
    ],
)
def test_lock_files_that_cannot_be_meant_are_refused(tmp_path: Path, entry: dict) -> None:
    lock = write_pin(image(digest=DIGEST), tmp_path)
    content = yaml.safe_load(lock.read_text())
    content["images"]["fmriprep"] |= entry
    lock.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match="lock file of images cannot be read"):
        find_image("fmriprep", tmp_path)
    lock.write_text("images: [")
    with pytest.raises(InputError, match="lock file of images is not valid YAML"):
        find_image("fmriprep", tmp_path)


@pytest.mark.parametrize("open_to_all", [True, False])
def test_a_tag_is_resolved_with_or_without_a_token(
    registry: tuple[str, type[Registry]], open_to_all: bool
) -> None:
    address, handler = registry
    handler.open_to_all = open_to_all
    assert resolve_digest(image(), address) == DIGEST


def test_answers_of_the_registry_that_will_not_do(registry: tuple[str, type[Registry]]) -> None:
    address, handler = registry
    with pytest.raises(InputError, match=r"has no docker\.io/nipreps/fmriprep:1\.0\.0"):
        resolve_digest(image(tag="1.0.0"), address)
    handler.announced = f"sha256:{'0' * 64}"
    with pytest.raises(ResourceError, match="does not have the digest that it announces"):
        resolve_digest(image(), address)
    with pytest.raises(ResourceError, match="could not be asked"):
        resolve_digest(image(), "http://127.0.0.1:9")


def make_study(root: Path, text: str = "") -> Path:
    (root / "config").mkdir(parents=True)
    (root / "config/config.yaml").write_text(text or "name: x\n")
    return root


def call(*arguments: str | Path) -> str:
    done = CliRunner().invoke(containers_app, [str(item) for item in arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_pin_writes_the_studys_lock_file(
    tmp_path: Path, registry: tuple[str, type[Registry]]
) -> None:
    study = make_study(tmp_path)
    call("pin", "fmriprep", "--study", study, "--registry", registry[0])
    assert find_image("fmriprep", study).digest == DIGEST
    assert yaml.safe_load((study / STUDY_LOCK).read_text())["images"]["fmriprep"]["tag"] == "25.2.5"
    assert DIGEST in call("list", "--study", study)
    call("pin", "fmriprep", "--study", study, "--registry", registry[0], "--tag", "latest")
    found = find_image("fmriprep", study)
    assert found.tag == "latest" and found.version is None and found.digest == DIGEST


@pytest.fixture
def apptainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Apptainer whose `pull FILE SOURCE` writes SOURCE, and whose `exec` runs Python here."""
    folder = install_engine(tmp_path)
    program = folder / "apptainer"
    program.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = pull ]; then\n[ -z "$FAKE_BROKEN" ] || exit 255\n'
        'printf %s "$3" > "$2"; exit\nfi\n'
        f'printf "%s\\n" "$@" > "{tmp_path}/exec"\nexit ${{FAKE_CODE:-0}}\n'
    )
    program.chmod(0o755)
    for name, value in {
        "PATH": f"{folder}:/usr/bin:/bin",
        "BRAINLM_CACHE": str(tmp_path / "cache"),
        "TEMPLATEFLOW_HOME": str(tmp_path / "templateflow"),
    }.items():
        monkeypatch.setenv(name, value)
    return program


def test_pull_makes_one_file_of_the_very_digest(
    apptainer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path / "study")
    pinned = find_image("fmriprep")
    assert str(pinned.cached_sif) in call("pull", "fmriprep", "--study", study, "--dry-run")
    monkeypatch.setenv("FAKE_BROKEN", "1")
    with pytest.raises(ResourceError, match="could not pull"):
        call("pull", "fmriprep", "--study", study)
    assert not list((tmp_path / "cache" / "images").iterdir())
    monkeypatch.delenv("FAKE_BROKEN")
    call("pull", "fmriprep", "--study", study)
    assert pinned.cached_sif.read_text() == f"docker://{pinned.reference}"
    assert "is there already" in call("pull", "fmriprep", "--study", study)
    assert "  here" in call("list", "--study", study)


def test_prepare_has_the_container_fill_what_jobs_read(
    apptainer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path / "study")
    call("pull", "fmriprep", "--study", study)
    with pytest.raises(InputError, match="cache of templates lacks"):
        call("prepare", "--study", study)
    words = (tmp_path / "exec").read_text()
    assert f"{tmp_path / 'templateflow'}:/templateflow:rw" in words
    assert "tpl-MNI152NLin6Asym_res-02_T1w.nii.gz" in words and _inside() in words
    monkeypatch.setenv("FAKE_CODE", "1")
    with pytest.raises(ResourceError, match=r"were not filled \(code 1\)"):
        call("prepare", "--study", study)


def test_the_script_inside_copies_what_the_image_holds_and_fetches_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, held, subjects = tmp_path / "home", tmp_path / "held", tmp_path / "subjects"
    names = files_of("MNI152NLin6Asym")
    for name in names:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("skeleton" if name.endswith(".json") else "")
    (held / names[1]).parent.mkdir(parents=True)
    (held / names[1]).write_text("of the image")
    asked = []

    def get(template: str, **query: object) -> None:
        asked.append(query)
        matching = [name for name in names[2:] if inside.query_of(name).items() <= query.items()]
        for name in matching:
            (home / name).write_text("fetched")

    monkeypatch.setitem(
        sys.modules, "templateflow", types.SimpleNamespace(api=types.SimpleNamespace(get=get))
    )
    inside.fill(home, held, {"MNI152NLin6Asym": names})
    assert missing_templates(home, ["MNI152NLin6Asym"]) == []
    assert (home / names[1]).read_text() == "of the image"
    assert len(asked) == len(names) - 2

    average = tmp_path / "freesurfer/subjects/fsaverage"
    (average / FSAVERAGE_MARK).parent.mkdir(parents=True)
    (average / FSAVERAGE_MARK).write_text("x")
    monkeypatch.setenv("FREESURFER_HOME", str(tmp_path / "freesurfer"))
    subjects.mkdir()
    inside.copy_subjects(["fsaverage"], subjects)
    inside.copy_subjects(["fsaverage"], subjects)
    assert [path.name for path in subjects.iterdir()] == ["fsaverage"]
    assert (subjects / "fsaverage" / FSAVERAGE_MARK).read_text() == "x"


def test_the_script_runs_without_brainlm() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _inside(), "{"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "JSONDecodeError" in done.stderr and "ModuleNotFound" not in done.stderr
