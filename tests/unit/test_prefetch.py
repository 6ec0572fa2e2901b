"""`brainlm prefetch`: everything a study needs, from a server on this machine; then none at all."""

from __future__ import annotations

import dataclasses
import hashlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from brainlm import fetch, masks, templates
from brainlm.atlas.fetch import cached_path, locate
from brainlm.atlas.registry import find_atlas
from brainlm.cli import template as template_verb
from brainlm.cli._needs import needs_of
from brainlm.cli._problems import problems_of
from brainlm.cli.prefetch import _list, prefetch
from brainlm.config import Config, load_config
from brainlm.dag_containers import Images
from brainlm.errors import ResourceError
from brainlm.model.opening import find_folder
from brainlm.provenance import sha256_file, sidecar_path
from brainlm.resources import share_dir

from . import hub_server
from .loopback import serving

SPACE = "MNI152NLin6Asym"
CONFIG = {
    "space": {"template": SPACE},
    "atlas": {"name": "Small"},
    "denoise": {"method": "aroma"},
    "ica": {"masks": "aroma"},
}
RELEASED = {"source": "lab/brain", "subfolder": "small"}
ALL = ("template MNI152NLin6Asym, with tissue maps", "atlas Small", "masks of ICA-AROMA")


class Machine:
    """A machine with nothing in its caches, and the one server that it can reach."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, address: str, handler: type) -> None:
        self.study, self.handler, self.patch = root / "study", handler, patch
        (self.study / "config").mkdir(parents=True)
        self.configure(**CONFIG)
        patch.setenv("BRAINLM_CACHE", str(root / "cache"))
        patch.setenv("TEMPLATEFLOW_HOME", str(root / "templateflow"))
        patch.setattr(fetch.time, "sleep", lambda seconds: None)
        real = templates.TEMPLATES[SPACE]
        heads = {real.files[key]: key.encode() for key in real.md5}
        md5 = {key: hashlib.md5(key.encode()).hexdigest() for key in real.md5}
        template = dataclasses.replace(real, md5=md5, address=address)
        patch.setitem(templates.TEMPLATES, SPACE, template)
        patch.setattr(template_verb, "_carry_tissues", carry)
        patch.setattr(masks, "_ADDRESS", address)
        for name in masks.MASKS:
            patch.setitem(masks.MASKS, name, hashlib.sha256(name.encode()).hexdigest())
        entry = {
            "name": "Small",
            "table": str(share_dir() / "atlases" / "A424" / "parcels.tsv"),
            "n_labels": 424,
            "space": SPACE,
            "url": f"{address}/small.nii.gz",
            "sha256": hashlib.sha256(b"labels").hexdigest(),
        }
        registry = root / "registry.yaml"
        registry.write_text(yaml.safe_dump({"atlases": [entry]}))
        patch.setenv("BRAINLM_REGISTRY", str(registry))
        aroma = {f"mask_{name}.nii.gz": name.encode() for name in masks.MASKS}
        handler.files = {**heads, **aroma, "small.nii.gz": b"labels"}

    def configure(self, **content: object) -> None:
        (self.study / "config" / "config.yaml").write_text(yaml.safe_dump(content))

    @property
    def config(self) -> Config:
        return load_config(self.study / "config" / "config.yaml")

    def cut_off(self) -> None:
        def refuse(self: socket.socket, address: object) -> None:
            raise OSError(101, "Network is unreachable")

        self.patch.setattr(socket.socket, "connect", refuse)


def carry(template: templates.Template) -> None:
    """Tissue maps that nobody registered: the true way takes a minute and has tests of its own."""
    from brainlm.files import write_json

    folder = templates.template_folders(template)[1]
    for tissue in templates.TISSUES:
        path = folder / template.files[tissue]
        path.write_text(tissue)
        about = {"Sources": templates.carried_from(template), "SHA256": sha256_file(path)}
        write_json(sidecar_path(path), about)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with serving() as start:
        yield Machine(tmp_path, monkeypatch, *start())


def test_all_of_it_is_brought_once_and_then_no_network_is_needed(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(problems_of(machine.config, set())) == 3
    prefetch(machine.study)
    said = capsys.readouterr().out
    for number, what in enumerate(ALL, start=1):
        assert f"[{number}/3] {what}: from http://127.0.0.1" in said
        assert f"[{number}/3] {what}: here now" in said
    assert machine.handler.asked == 6
    machine.cut_off()
    assert problems_of(machine.config, set()) == []
    prefetch(machine.study)
    assert machine.handler.asked == 6
    assert capsys.readouterr().out.count(": here\n") == 3


def test_the_list_fetches_nothing(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    prefetch(machine.study, list_only=True)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split("  ")[0].strip() for line in lines] == list(ALL)
    assert all("  no  " in line for line in lines) and machine.handler.asked == 0
    prefetch(machine.study)
    capsys.readouterr()
    prefetch(machine.study, list_only=True)
    assert all("  yes  " in line for line in capsys.readouterr().out.splitlines()[1:])


def test_what_is_broken_is_brought_anew_and_the_rest_is_left(machine: Machine) -> None:
    prefetch(machine.study)
    atlas = cached_path(find_atlas("Small"))
    for path in (masks.mask_path("edge"), atlas):
        path.write_bytes(b"cut o")
    asked = machine.handler.asked
    prefetch(machine.study)
    assert machine.handler.asked == asked + 2
    assert locate(find_atlas("Small")).read_bytes() == b"labels" and masks.masks_here()


def test_wrong_bytes_are_refused_and_the_others_are_brought_all_the_same(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.handler.files = {**machine.handler.files, "small.nii.gz": b"other!"}
    with pytest.raises(ResourceError, match="1 of 3 could not be brought here: atlas Small"):
        prefetch(machine.study)
    assert "not atlas Small" in capsys.readouterr().err
    assert not cached_path(find_atlas("Small")).exists()
    assert masks.masks_here() and templates.is_here(SPACE)


def test_without_a_network_it_says_what_to_do(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.cut_off()
    with pytest.raises(ResourceError, match="3 of 3 could not be brought here") as caught:
        prefetch(machine.study)
    for command in ("atlas get Small --from FILE", "masks get --from", "template get MNI152NLin6"):
        assert command in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2
    assert "Network is unreachable" in capsys.readouterr().err


def test_only_what_the_config_asks_for_is_needed(machine: Machine) -> None:
    def names(kinds: set[str] = frozenset(), **content: object) -> list[str]:  # type: ignore[assignment]
        machine.configure(**{**CONFIG, **content})
        return [need.what for need in needs_of(machine.config, kinds, machine.study)]

    assert names(denoise={"method": "motion24"}) == list(ALL[:2])
    assert names(space={"template": "MNI152NLin2009aSym"}, ica={}) == [ALL[1]]
    assert names(atlas={"name": "A424approx"}, ica={}) == [ALL[0]]
    assert names({"parcels"}) == []
    assert names({"dense"}, atlas={"name": "A424"}) == [f"atlas {find_atlas('A424').dense}"]
    (machine.study / "weights").mkdir()
    assert len(names(released={"source": "weights"})) == 3
    hub = names(released={"source": "lab/brain", "subfolder": "small"})
    assert hub[3:] == ["model lab/brain, small"]
    fmriprep = names(engine="fmriprep")
    assert fmriprep[3:] == ["image fmriprep 25.2.5", "templates of fMRIPrep"]
    own = names(engine="fmriprep", fmriprep={"image": "my.sif"})
    assert own[3:] == ["templates of fMRIPrep"]


def test_a_list_of_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    _list([])
    assert capsys.readouterr().out == "nothing is needed\n"


def test_without_a_study_it_is_what_a_new_one_takes(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefetch(tmp_path, list_only=True)
    said = capsys.readouterr().out
    assert "No study here" in said and "atlas A424 " in said
    assert ALL[0] in said and ALL[2] in said


def test_an_image_of_ours_is_pulled_where_the_rules_then_find_it(
    machine: Machine, tmp_path: Path
) -> None:
    reference = f"docker://ghcr.io/lab/brainlm@sha256:{'1' * 64}"
    machine.configure(atlas={"name": "A424approx"}, containers={"image": reference})
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "apptainer").write_text('#!/bin/sh\n[ "$1" = pull ] && printf %s "$3" >"$2"\n')
    (programs / "apptainer").chmod(0o755)
    machine.patch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    dag = Images()
    dag.config, dag.study = machine.config, machine.study
    assert dag.image == dag.gpu_image == reference
    prefetch(machine.study)
    assert dag.image is not None and Path(dag.image).read_text() == reference


def test_weights_on_the_hub_are_checked_by_their_digest(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the Hub's own client: what is broken in its cache is fetched anew."""
    constants = pytest.importorskip("huggingface_hub.constants")
    from huggingface_hub import file_download

    with hub_server.serving() as hub:
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (constants, file_download):  # older versions read the latter
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        files = {"config.json": b"{}", "model.safetensors": b"weights"}
        branches = {"main": {f"small/{name}": data for name, data in files.items()}}
        hub.repositories["lab/brain"] = hub_server.Repository(branches=branches)
        machine.configure(atlas={"name": "A424approx"}, released=RELEASED)
        [need] = needs_of(machine.config, set(), machine.study)
        assert not need.is_here()
        prefetch(machine.study)
        assert need.is_here()
        [blob] = [path for path in (tmp_path / "hub").rglob("blobs/*") if path.stat().st_size == 7]
        blob.write_bytes(b"weighty")
        assert not need.is_here()
        prefetch(machine.study)
        assert need.is_here()
    machine.cut_off()
    assert need.is_here()
    weights = find_folder(RELEASED["source"], RELEASED["subfolder"]) / "model.safetensors"
    assert weights.read_bytes() == b"weights"


def test_the_help_teaches() -> None:
    command = [sys.executable, "-m", "brainlm", "prefetch", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--list" in done.stdout
    assert "BRAINLM_CACHE" in done.stdout
