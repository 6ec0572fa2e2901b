"""Templates that must be fetched: download, TemplateFlow's home, carried tissues, and their use.

A stand-in takes the place of MNI152NLin6Asym: the bundled head under a smooth deformation, at
2 mm, stored from right to left as FSL stores it, with checksums of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from scipy import ndimage

from brainlm import templates
from brainlm.atlas.fetch import atlas_problems, available_space
from brainlm.atlas.registry import find_atlas
from brainlm.cli import template as verb
from brainlm.cli._stage import OnDataError
from brainlm.cli.normalize_anat import normalize_anat
from brainlm.config import Space
from brainlm.errors import InputError, ResourceError
from brainlm.geometry import pose_from_params, read_itk_affines, same_grid, template_grid
from brainlm.images import load_template, read_image, write_image
from brainlm.provenance import read_sidecar
from brainlm.tissues import load_tissues

from .loopback import serving
from .synthetic_head import brain_points, make_study, mean_displacement, tissues

NAME = "MNI152NLin6Asym"
#: A2 mm grid of FSL's kind, stored from right to left.
SHAPE, AFFINE = (91, 109, 91), np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72]])
fetch = functools.partial(templates.fetch_template, attempts=2, pause_s=0.0)


def deformed(data: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """A map of the bundled template on the stand-in's grid, up to about 5 mm elsewhere."""
    x, y, z = AFFINE[:, :3] @ np.indices(SHAPE).reshape(3, -1) + AFFINE[:, 3:]
    moved = np.stack([x + 3 * np.sin(y / 30), y + 2 + 2 * np.cos(z / 25), z - 2 * np.sin(x / 35)])
    voxels = (moved - affine[:3, 3:]) / np.diag(affine)[:3, None]
    return ndimage.map_coordinates(data, voxels, order=1).reshape(SHAPE)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> dict[str, bytes]:
    """The two files of the stand-in, by name."""
    folder, source = tmp_path_factory.mktemp("archive"), tissues(2.0)
    affine = np.vstack([AFFINE, [0, 0, 0, 1]])
    mask = deformed(source.brain.astype(np.float32), source.affine) > 0.5
    head = (8000 * deformed(source.t1w, source.affine) * mask).astype(np.int16)
    files = templates.TEMPLATES[NAME].files
    write_image(folder / files["T1w"], head, affine)
    write_image(folder / files["brain"], mask.astype(np.uint8), affine)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def stand_in(archive, tmp_path, monkeypatch) -> templates.Template:
    """Registers the stand-in, with an empty cache, an empty TemplateFlow home and no address."""
    monkeypatch.setenv("BRAINLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "templateflow"))
    real = templates.TEMPLATES[NAME]
    md5 = {key: hashlib.md5(archive[real.files[key]]).hexdigest() for key in real.md5}
    template = dataclasses.replace(real, md5=md5, address="http://127.0.0.1:9")
    monkeypatch.setitem(templates.TEMPLATES, NAME, template)
    monkeypatch.setattr(verb, "REGISTRATION_MM", 6.0)
    return template


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    """What `brainlm template get` left in the cache, once it was called."""
    return {}


@pytest.fixture
def installed(stand_in, archive, made, tmp_path) -> templates.Template:
    """The stand-in with its tissues, in a cache of its own."""
    folder = templates.template_folders(stand_in)[1]
    folder.mkdir(parents=True)
    if not made:
        (tmp_path / "by hand").mkdir()
        for name, content in archive.items():
            (tmp_path / "by hand" / name).write_bytes(content)
        verb.get(NAME, str(tmp_path / "by hand"))
        made |= contents(stand_in)
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return stand_in


@pytest.fixture
def server():
    with serving() as start:
        yield start


def at(template: templates.Template, address: str) -> templates.Template:
    return dataclasses.replace(template, address=address)


def in_cache(template: templates.Template) -> list[Path]:
    folder = templates.template_folders(template)[1]
    return sorted(folder.iterdir()) if folder.exists() else []


def test_what_the_config_allows_is_what_is_registered():
    allowed = get_args(Space.model_fields["template"].annotation)
    assert allowed == (*templates.TEMPLATES, "fsLR")  # the surface's space has no template here


# --- getting it --------------------------------------------------------------------------


def test_a_template_is_downloaded_once(stand_in, server, archive):
    address, handler = server(files=archive)
    for _ in range(2):
        fetch(at(stand_in, address))
    assert handler.asked == 2
    assert {path.name: path.read_bytes() for path in in_cache(stand_in)} == archive


@pytest.mark.parametrize(
    ("settings", "error", "word"),
    [
        ({"body": b"other"}, InputError, "MD5"),
        ({"body": b""}, InputError, "MD5"),
        ({"cut": True}, ResourceError, "broke off"),
        ({"files": {}}, ResourceError, "404"),
        ({"failures": 9}, ResourceError, "503"),
    ],
)
def test_what_goes_wrong_is_told_and_leaves_nothing(stand_in, server, settings, error, word):
    address, _ = server(**settings)
    with pytest.raises(error, match=word) as caught:
        fetch(at(stand_in, address))
    assert stand_in.md5["T1w"] in str(caught.value)
    assert in_cache(stand_in) == []


def test_without_a_network_the_error_names_the_files_and_the_command(stand_in):
    with pytest.raises(ResourceError, match="could not be downloaded") as caught:
        fetch(stand_in)
    assert "brainlm template get MNI152NLin6Asym --from FOLDER" in str(caught.value)
    with pytest.raises(InputError, match=r"not \(whole\) on this machine") as caught:
        load_template(NAME, "T1w", 2.0)
    for part in (*stand_in.files.values(), "brainlm template get", *map(str, _folders(stand_in))):
        assert part in str(caught.value)


def _folders(template: templates.Template) -> tuple[Path, Path]:
    return templates.template_folders(template)


def test_a_templateflow_home_is_used_and_its_placeholders_are_not(stand_in, server, archive):
    home, cache = _folders(stand_in)
    home.mkdir(parents=True)
    t1w, mask = stand_in.files["T1w"], stand_in.files["brain"]
    (home / t1w).write_bytes(archive[t1w])
    (home / mask).touch()  # what TemplateFlow's package leaves for a file not asked for yet
    assert templates.template_file(NAME, "T1w") == home / t1w
    assert templates.file_here(stand_in, "brain") is None
    address, handler = server(files=archive)
    fetch(at(stand_in, address))
    assert handler.asked == 1
    assert templates.template_file(NAME, "brain") == cache / mask
    assert (home / mask).read_bytes() == b""


def test_tissues_lie_where_the_head_does(installed):
    bundled, found = tissues(2.0), load_tissues(NAME, 2.0)
    for tissue in ("gm", "wm"):
        true = deformed(getattr(bundled, tissue), bundled.affine)[::-1]
        unmoved = as_if_one_space(getattr(bundled, tissue), bundled.affine)
        error, before = (
            np.abs(data - true)[found.brain].mean() for data in (getattr(found, tissue), unmoved)
        )
        assert error < 0.55 * before, tissue  # registered at 6 mm; the default is 2 mm
    about = read_sidecar(templates.template_file(NAME, "GM"))
    assert about["CorrelationNonlinear"] > about["CorrelationAffine"] > 0.8
    assert about["Sources"] == templates.carried_from(installed)
    assert set(templates.template_sources(NAME)) == {
        f"template::{name}" for name in installed.files.values()
    }


def test_get_makes_only_what_is_not_there_and_the_same_again(installed, capsys):
    """The same bytes in a process of its own; ANTs has run in this one, so to a tolerance."""
    before = contents(installed)
    verb.get(NAME)
    assert contents(installed) == before
    said = capsys.readouterr().out
    assert all(name in said for name in installed.files.values())
    path = templates.template_file(NAME, "WM")
    first = read_image(path).data
    path.write_bytes(b"damaged")
    assert not templates.is_here(NAME)
    verb.get(NAME)
    assert templates.is_here(NAME)
    assert np.corrcoef(read_image(path).data.ravel(), first.ravel())[0, 1] > 0.99


def test_tissues_of_another_release_of_the_template_do_not_count(installed, monkeypatch):
    other = dataclasses.replace(installed, md5={**installed.md5, "T1w": "0" * 32})
    monkeypatch.setitem(templates.TEMPLATES, NAME, other)
    assert templates.file_here(other, "GM") is None


def contents(template: templates.Template) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in in_cache(template)}


