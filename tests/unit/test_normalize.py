from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from brainlm.errors import DataError
from brainlm.geometry import pose_from_params, read_itk_affines
from brainlm.images import Image, read_image
from brainlm.preproc.checks import check_anatomy
from brainlm.preproc.grids import resample_onto, shrink
from brainlm.preproc.masks import dice, foreground_mask
from brainlm.preproc.normalize import (
    Anatomy,
    Overlap,
    bold_to_t1w,
    bold_to_template,
    check_anatomy_quality,
    check_overlap,
    check_same_place,
    even_out,
    normalize_anat,
    overlap_with_template,
)
from brainlm.preproc.search import search_start

from .synthetic_head import (
    brain_points,
    brainlm,
    bytes_below,
    centered_affine,
    make_study,
    mean_displacement,
    moving_run,
    sample_head,
    tissues,
)

ZOOM = 4.0  # of the registrations here: half the time of the default 3 mm


def displaced_t1w(
    transform: np.ndarray, *, skull: bool, bias: float = 0.0
) -> tuple[Image, np.ndarray]:
    """A 2 mm T1w whose point `transform @ x` shows the template's `x`, and its true brain."""
    source = tissues(2.0)
    head = source.t1w.copy()
    if skull:  # dark CSF and bone, then a bright scalp, which the template does not have
        distance = ndimage.distance_transform_edt(~source.brain, sampling=2.0)
        head[(distance > 8) & (distance < 14)] = 0.9
        head[(distance > 0) & (distance < 4)] = 0.2
    affine = centered_affine((100, 120, 110), 2.0, center=(5, -10, 20))
    pull = np.linalg.inv(source.affine) @ np.linalg.inv(transform) @ affine

    def bring(data: np.ndarray) -> np.ndarray:
        return ndimage.affine_transform(data, pull[:3, :3], pull[:3, 3], (100, 120, 110), order=1)

    gain = 1 + bias * np.linspace(-1, 1, 120)[None, :, None]
    brain = bring(source.brain.astype(np.float32)) > 0.5
    return Image((bring(head) * gain * 800).astype(np.float32), affine), brain


def affine_truth(params: list[float], scales: tuple[float, float, float]) -> np.ndarray:
    return pose_from_params(params, np.zeros(3)) @ np.diag([*scales, 1.0])


@pytest.mark.parametrize(
    ("truth", "skull"),
    [
        (affine_truth([4, -6, 8, 0.1, 0.03, -0.05], (1.05, 0.96, 1.08)), True),
        (affine_truth([20, 35, -30, 0.4, 0.1, 0.1], (0.95, 1.0, 0.95)), False),
    ],
)
def test_t1w_is_brought_to_the_template(truth: np.ndarray, skull: bool) -> None:
    t1w, true_brain = displaced_t1w(truth, skull=skull, bias=0.3)
    found = normalize_anat(t1w, tissues(ZOOM))
    assert mean_displacement(found.t1w_to_mni, truth, brain_points()) < 1.0
    assert dice(found.brain > 0, true_brain) > 0.96
    assert found.correlation > 0.85
    check_anatomy_quality(found, "x")
    # The gain of 0.7 to 1.3 from back to front is gone where white matter should be even.
    inner = ndimage.binary_erosion(true_brain, iterations=4)
    bright = found.brain * inner > np.percentile(found.brain[inner], 70)
    halves = [
        np.median(found.brain[:, part][bright[:, part]]) for part in (slice(60), slice(60, None))
    ]
    raw = [np.median(t1w.data[:, part][bright[:, part]]) for part in (slice(60), slice(60, None))]
    assert abs(np.log(halves[1] / halves[0])) < 0.5 * abs(np.log(raw[1] / raw[0]))


def test_header_off_by_centimetres_is_found() -> None:
    grid = tissues(ZOOM)
    truth = pose_from_params([40, -30, 55, 0.3, 0, 0], np.zeros(3))
    t1w, _ = displaced_t1w(truth, skull=True)
    moved = Image(t1w.data, t1w.affine)
    near = ndimage.binary_dilation(grid.brain)
    start = search_start(grid.t1w, grid.affine, near, moved)
    assert mean_displacement(start, truth, brain_points()) < 8


