"""Atlas table, stand-in, registry, download, and the study's label image."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np
import pytest

from brainlm.atlas import available_atlas, load_table, read_table
from brainlm.atlas.build import GREY_MATTER, approximate_labels
from brainlm.atlas.fetch import cached_path, get_atlas, locate
from brainlm.atlas.labels import beyond_grid, read_labels, resample_labels
from brainlm.atlas.registry import Atlas, find_atlas, find_dense, load_registry
from brainlm.cli.prepare_atlas import prepare_atlas
from brainlm.errors import DataError, InputError, ResourceError
from brainlm.geometry import same_grid
from brainlm.images import Image, load_template, write_image
from brainlm.parcellate.cifti import read_dlabel
from brainlm.provenance import read_sidecar, sha256_file
from brainlm.stages import params_to_json

from .loopback import Server, serving

SPACE = "MNI152NLin2009aSym"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BRAINLM_REGISTRY", raising=False)


# --- the table ---------------------------------------------------------------------------


def test_table_has_the_424_parcels_in_order():
    table = load_table()
    assert table["index"].tolist() == list(range(1, 425))
    assert table["name"].is_unique
    assert table["structure"].value_counts().to_dict() == {
        "cortex": 360,
        "subcortex": 36,
        "cerebellum": 28,
    }
    assert (table["yeo7_network"] == "n/a").sum() == 64
    assert table["yeo7_share"].isna().sum() == 64
    first = table.iloc[0]
    assert (first["name"], first.x, first.y, first.z) == ("R_V1_ROI", 14, -78, 4)
    assert table["y"].nunique() == 77


def test_table_agrees_with_the_published_figures(shared_data):
    ours, theirs = load_table(), read_table(shared_data / "A424" / "parcels.tsv")
    assert ours.equals(theirs)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("index\tname\n1\ta\n", "lacks the columns x, y, z"),
        ("index\tname\tx\ty\tz\n1\ta\t0\t0\t0\n1\tb\t0\t0\t0\n", "index 1 more than once"),
        ("index\tname\tx\ty\tz\n1\ta\t0\t0\t0\n2\ta\t0\t0\t0\n", "name a more than once"),
        ("index\tname\tx\ty\tz\n0\ta\t0\t0\t0\n", "start at 1"),
        ("index\tname\tx\ty\tz\n1\ta\tleft\t0\t0\n", "x of the atlas table must hold numbers"),
        ("", "cannot be read: No columns"),
        ("index\tname\tx\ty\tz\n1\ta\t0\t0\t0\n2\tb\t0\t0\t0\t9\n", "cannot be read: .*line 3"),
    ],
)
def test_a_faulty_table_is_refused(tmp_path, text, fault):
    path = tmp_path / "table.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=fault):
        read_table(path)


# --- the stand-in ------------------------------------------------------------------------


@pytest.mark.parametrize("zoom", [2.0, 3.0, 4.0, 8.0])
def test_every_parcel_of_the_stand_in_has_a_voxel(zoom):
    labels = approximate_labels(load_table(), SPACE, zoom)
    assert labels.data.dtype == np.int16
    assert set(np.unique(labels.data)) == set(range(425))
    template = load_template(SPACE, "GM", zoom)
    assert same_grid(labels.affine, labels.data.shape, template.affine, template.data.shape)
    assert ((labels.data > 0) == (template.data > GREY_MATTER)).all()


def test_the_stand_in_takes_the_nearest_centre_and_the_first_of_equals():
    table = load_table()
    labels = approximate_labels(table, SPACE, 4.0)
    voxels = np.argwhere(labels.data > 0)
    points = voxels @ labels.affine[:3, :3].T + labels.affine[:3, 3]
    centers = table[["x", "y", "z"]].to_numpy(float)
    distances = np.round(((points[:, None] - centers) ** 2).sum(axis=2), 6)
    expected = distances.argmin(axis=1) + 1
    assert (labels.data[tuple(voxels.T)] == expected).all()
    assert ((distances == distances.min(axis=1, keepdims=True)).sum(axis=1) > 1).any()


def test_the_stand_in_lies_where_the_real_atlas_lies(shared_data):
    real = read_labels(shared_data / "A424" / "A424+2mm.nii.gz")
    ours = approximate_labels(load_table(), SPACE, 2.0)
    moved = resample_labels(real, ours.affine, ours.data.shape)
    both = (moved > 0) & (ours.data > 0)
    assert both.sum() > 80_000
    assert np.mean(moved[both] == ours.data[both]) > 0.5


# --- moving labels -----------------------------------------------------------------------


def test_labels_move_in_world_space():
    rng = np.random.default_rng(0)
    data = rng.integers(0, 50, (7, 8, 9)).astype(np.int16)
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = -6, -7, -8
    flipped = affine.copy()
    flipped[0, 0], flipped[0, 3] = -2, -6 + 2 * 6  # the same places, stored right to left
    moved = resample_labels(Image(data, affine), flipped, data.shape)
    assert (moved == data[::-1]).all()
    finer = affine.copy()
    finer[:3, :3] /= 2
    finer[:3, 3] -= 0.5  # voxel centres of the halved voxels
    doubled = resample_labels(Image(data, affine), finer, (14, 16, 18))
    assert (doubled == data.repeat(2, 0).repeat(2, 1).repeat(2, 2)).all()
    outside = affine.copy()
    outside[0, 3] += 100
    assert not resample_labels(Image(data, affine), outside, data.shape).any()


def test_voxels_beyond_the_grid_are_counted_on_its_lattice():
    """Whatever the grid's size, steps and orientation: seen and unseen voxels add up."""
    rng = np.random.default_rng(0)
    labels = Image(rng.integers(0, 5, (9, 10, 11)).astype(np.int16), np.diag([2.0, 2, 2, 1]))
    numbers = np.arange(1, 6)  # 5 has no voxel

    def sizes(data):
        return np.bincount(data.ravel(), minlength=6)[1:]

    window = np.diag([2.0, 2, 2, 1])
    window[:3, 3] = 4, -6, 2
    shown = resample_labels(labels, window, (4, 9, 30))
    beyond = beyond_grid(labels, window, (4, 9, 30), numbers)
    assert (sizes(shown) + beyond == sizes(labels.data)).all() and (beyond[:4] > 0).all()
    turned = window @ [[-1, 0, 0, 3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert (beyond_grid(labels, turned, (4, 9, 30), numbers) == beyond).all()
    coarse = np.diag([4.0, 4, 4, 1])
    everywhere = sizes(resample_labels(labels, coarse, (9, 9, 9)))
    few = resample_labels(labels, coarse, (2, 3, 1))
    assert (sizes(few) + beyond_grid(labels, coarse, (2, 3, 1), numbers) == everywhere).all()
    assert not beyond_grid(labels, labels.affine, labels.data.shape, numbers).any()
    away = labels.affine.copy()
    away[0, 3] = 500
    assert (beyond_grid(labels, away, (3, 3, 3), numbers) == sizes(labels.data)).all()
    nothing = Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
    assert not beyond_grid(nothing, window, (4, 9, 30), numbers).any()
    away[:3, 3] = 1e6  # a header gone wrong takes no more memory than another
    assert (beyond_grid(labels, away, (3, 3, 3), numbers) == sizes(labels.data)).all()
    with pytest.raises(DataError, match="voxels so small"):
        beyond_grid(labels, np.diag([0.001, 0.001, 0.001, 1]), (3, 3, 3), numbers)


def test_moving_the_real_atlas_keeps_each_parcel_in_place(shared_data):
    real = read_labels(shared_data / "A424" / "A424+2mm.nii.gz")
    grid = load_template(SPACE, "GM", 2.0)
    moved = resample_labels(real, grid.affine, grid.data.shape)
    for label in (1, 180, 181, 361, 400):
        here = np.argwhere(moved == label).mean(axis=0) @ grid.affine[:3, :3].T
        there = np.argwhere(real.data == label).mean(axis=0) @ real.affine[:3, :3].T
        distance = np.linalg.norm(here + grid.affine[:3, 3] - there - real.affine[:3, 3])
        assert distance < 1.0


def test_only_whole_3d_labels_are_read(tmp_path):
    path = tmp_path / "probabilities.nii.gz"
    write_image(path, np.full((3, 3, 3), 0.4, np.float32), np.eye(4))
    with pytest.raises(InputError, match="whole label numbers"):
        read_labels(path)


# --- registry and download ---------------------------------------------------------------


def test_the_registry_is_pinned_to_a_commit_and_checksums(shared_data):
    files = {"A424": "A424+2mm", "A424thin": "A424", "A424+4mm": "A424+4mm"}
    for name, file in files.items():
        atlas = find_atlas(name)
        assert "b591d88d0efffc0f059c73dfca1f293554795af1" in atlas.url
        assert atlas.url.endswith(f"/{file}.nii.gz")
        path = shared_data / "A424" / f"{file}.nii.gz"
        assert sha256_file(path) == atlas.sha256
        assert len(np.unique(read_labels(path).data)) - 1 == atlas.n_labels
    assert find_atlas("AAL-424") == find_atlas("A424")


def test_the_atlas_of_grayordinates_is_pinned_and_goes_by_the_name_of_the_image(shared_data):
    dense = find_dense("A424")
    assert dense == find_dense("A424dense") == find_dense("AAL-424") == find_atlas("A424-dense")
    assert "b591d88d0efffc0f059c73dfca1f293554795af1" in dense.url
    published = shared_data / "A424" / "A424.dlabel.nii"
    assert dense.url.endswith(f"/{published.name}") and sha256_file(published) == dense.sha256
    assert (dense.space, dense.n_labels) == ("fsLR", 424)
    assert get_atlas(dense, str(published)) == cached_path(dense) == locate(find_dense("A424"))
    assert cached_path(dense).name == "A424dense.dlabel.nii"
    labels = read_dlabel(cached_path(dense))
    assert [labels.names[n] for n in range(1, 425)] == read_table(dense.table)["name"].tolist()
    with pytest.raises(InputError, match="A424thin has no labels for grayordinates"):
        find_dense("A424thin")


@pytest.fixture
def serve():
    with serving() as start:

        def at(**settings) -> tuple[str, type[Server]]:
            address, handler = start(**settings)
            return f"{address}/atlas.nii.gz", handler

        yield at


def _atlas(url: str | None, body: bytes = b"labels") -> Atlas:
    return Atlas(
        "tested",
        Path("table.tsv"),
        3,
        space=SPACE,
        url=url,
        sha256=hashlib.sha256(body).hexdigest(),
    )


def _kept() -> list[Path]:
    folder = cached_path(_atlas("x")).parent
    return list(folder.iterdir()) if folder.exists() else []


fetch = functools.partial(get_atlas, pause_s=0.0)


def test_get_downloads_once(serve):
    url, handler = serve()
    path = fetch(_atlas(url))
    assert path.read_bytes() == b"labels"
    assert fetch(_atlas(url)) == path
    assert handler.asked == 1
    assert _kept() == [path]


def test_labels_of_grayordinates_keep_their_extension(serve):
    url, handler = serve()
    atlas = _atlas(url.replace("atlas.nii.gz", "A424.dlabel.nii"))
    path = fetch(atlas)
    assert path.name == "tested.dlabel.nii" and path.read_bytes() == b"labels"
    assert fetch(atlas) == locate(atlas) == path
    assert handler.asked == 1


def test_get_tries_again_when_the_failure_may_pass(serve):
    url, handler = serve(failures=2)
    assert fetch(_atlas(url)).read_bytes() == b"labels"
    assert handler.asked == 3


def test_get_replaces_a_damaged_copy(serve):
    url, _ = serve()
    path = cached_path(_atlas(url))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="checksum differs"):
        locate(_atlas(url))
    assert fetch(_atlas(url)).read_bytes() == b"labels"


@pytest.mark.parametrize("settings", [{"failures": 99}, {"cut": True}])
def test_a_failed_download_says_what_to_do_and_leaves_nothing(serve, settings):
    url, handler = serve(**settings)
    atlas = _atlas(url)
    with pytest.raises(ResourceError) as caught:
        fetch(atlas)
    assert handler.asked == 4
    for part in (url, atlas.sha256, "--from", str(cached_path(atlas))):
        assert part in str(caught.value)
    assert _kept() == []


def test_without_a_network_the_error_is_clear():
    with pytest.raises(ResourceError, match="could not be downloaded"):
        fetch(_atlas("http://127.0.0.1:9/atlas.nii.gz"), attempts=2)
    assert _kept() == []


def test_wrong_bytes_are_refused_and_not_kept(serve, tmp_path):
    url, _ = serve(body=b"other")
    with pytest.raises(InputError, match="SHA-256"):
        fetch(_atlas(url))
    file = tmp_path / "file.nii.gz"
    file.write_bytes(b"other")
    with pytest.raises(InputError, match="SHA-256"):
        fetch(_atlas(url), str(file))
    with pytest.raises(InputError, match="does not exist"):
        fetch(_atlas(url), str(tmp_path / "absent"))
    assert _kept() == []


def test_get_from_a_file():
    source = Path(cached_path(_atlas("x"))).parents[2] / "copy.nii.gz"
    source.write_bytes(b"labels")
    assert fetch(_atlas("http://127.0.0.1:9/x"), str(source)).read_bytes() == b"labels"


def test_available_atlas_falls_back_on_the_stand_in(shared_data):
    assert available_atlas() == "A424approx"
    get_atlas(find_atlas("A424"), str(shared_data / "A424" / "A424+2mm.nii.gz"))
    assert available_atlas() == "A424"


def _register(tmp_path, monkeypatch, text: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    monkeypatch.setenv("BRAINLM_REGISTRY", str(tmp_path / "own.yaml"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("atlases: [{name: mine, table: t.tsv}]", "lacks: n_labels"),
        ("atlases: [{name: A424, table: t, n_labels: 1, path: p, space: s}]", "Two atlases"),
        ("atlases: [{name: m, table: t, n_labels: 1, url: u, space: s}]", "no sha256"),
        ("atlases: [{name: m, table: t, n_labels: 1, path: p}]", "in which space"),
        ("atlases: [{name: m, table: t, n_labels: 1, space: s}]", "one of url, path or built"),
        ("atlases: [{name: m, tabel: t}]", "unknown keys: tabel"),
        ("mine: yes", "a list called"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_faulty_registry_is_refused(tmp_path, monkeypatch, text, fault):
    _register(tmp_path, monkeypatch, text)
    with pytest.raises(InputError, match=fault):
        load_registry()


# --- the stage ---------------------------------------------------------------------------


def _params(name: str, zoom: float = 6.0, space_ok: bool = False) -> str:
    return params_to_json(
        {
            "atlas": {"name": name, "space_ok": space_ok},
            "space": {"template": SPACE, "resolution_mm": zoom},
        }
    )


def test_prepare_atlas_builds_the_stand_in_and_says_so(tmp_path):
    for study in ("one", "two"):
        prepare_atlas(tmp_path / study, _params("A424approx"))
    path = tmp_path / "one/atlas" / f"atlas-A424approx_space-{SPACE}_res-6_dseg.nii.gz"
    assert set(np.unique(read_labels(path).data)) == set(range(425))
    assert read_sidecar(path)["Approximate"] is True
    written = sorted((tmp_path / "one").rglob("*.*"))
    assert len(written) == 4
    for file in written:
        assert (
            file.read_bytes()
            == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()
        )
    assert read_table(tmp_path / "one/atlas/atlas-A424approx_dseg.tsv").equals(load_table())


def test_prepare_atlas_without_the_real_one_says_how_to_get_it(tmp_path):
    with pytest.raises(InputError, match="not on this machine") as caught:
        prepare_atlas(tmp_path, _params("A424", space_ok=True))
    assert "brainlm atlas get A424" in str(caught.value)
    assert "A424approx" in str(caught.value)


def test_prepare_atlas_refuses_another_space(tmp_path):
    with pytest.raises(InputError, match=r"MNI152NLin6Asym.*MNI152NLin2009aSym"):
        prepare_atlas(tmp_path, _params("A424"))


def test_prepare_atlas_refuses_labels_of_grayordinates(tmp_path):
    with pytest.raises(InputError, match="A424dense labels grayordinates"):
        prepare_atlas(tmp_path, _params("A424dense", space_ok=True))
    with pytest.raises(InputError, match="not on this machine") as caught:
        locate(find_dense("A424"))
    assert caught.value.fix == "`brainlm atlas get A424dense` where there is a network"


def test_prepare_atlas_moves_an_atlas_of_the_user(tmp_path, monkeypatch):
    """Two half-spaces, drawn left to right on a coarse grid, end on their sides."""
    data = np.ones((20, 24, 20), np.int16)
    data[10:] = 2
    affine = np.array([[-10.0, 0, 0, 95], [0, 10, 0, -130], [0, 0, 10, -80], [0, 0, 0, 1]])
    write_image(tmp_path / "halves.nii.gz", data, affine)
    (tmp_path / "halves.tsv").write_text(
        "index\tname\tx\ty\tz\n1\tright\t40\t0\t0\n2\tleft\t-40\t0\t0\n3\tnone\t0\t0\t0\n"
    )
    _register(
        tmp_path,
        monkeypatch,
        "atlases: [{name: halves, table: halves.tsv, path: halves.nii.gz, n_labels: 2, "
        f"space: {SPACE}}}]",
    )
    prepare_atlas(tmp_path / "study", _params("halves", zoom=5.0))
    path = tmp_path / "study/atlas" / f"atlas-halves_space-{SPACE}_res-5_dseg.nii.gz"
    labels = read_labels(path)
    x = labels.affine[0, 0] * np.arange(labels.data.shape[0]) + labels.affine[0, 3]
    middle = labels.data[:, labels.data.shape[1] // 2, labels.data.shape[2] // 2]
    assert (middle[(x > 0) & (x < 90)] == 1).all()
    assert (middle[(x < 0) & (x > -90)] == 2).all()
    assert read_sidecar(path)["ParcelsWithoutVoxel"] == ["none"]
    assert read_sidecar(path)["Sources"] == {
        "atlas::halves.nii.gz": sha256_file(tmp_path / "halves.nii.gz")
    }
