"""The QC figure: orientation, numbers, size, bytes."""

from __future__ import annotations

import io
import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from brainlm.cli.qc_figure import qc_figure
from brainlm.dag import Dag
from brainlm.errors import DataError
from brainlm.files import read_json
from brainlm.provenance import is_tombstone
from brainlm.report.qc import draw_qc, shrink
from brainlm.report.qc_data import QCData, Reference
from brainlm.report.slices import axial_slices, canonical
from brainlm.report.style import to_png

from .report_study import FAILED, FinishedStudy

# --- slices ----------------------------------------------------------------------------------

ORIENTATIONS = [
    (axes, signs)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def oriented(axes: tuple[int, ...], signs: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A head whose right-front-top is bright at (+21, +34, +10) mm, stored in any order."""
    zooms = np.array([3.0, 2.0, 5.0])  # of the world axes R, A, S
    size = np.array([24, 50, 12])
    affine = np.eye(4)
    affine[:3, :3] = 0
    shape = [0, 0, 0]
    for voxel_axis, (world_axis, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[world_axis, voxel_axis] = sign * zooms[world_axis]
        shape[voxel_axis] = size[world_axis]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    data = np.ones(shape, dtype=np.float32)
    spot = np.linalg.inv(affine) @ [21.0, 34.0, 10.0, 1]
    data[tuple(np.round(spot[:3]).astype(int))] = 100
    return data, affine


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_slices_show_right_at_the_right_and_front_at_the_top(axes, signs):
    data, affine = oriented(axes, signs)
    slices, ratio = axial_slices(data, np.ones(data.shape, bool), affine, count=12)
    bright = max(slices, key=lambda cut: cut.image.max())
    row, column = np.unravel_index(bright.image.argmax(), bright.image.shape)
    # Columns step 3 mm from the middle of 24, rows 2 mm from the middle of 50.
    assert (column - 11.5) * 3 == pytest.approx(21, abs=1.5)
    assert (row - 24.5) * 2 == pytest.approx(34, abs=1)
    assert bright.z_mm == pytest.approx(10, abs=2.5)
    assert ratio == pytest.approx(2 / 3)
    assert [cut.z_mm for cut in slices] == sorted(cut.z_mm for cut in slices)


def test_canonical_keeps_every_voxel_at_its_place_in_the_world():
    data, affine = oriented((1, 2, 0), (-1, 1, -1))
    turned, world = canonical(data, affine)
    before = affine @ [*np.unravel_index(data.argmax(), data.shape), 1]
    after = world @ [*np.unravel_index(turned.argmax(), turned.shape), 1]
    np.testing.assert_allclose(before, after)
    assert (np.diag(world) > 0).all()


def test_slices_of_an_empty_mask_show_the_whole_image():
    data, affine = oriented((0, 1, 2), (1, 1, 1))
    slices, _ = axial_slices(data, np.zeros(data.shape, bool), affine, count=3)
    assert slices[0].image.shape == (50, 24)


# --- carpets ---------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 70), st.integers(1, 70), st.integers(1, 30), st.integers(1, 30), st.integers()
)
def test_shrink_is_the_mean_of_blocks(n, t, rows, columns, seed):
    carpet = np.random.default_rng(abs(seed)).normal(size=(n, t)).astype(np.float32)
    small = shrink(carpet, rows, columns)
    assert small.shape == (min(n, rows), min(t, columns))
    if n % rows == 0 and t % columns == 0:
        blocks = carpet.reshape(min(n, rows), -1, min(t, columns), max(1, t // columns))
        np.testing.assert_allclose(small, blocks.mean(axis=(1, 3)), atol=1e-5)
    assert small.min() >= carpet.min() - 1e-5
    assert small.max() <= carpet.max() + 1e-5


# --- the figure ------------------------------------------------------------------------------


def made_up(volumes: int = 100, tr: float = 2.0) -> QCData:
    random = np.random.default_rng(3)
    names = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
    confounds = pd.DataFrame(random.normal(0, 0.01, (volumes, 6)), columns=names)
    fd = np.full(volumes, 0.1)
    fd[0], fd[40] = np.nan, 2.0
    confounds["framewise_displacement"] = fd
    confounds["std_dvars"] = 1.0
    confounds["motion_outlier00"] = (np.arange(volumes) == 40).astype(int)
    confounds["motion_outlier01"] = (np.arange(volumes) == 41).astype(int)
    head, affine = oriented((0, 1, 2), (-1, 1, 1))
    return QCData(
        recording_id="sub-01_task-rest",
        tr=tr,
        confounds=confounds,
        fd_threshold=0.5,
        dvars_threshold=1.5,
        carpets={
            f"Carpet {when} denoising": random.normal(size=(1200, volumes)).astype(np.float16)
            for when in ("before", "after")
        },
        tissue=np.repeat(np.array([1, 2, 3], np.int8), (600, 400, 200)),
        scale="before denoising",
        reference=Reference(head, head > 0, affine),
        coverage=np.array([1.0, 0.6, 0.5, 0.2]),
        min_coverage=0.5,
        atlas="A424",
    )


def test_summary_holds_the_numbers():
    fd = np.full(99, 0.1)
    fd[39] = 2.0  # the first volume has none
    assert made_up().summary() == {
        "MeanFramewiseDisplacement": round(fd.mean(), 4),
        "MaxFramewiseDisplacement": 2.0,
        "OutlierVolumes": 2,
        "ParcelsCovered": 0.75,
    }


def test_a_recording_without_outliers_has_none():
    data = made_up()
    kept = data.confounds.drop(columns=["motion_outlier00", "motion_outlier01"])
    data = QCData(**{**data.__dict__, "confounds": kept})
    assert len(data.outliers) == 0
    assert draw_qc(data).axes


def test_what_is_not_known_has_no_panel():
    whole = made_up()
    parcels = {**whole.__dict__, "carpets": {"Parcels": np.zeros((4, 100))}, "reference": None}
    data = QCData(**{**parcels, "tissue": np.zeros(4, np.int8), "motion_known": False})
    figure = draw_qc(data)
    assert {axes.get_title("left") for axes in figure.axes} - {""} == {"Parcels"}
    assert any("head motion not known" in text.get_text() for text in figure.texts)
    assert data.summary() == {"ParcelsCovered": 0.75}
    assert to_png(figure)


def test_panels_show_the_data_in_seconds_mm_and_degrees():
    data = made_up()
    panels = {axes.get_title("left"): axes for axes in draw_qc(data).axes}
    fd = panels["Framewise displacement"]
    seconds, values = fd.lines[0].get_data()
    np.testing.assert_allclose(seconds, np.arange(100) * 2.0)
    np.testing.assert_array_equal(values, data.confounds["framewise_displacement"])
    assert list(fd.lines[1].get_ydata()) == [0.5, 0.5]
    shaded = [patch.get_x() for patch in fd.patches]
    assert shaded == [79.0, 81.0]  # volumes 40 and 41, centred on their times
    yaw = panels["Rotations"].lines[2].get_ydata()
    np.testing.assert_allclose(yaw, np.rad2deg(data.confounds["rot_z"]))
    ticks = panels["Carpet after denoising"].lines[0].get_xdata()
    np.testing.assert_allclose(ticks, [81.0, 83.0])
    assert panels["Carpet before denoising"].get_xlim() == fd.get_xlim() == (0, 200)


def test_png_is_small_wide_and_always_the_same():
    data = made_up(volumes=1200, tr=0.72)  # noise of HCP's length: the worst case
    first, second = to_png(draw_qc(data)), to_png(draw_qc(data))
    assert first == second
    assert len(first) < 250_000
    picture = Picture.open(io.BytesIO(first))
    assert picture.size[0] == 1400
    assert picture.info.keys() <= {"transparency"}  # no date, no software
    assert picture.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


# --- the command -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> FinishedStudy:
    made = FinishedStudy(tmp_path_factory.mktemp("study"), resolution_mm=6.0).write()
    made.write_quality(made.ids[:2])
    return made


def test_command_draws_and_notes_sources(finished):
    name = finished.ids[0]
    qc_figure([name], study=finished.study.root)
    path = finished.path("qc_figure", recording=name)
    sidecar = read_json(path.with_suffix(".json"))
    assert sidecar["OutlierVolumes"] == 1
    assert sidecar["Stage"] == "qc-figure"
    assert len(sidecar["Sources"]) == 15
    page = finished.path("qc_page", recording=name)
    first = path.read_bytes(), page.read_bytes(), page.with_suffix(".json").read_bytes()
    qc_figure([name], study=finished.study.root)
    again = path.read_bytes(), page.read_bytes(), page.with_suffix(".json").read_bytes()
    assert again == first


def test_the_mask_is_drawn_on_the_image_that_it_was_made_of(tmp_path):
    """Where distortion is corrected, the brain mask belongs to the undistorted reference."""
    made = FinishedStudy(tmp_path, resolution_mm=6.0).write()
    made.write_quality(made.ids[:2])
    name = made.ids[0]
    table = pd.read_parquet(made.path("recordings"))
    table.loc[table["recording_id"] == name, "fmap_kind"] = "phasediff"
    table.to_parquet(made.path("recordings"))
    undistorted = made.of_recording("unwarped_boldref", name)
    undistorted.write_bytes(made.of_recording("boldref", name).read_bytes())
    made.sidecar(undistorted, "fieldmap", name)
    qc_figure(made.ids[:2], study=tmp_path)
    for recording, wanted in zip(made.ids[:2], ("unwarped_boldref", "boldref"), strict=True):
        about = read_json(made.path("qc_figure", recording=recording).with_suffix(".json"))
        drawn = [path for path in about["Sources"] if path.endswith("boldref.nii.gz")]
        page = read_json(made.path("qc_page", recording=recording).with_suffix(".json"))
        assert drawn[0] in page["Sources"]
        assert drawn == [str(made.of_recording(wanted, recording).relative_to(tmp_path))]
    asked = Dag(yaml.safe_load(made.path("config").read_text()), tmp_path).batch_inputs(
        SimpleNamespace(batch="0000")
    )
    assert sum(path.endswith("desc-unwarped_boldref.nii.gz") for path in asked) == 1


def test_batch_notes_a_given_up_recording_and_goes_on(finished):
    root = finished.study.root
    qc_figure([FAILED, finished.ids[1]], study=root, batch="0000")
    assert is_tombstone(finished.path("qc_figure", recording=FAILED))
    lines = finished.path("qc_batch", batch="0000").read_text().splitlines()
    assert lines[1] == f"{FAILED}\tn/a"
    assert len(lines[2].split("\t")[1]) == 64
    # The reason that the earlier stage wrote is still there.
    assert read_json(finished.path("failure", recording=FAILED))["stage"] == "motion"


def test_another_subjects_file_is_refused(tmp_path):
    made = FinishedStudy(tmp_path)
    made.write()
    mine, other = made.ids[0], made.ids[1]
    for kind in ("confounds",):
        source, target = made.of_recording(kind, other), made.of_recording(kind, mine)
        target.write_bytes(source.read_bytes())
        target.with_suffix(".json").write_bytes(source.with_suffix(".json").read_bytes())
    with pytest.raises(DataError, match="not of"):
        qc_figure([mine], study=tmp_path)