def test_bold_meets_its_t1w_and_the_composition_is_right() -> None:
    in_t1w = affine_truth([4, -6, 8, 0.1, 0.03, -0.05], (1.05, 0.96, 1.08))
    t1w, _ = displaced_t1w(in_t1w, skull=False)
    in_bold = pose_from_params([-3, 5, 4, -0.06, 0.02, 0.05], np.zeros(3))  # T1w to BOLD points
    affine = centered_affine((46, 55, 46), 4.0)
    boldref = Image(sample_head(in_bold @ in_t1w, affine, (46, 55, 46)).astype(np.float32), affine)
    even = even_out(boldref, foreground_mask(boldref.data, np.full(3, 4.0)))
    found = bold_to_t1w(even, t1w, ZOOM)
    points = in_t1w @ brain_points()
    assert mean_displacement(found, in_bold, points) < 0.5
    np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-6)  # rigid


def test_bold_without_t1w_meets_the_epi_template() -> None:
    truth = affine_truth([6, -4, 5, 0.08, 0, 0.03], (1.04, 0.97, 1.05))
    affine = centered_affine((46, 55, 46), 4.0)
    boldref = Image(sample_head(truth, affine, (46, 55, 46)).astype(np.float32), affine)
    found = bold_to_template(boldref, tissues(ZOOM))
    assert mean_displacement(found, truth, brain_points()) < 0.7
    mask = foreground_mask(boldref.data, np.full(3, 4.0)).astype(np.float32)
    overlap = overlap_with_template(Image(mask, affine), found, tissues(ZOOM))
    assert overlap.dice > 0.93 and overlap.brain_in_view > 0.99
    check_overlap(overlap, "x")

    lost = overlap_with_template(
        Image(mask, affine), pose_from_params([90, 0, 0, 0, 0, 0], np.zeros(3)), tissues(ZOOM)
    )
    with pytest.raises(DataError, match="do not overlap") as caught:
        check_overlap(lost, "bold.nii.gz")
    assert "affine" in str(caught.value.fix)


def test_quality_gates() -> None:
    with pytest.raises(DataError, match="does not look like"):
        check_anatomy_quality(Anatomy(np.eye(4), np.zeros((2, 2, 2)), 0.1, 0.2, 1.0), "t1w")
    with pytest.raises(DataError, match="shows 30% of the brain"):
        check_anatomy_quality(Anatomy(np.eye(4), np.zeros((2, 2, 2)), 0.9, 0.8, 0.3), "t1w")
    for correlation, view, doubtful in [(0.5, 1.0, True), (0.8, 0.85, True), (0.8, 0.95, False)]:
        found = Anatomy(np.eye(4), np.zeros((2, 2, 2)), correlation, 0.8, view)
        check_anatomy_quality(found, "t1w")
        assert found.doubtful == doubtful
    assert Overlap(0.9, 0.1).hopeless and Overlap(0.4, 1.0).hopeless
    assert not Overlap(0.85, 0.6).hopeless


def test_bold_and_t1w_far_apart_are_refused() -> None:
    brain = Image(tissues(ZOOM).t1w, tissues(ZOOM).affine)
    near, far = (pose_from_params([x, 0, 0, 0.1, 0, 0], np.zeros(3)) for x in (40, 200))
    check_same_place(near, brain, "x")
    with pytest.raises(DataError, match="mm apart") as caught:
        check_same_place(far, brain, "x_bold.nii.gz")
    assert "affine" in str(caught.value.fix)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(7, 15)] * 3),
    zoom=st.floats(1.0, 4.0),
    sizes=st.tuples(*[st.floats(0.7, 3.0)] * 3),
)
def test_shrinking_keeps_every_point_in_its_place(
    shape: tuple[int, ...], zoom: float, sizes: tuple[float, ...]
) -> None:
    """An image of its own world coordinates must still be one after block averaging."""
    affine = pose_from_params([3, -5, 8, 0.3, -0.4, 0.2], np.zeros(3)) @ np.diag([*sizes, 1.0])
    affine[:3, 0] *= -1

    def ramp(grid: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        voxels = np.vstack([np.indices(size).reshape(3, -1), np.ones(int(np.prod(size)))])
        return ([1.0, -2.0, 0.5] @ (grid @ voxels)[:3]).reshape(size)

    small = shrink(Image(ramp(affine, shape).astype(np.float32), affine), zoom)
    np.testing.assert_allclose(small.data, ramp(small.affine, small.data.shape), atol=1e-3)


def test_resample_onto_knows_its_field_of_view() -> None:
    data = np.arange(1, 28, dtype=np.float32).reshape(3, 3, 3)
    grid = np.eye(4)
    grid[:3, 3] = -1
    values, seen = resample_onto(Image(data, np.eye(4)), grid, (5, 5, 5))
    np.testing.assert_allclose(values[1:4, 1:4, 1:4], data)
    assert seen[1:4, 1:4, 1:4].all() and seen.sum() == 27
    assert (values[~seen] == 0).all()


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (np.zeros((9, 9, 9)), "empty"),
        (np.ones((9, 9, 9, 3)), "three dimensions"),
        (np.full((9, 9, 9), np.nan), "NaN"),
    ],
)
def test_unusable_t1w_is_refused(data: np.ndarray, word: str) -> None:
    with pytest.raises(DataError, match=word):
        check_anatomy(Image(data, np.eye(4)), "x_T1w.nii.gz")


