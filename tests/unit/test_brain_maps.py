"""Brains that show numbers of parcels: the right parcel at the right place, without a network."""

from __future__ import annotations

import socket
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from brainlm.atlas.table import load_table
from brainlm.report.brain_maps import BrainMap
from brainlm.report.cortex import hemispheres
from brainlm.report.style import to_full_png

TABLE = load_table()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a picture asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def boxes(tmp_path: Path) -> BrainMap:
    """Four parcels of cortex, one to each quarter seen from above, and one of the cerebellum."""
    parcels = pd.DataFrame(
        {
            "index": [3, 5, 7, 9, 12],
            "structure": ["cortex"] * 4 + ["cerebellum"],
            "x": [-35.0, 35.0, -35.0, 35.0, 0.0],
            "y": [40.0, 40.0, -60.0, -60.0, -60.0],
            "z": [20.0, 20.0, 20.0, 20.0, -40.0],
        }
    )
    affine = np.array([[4.0, 0, 0, -90], [0, 4, 0, -126], [0, 0, 4, -72], [0, 0, 0, 1]])
    x, y, z = np.moveaxis(np.indices((46, 55, 46)), 0, -1).reshape(-1, 3).T
    where = np.stack([x, y, z], axis=1) @ affine[:3, :3].T + affine[:3, 3]
    number = np.where(where[:, 1] > -10, 3, 7) + 2 * (where[:, 0] > 0)
    number[where[:, 2] < -25] = 12
    image = nib.Nifti1Image(number.reshape(46, 55, 46).astype(np.int16), affine)
    nib.save(image, tmp_path / "atlas.nii.gz")
    return BrainMap(parcels, tmp_path / "atlas.nii.gz")


def test_vertices_show_the_parcel_where_they_lie(boxes: BrainMap) -> None:
    for side, front, back in (("left", 0, 2), ("right", 1, 3)):
        place, shown = hemispheres()[side].anatomy, boxes.vertices[side]
        above = place[:, 2] > -15
        assert (shown[above & (place[:, 1] > 0)] == front).mean() > 0.99
        assert (shown[above & (place[:, 1] < -20)] == back).mean() > 0.99
        assert not (shown == 4).any()  # the cerebellum is no cortex
        assert (shown[place[:, 2] < -33] == -1).all()


def test_centres_stand_for_parcels_of_their_own_side() -> None:
    vertices = BrainMap(TABLE).vertices
    for side, letter in (("left", "L"), ("right", "R")):
        rows = vertices[side][vertices[side] >= 0]
        assert (TABLE["structure"].iloc[rows] == "cortex").all()
        far = rows[np.abs(TABLE["x"].iloc[rows]) > 2]
        assert (TABLE["hemisphere"].iloc[far] == letter).all()
        assert len(np.unique(rows)) > 150  # of 180


@pytest.mark.parametrize("kind", ["glass", "surface"])
def test_pictures_show_what_is_known_and_equal_ones_are_equal(boxes: BrainMap, kind: str) -> None:
    def draw(values: list[float]) -> bytes:
        return to_full_png(getattr(boxes, kind)(np.array(values), "share"))

    first = draw([0.1, 0.2, 0.3, 0.4, 0.5])
    assert first == draw([0.1, 0.2, 0.3, 0.4, 0.5])
    assert first != draw([0.4, 0.2, 0.3, 0.1, 0.5])
    assert draw([np.nan] * 5)  # nothing to show is no error


def test_an_interactive_view_is_whole_in_itself(boxes: BrainMap) -> None:
    page = boxes.interactive(np.array([0.1, 0.2, np.nan, -0.4, 0.5]), "difference")
    assert "difference (4 parcels)" in page
    assert "<script src" not in page
    within = boxes.interactive(np.array([np.nan] * 4 + [1.0]), "cerebellum")
    assert "cerebellum (1 parcels)" in within


def test_categories_have_a_legend() -> None:
    figure = BrainMap(TABLE).surface(np.arange(424) % 3.0, "network", ["one", "two", "three"])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two", "three"]


def test_colours_of_differences_have_0_in_their_middle() -> None:
    values = np.full(424, np.nan)
    values[:2] = 0.1, 0.4
    brain = BrainMap(TABLE)
    for signed, low in ((True, -0.4), (False, 0.1)):
        bar = brain.surface(values, "effect", signed=signed).axes[-1]
        assert bar.get_ylim() == pytest.approx((low, 0.4))
