"""The one walk through a BIDS dataset, and the sidecars that it finds."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest

from brainlm.bids import walk
from brainlm.bids.place import box_overlap

from .small_bids import BOLD, make_bids, write_json


@pytest.fixture
def bids(tmp_path):
    return make_bids(tmp_path / "bids")


def test_each_folder_is_listed_once_and_derivatives_never(bids, monkeypatch):
    (bids / "derivatives/sub-09/func").mkdir(parents=True)
    (bids / "sub-01/dwi").mkdir()
    (bids / "sub-01/func/sub-01_task-gone_bold.nii.gz").symlink_to("nothing")
    listed: Counter[str] = Counter()
    real = os.scandir

    def counting(path):
        listed[os.path.relpath(path, bids)] += 1
        return real(path)

    monkeypatch.setattr(walk.os, "scandir", counting)
    found = walk.find_images(bids)
    assert set(listed.values()) == {1}
    assert set(listed) == {
        ".", "sub-01", "sub-01/func", "sub-01/anat", "sub-02", "sub-02/ses-1", "sub-02/ses-2",
        "sub-02/ses-1/func", "sub-02/ses-1/anat", "sub-02/ses-2/func", "sub-03", "sub-03/func",
    }  # fmt: skip
    assert [image.path for image in found.bolds] == sorted(image.path for image in found.bolds)
    assert len(found.bolds) == 5 and len(found.t1ws) == 2 and found.maps == []
    sidecars = walk.Sidecars(bids, found.sidecars)
    for image in found.bolds:
        sidecars.metadata(image, "bold")
    assert set(listed.values()) == {1}


def test_what_only_one_image_uses_is_not_kept(bids):
    write_json(bids / "sub-01/sub-01_bold.json", EchoTime=1)
    write_json(bids / f"{BOLD}.json", FlipAngle=9)
    found = walk.find_images(bids)
    sidecars = walk.Sidecars(bids, found.sidecars)
    told = [sidecars.metadata(image, "bold") for image in found.bolds]
    assert told[0] == ({"RepetitionTime": 2.0, "EchoTime": 1, "FlipAngle": 9}, [])
    assert set(sidecars._shared) == {"task-rest_bold.json", "sub-01/sub-01_bold.json"}
    (bids / "task-rest_bold.json").unlink()  # read once, for all
    assert sidecars.metadata(found.bolds[-1], "bold")[0] == {"RepetitionTime": 2.0}


@pytest.mark.parametrize("content", ["[1]", '"text"', "3", "null", "true"])
def test_json_that_is_no_object_is_a_fault(bids, content):
    (bids / f"{BOLD}.json").write_text(content)
    found = walk.find_images(bids)
    fields, faults = walk.Sidecars(bids, found.sidecars).metadata(found.bolds[0], "bold")
    assert fields == {"RepetitionTime": 2.0}
    assert faults == [f"{BOLD}.json is not a JSON object"]


def test_the_box_of_an_oblique_grid_holds_all_corners():
    rng = np.random.default_rng(0)
    for _ in range(20):
        affines = [np.vstack([rng.normal(0, 2, (3, 4)), [0, 0, 0, 1]]) for _ in range(2)]
        shapes = rng.integers(2, 9, (2, 3))
        boxes = []
        for affine, shape in zip(affines, shapes, strict=True):
            ends = [(-0.5, n - 0.5) for n in shape]
            corners = np.array(np.meshgrid(*ends, [1.0])).reshape(4, -1)
            world = (affine @ corners)[:3]
            boxes.append((world.min(axis=1), world.max(axis=1)))
        (low_a, high_a), (low_b, high_b) = boxes
        inside = np.clip(np.minimum(high_a, high_b) - np.maximum(low_a, low_b), 0, None).prod()
        least = min((high_a - low_a).prod(), (high_b - low_b).prod())
        found = box_overlap(affines[0], shapes[0], affines[1], shapes[1])
        assert found == pytest.approx(inside / least)