@pytest.mark.slow
def test_commands_write_the_same_bytes_twice(tmp_path: Path) -> None:
    """ANTs draws its samples from a seed and sums in one thread: two processes must agree."""
    truth = affine_truth([2, -3, 4, 0.05, 0, 0.02], (1.02, 0.98, 1.03))
    t1w, _ = displaced_t1w(truth, skull=True)
    small = Image(t1w.data[::2, ::2, ::2], t1w.affine @ np.diag([2.0, 2, 2, 1]))
    shape = (31, 37, 31)
    run, affine = moving_run(np.zeros((5, 6)), affine=centered_affine(shape, 6.0), shape=shape)
    study, identifier = make_study(tmp_path, run, affine, t1w=(small.data, small.affine))
    brainlm("motion", identifier, "--study", study)
    brainlm("normalize-anat", "sub-01", "--study", study)
    brainlm("coregister-bold", identifier, "--study", study)
    brainlm("normalize-bold", identifier, "--study", study)
    first = bytes_below(study / "derivatives")
    brainlm("normalize-anat", "sub-01", "--study", study)
    brainlm("coregister-bold", identifier, "--study", study)
    assert bytes_below(study / "derivatives") == first
    anat, func = (study / "derivatives/brainlm/sub-01" / folder for folder in ("anat", "func"))
    (to_mni,) = read_itk_affines(anat / "sub-01_from-T1w_to-MNI152NLin2009aSym_mode-image_xfm.txt")
    assert mean_displacement(to_mni, truth, brain_points()) < 1.5
    (to_t1w,) = read_itk_affines(func / f"{identifier}_from-boldref_to-T1w_mode-image_xfm.txt")
    (whole,) = read_itk_affines(
        func / f"{identifier}_from-boldref_to-MNI152NLin2009aSym_mode-image_xfm.txt"
    )
    np.testing.assert_allclose(whole, to_t1w @ to_mni, atol=1e-9)
    brain = read_image(anat / "sub-01_desc-brain_T1w.nii.gz")
    np.testing.assert_allclose(brain.affine, small.affine)
    # The run's brain is what of the head's bright object is brain.
    mask, bright = (
        read_image(func / f"{identifier}_desc-{name}_mask.nii.gz").data > 0
        for name in ("brain", "foreground")
    )
    assert 0.9 < dice(mask, bright) <= 1


def test_a_t1w_that_is_taken_away_leaves_no_transform(tmp_path: Path) -> None:
    """Nothing would make it anew, and nothing would say that it is stale."""
    study, identifier = make_study(tmp_path, np.ones((4, 4, 4, 5)), np.eye(4))
    said = brainlm("coregister-bold", identifier, "--study", study, code=2)
    assert "no T1w" in said
    stale = study / "derivatives/brainlm/sub-01/func"
    stale = stale / f"{identifier}_from-boldref_to-T1w_mode-image_xfm.txt"
    stale.parent.mkdir(parents=True)
    stale.write_text("an earlier T1w's")
    stale.with_suffix(".json").write_text("{}")
    ledger = study / f"qc/failures/{identifier}.json"
    ledger.parent.mkdir(parents=True)
    ledger.write_text('{"stage": "coregister-bold"}')
    brainlm("normalize-bold", identifier, "--study", study, code=1)  # motion has not been run
    assert not list(stale.parent.iterdir()) and not ledger.exists()
