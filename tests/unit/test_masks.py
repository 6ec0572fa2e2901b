"""The masks published with ICA-AROMA: fetched, checked, laid on a study's grid."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from brainlm import masks
from brainlm.bids.study import study_config
from brainlm.denoise.aroma import spatial_fractions
from brainlm.denoise.regions import published_regions
from brainlm.errors import InputError, ResourceError
from brainlm.images import Image, read_image
from brainlm.layout import Study

from .loopback import serving

FILES = {f"mask_{name}.nii.gz": name.encode() for name in masks.MASKS}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and checksums of files that hold their own names."""
    monkeypatch.setenv("BRAINLM_CACHE", str(tmp_path / "cache"))
    for name in masks.MASKS:
        monkeypatch.setitem(masks.MASKS, name, hashlib.sha256(name.encode()).hexdigest())


def test_masks_are_fetched_once_and_checked(cache):
    with serving() as start:
        address, handler = start(files=FILES)
        paths = masks.fetch_masks(address, attempts=1)
        assert masks.masks_here() and handler.asked == 3
        masks.fetch_masks(address, attempts=1)
        assert handler.asked == 3
        paths["edge"].write_bytes(b"other")
        assert not masks.masks_here()
        bad, _ = start(files={**FILES, "mask_edge.nii.gz": b"wrong"})
        with pytest.raises(InputError, match="not mask edge"):
            masks.fetch_masks(bad, attempts=1)


def test_without_a_network_it_says_what_to_do(cache, monkeypatch):
    monkeypatch.setattr(masks, "_ADDRESS", "http://127.0.0.1:9")
    with pytest.raises(ResourceError, match="could not be downloaded") as caught:
        masks.fetch_masks(attempts=1)
    assert "brainlm masks get --from FOLDER" in str(caught.value)


def test_another_space_needs_consent_and_absence_a_remedy(cache, tmp_path):
    space, absent = masks.mask_problems("MNI152NLin2009aSym", space_ok=False)
    assert "masks_space_ok" in str(space) and "brainlm masks get" in str(absent)
    assert len(masks.mask_problems("MNI152NLin2009aSym", space_ok=True)) == 1
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    masks.fetch_masks(str(tmp_path))
    assert masks.mask_problems(masks.SPACE, space_ok=False) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"space": {"template": masks.SPACE}}, "aroma"),
        ({"space": {"template": masks.SPACE}, "ica": {"masks": "template"}}, "template"),
        ({"space": {"template": "MNI152NLin2009aSym"}}, "template"),
    ],
)
def test_a_new_study_takes_them_where_they_fit(cache, tmp_path, changes, expected):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    study, bids = Study(tmp_path / "study"), tmp_path / "bids"
    assert study_config(study, bids, changes).ica.masks == "template"
    masks.fetch_masks(str(tmp_path))
    assert study_config(study, bids, changes).ica.masks == expected


def test_masks_go_to_the_nearest_voxel_and_beyond_them_is_outside():
    """Their grid is stored from right to left, at another voxel size, and ends early."""
    affine = np.diag([-2.0, 2, 2, 1])
    affine[0, 3] = 6
    data = {name: np.zeros((4, 3, 3), dtype=np.float32) for name in masks.MASKS}
    data["csf"][0] = 1  # x = 6 mm
    data["edge"][1] = 1  # x = 4 mm
    data["out"][3] = 1  # x = 0 mm
    images = {name: Image(values, affine) for name, values in data.items()}
    mask = np.zeros((10, 5, 5), dtype=bool)
    mask[:, 2, 2] = True  # x = 0 ... 9 mm; one half way goes to the higher index, to the left
    found = published_regions(images, mask, np.eye(4))
    assert np.flatnonzero(found.csf).tolist() == [6, 7]
    assert np.flatnonzero(found.edge).tolist() == [4, 5]
    assert np.flatnonzero(found.outside).tolist() == [0, 1, 8, 9]
    edge, csf = spatial_fractions(np.ones((1, 10)), found)
    assert csf[0] == pytest.approx(2 / 10) and edge[0] == pytest.approx(6 / 8)


def test_the_published_masks_themselves(shared_data):
    """The bytes that are registered, on their own grid and over a brain: they do not overlap."""
    folder = shared_data / "aroma"
    images = {}
    for name in masks.MASKS:
        assert masks.pinned(name).is_at(folder / f"mask_{name}.nii.gz")
        images[name] = read_image(folder / f"mask_{name}.nii.gz")
    brain = images["out"].data == 0
    found = published_regions(images, brain, images["out"].affine)
    assert (found.csf.sum(), found.edge.sum(), found.outside.sum()) == (
        (images["csf"].data > 0)[brain].sum(),
        (images["edge"].data > 0)[brain].sum(),
        0,
    )
    assert not (found.csf & found.edge).any()