def as_if_one_space(data: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """A map of the bundled template on the stand-in's upright grid, as if the two were one."""
    points = np.indices(SHAPE).reshape(3, -1) * 2.0 + np.array([[-90.0], [-126], [-72]])
    voxels = (points - affine[:3, 3:]) / np.diag(affine)[:3, None]
    return ndimage.map_coordinates(data, voxels, order=1).reshape(SHAPE)


# --- its grid ----------------------------------------------------------------------------


@pytest.mark.parametrize("start", [-91.0, -90.0])
def test_at_2_mm_the_grid_is_that_of_a424(shared_data, start):
    """FSL's 1 mm grid runs from -91 to 90, or from -90 where it is stored from right to left."""
    atlas = read_image(shared_data / "A424" / "A424+2mm.nii.gz")
    fsl = np.eye(4)
    fsl[:3, 3] = start, -126, -72
    affine, shape = template_grid(fsl, (182, 218, 182), 2.0, with_origin=True)
    flipped = affine @ np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = affine[0, 3] + 2 * (shape[0] - 1)
    assert same_grid(atlas.affine, atlas.data.shape, flipped, shape)


def test_a_template_stored_from_right_to_left_is_turned(stand_in, archive):
    home = _folders(stand_in)[0]
    home.mkdir(parents=True)
    for name, content in archive.items():
        (home / name).write_bytes(content)
    raw = read_image(home / stand_in.files["T1w"])
    image = load_template(NAME, "T1w", None)
    assert (np.diag(image.affine) > 0).all()
    np.testing.assert_allclose(image.data, raw.data[::-1] / raw.data.max())
    coarse = load_template(NAME, "T1w", 4.0)
    here = np.argwhere(coarse.data > 0.3).mean(axis=0) @ coarse.affine[:3, :3]
    there = np.argwhere(image.data > 0.3).mean(axis=0) @ image.affine[:3, :3]
    np.testing.assert_allclose(here + coarse.affine[:3, 3], there + image.affine[:3, 3], atol=0.7)


# --- its use -----------------------------------------------------------------------------


def test_the_atlas_decides_the_space_where_its_template_is_here(stand_in, monkeypatch):
    atlas, own = find_atlas("A424"), find_atlas("A424approx")
    assert available_space(atlas, templates.BUNDLED) == templates.BUNDLED
    (problem, *_) = atlas_problems(atlas, templates.BUNDLED, space_ok=False)
    assert f"brainlm template get {NAME}" in str(problem)
    monkeypatch.setattr("brainlm.atlas.fetch.is_here", lambda name: name == NAME)
    assert available_space(atlas, templates.BUNDLED) == NAME
    assert available_space(own, templates.BUNDLED) == templates.BUNDLED
    assert not [p for p in atlas_problems(atlas, NAME, False) if "drawn in" in str(p)]


CONFIG = f"space: {{template: {NAME}, resolution_mm: 5}}\nnormalize: {{resolution_mm: 5}}\n"


def head_and_truth() -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """The stand-in's T1w, put elsewhere in the scanner, and where its points went."""
    image = load_template(NAME, "T1w", 3.0)
    truth = pose_from_params([8, -5, 12, 0.1, 0.05, -0.08], np.zeros(3))
    return ((1000 * image.data).astype(np.float32), truth @ image.affine), truth


def test_a_study_in_that_space_normalises_to_it(installed, tmp_path):
    t1w, truth = head_and_truth()
    study, _ = make_study(tmp_path, np.ones((4, 4, 4, 5)), np.eye(4), t1w=t1w, config=CONFIG)
    normalize_anat("sub-01", study)
    anat = study / "derivatives/brainlm/sub-01/anat"
    path = anat / f"sub-01_from-T1w_to-{NAME}_mode-image_xfm.txt"
    (found,) = read_itk_affines(path)
    assert mean_displacement(found, truth, brain_points()) < 1.0
    sources = read_sidecar(path)["Sources"]
    assert templates.template_sources(NAME).items() < sources.items()


def test_without_the_template_no_recording_is_given_up(stand_in, tmp_path):
    """It is the machine that lacks something: with the template, the same recording runs."""
    t1w = np.ones((8, 8, 8), np.float32), np.eye(4)
    t1w[0][2:5] = 2
    study, _ = make_study(tmp_path, np.ones((4, 4, 4, 5)), np.eye(4), t1w=t1w, config=CONFIG)
    with pytest.raises(InputError, match=r"not \(whole\) on this machine"):
        normalize_anat("sub-01", study, on_data_error=OnDataError.record)
    assert not (study / "qc").exists() and not (study / "derivatives").exists()
