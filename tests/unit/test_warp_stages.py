"""How the stages make a nonlinear warp and hand it on."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from brainlm.cli._stage import RecordingRun
from brainlm.cli._warp import read_warp_of
from brainlm.dag import Dag
from brainlm.files import read_json
from brainlm.geometry import read_itk_affines
from brainlm.images import read_image
from brainlm.preproc.grids import resample_onto
from brainlm.stages import STAGES
from brainlm.warps import read_warp

from .synthetic_head import (
    TEMPLATE,
    brainlm,
    bytes_below,
    make_study,
    tissues,
)
from .synthetic_warp import deformed, errors

CONFIG = "space: {resolution_mm: 8}\nnormalize: {resolution_mm: 8, transform: syn}\n"


@pytest.mark.slow
@pytest.mark.parametrize("with_t1w", [True, False])
def test_stages_hand_the_warp_on_and_repeat_it_bit_by_bit(tmp_path: Path, with_t1w: bool) -> None:
    fine = tissues(2.0)
    t1w = deformed(800 * fine.t1w, fine.affine, 4.0, 54)
    bold = deformed(1000 * fine.epi_contrast(), fine.affine, 5.0, 43)
    noise = np.random.default_rng(0).normal(0, 10, (*bold.data.shape, 5))
    study, identifier = make_study(
        tmp_path,
        np.clip(bold.data[..., None] + noise, 0, None),
        bold.affine,
        t1w=(t1w.data, t1w.affine) if with_t1w else None,
        config=CONFIG,
    )
    verbs = ["motion", *(["normalize-anat", "coregister-bold"] if with_t1w else [])]
    verbs += ["normalize-bold"]
    verbs += ["resample"] if with_t1w else ["warp-bold", "resample"]

    def run(verb: str, *options: str) -> str:
        name = "sub-01" if verb == "normalize-anat" else identifier
        return brainlm(verb, name, "--study", study, *options)

    for verb in verbs:
        run(verb)
    first = bytes_below(study / "derivatives")
    maker = "normalize-anat" if with_t1w else "warp-bold"
    run(maker)
    assert bytes_below(study / "derivatives") == first

    kind = "T1w" if with_t1w else "boldref"
    folder = study / "derivatives/brainlm/sub-01"
    stem = "anat/sub-01" if with_t1w else f"func/{identifier}"
    path = folder / f"{stem}_from-{kind}_to-{TEMPLATE}_mode-image_desc-syn_xfm.nii.gz"
    (to_mni,) = read_itk_affines(
        folder / f"func/{identifier}_from-boldref_to-{TEMPLATE}_mode-image_xfm.txt"
    )
    assert errors(to_mni, read_warp(path)) < 0.6 * errors(to_mni, None)
    sidecar = read_json(path.with_name(path.name.replace(".nii.gz", ".json")))
    assert "before the" in sidecar["Description"] and not sidecar["Folds"]

    # What resample wrote is like the template.
    preproc = folder / f"func/{identifier}_space-{TEMPLATE}_res-8_desc-preproc_bold.nii.gz"
    sidecar = read_json(preproc.with_name(preproc.name.replace(".nii.gz", ".json")))
    assert path.relative_to(study).as_posix() in sidecar["Sources"]
    volume, grid = read_image(preproc).data[..., 0], tissues(8.0)
    straight, _ = resample_onto(bold, grid.affine, grid.brain.shape, to_mni)
    by_affine, by_both = (
        np.corrcoef(image[grid.brain], grid.epi_contrast()[grid.brain])[0, 1]
        for image in (straight, volume)
    )
    assert by_both > by_affine + 0.02


def test_an_affine_study_does_not_take_a_warp_that_lies_there() -> None:
    """The parameters decide: asking for a file would fail on this run, which has none."""
    run = SimpleNamespace(params={"normalize": {"transform": "affine"}})
    assert read_warp_of(cast(RecordingRun, run)) is None
    assert "normalize" in STAGES["resample"].sections


def test_a_t1w_given_up_leaves_a_tombstone_of_its_warp(tmp_path: Path) -> None:
    bold = np.ones((8, 8, 8, 5))
    empty = (np.zeros((9, 9, 9), dtype=np.float32), np.eye(4))
    study, identifier = make_study(tmp_path, bold, np.eye(4), t1w=empty, config=CONFIG)
    brainlm("normalize-anat", "sub-01", "--study", study, "--on-data-error", "record")
    warp = f"sub-01_from-T1w_to-{TEMPLATE}_mode-image_desc-syn_xfm.nii.gz"
    folder = study / "derivatives/brainlm/sub-01/anat"
    assert (folder / warp).stat().st_size == 0
    shutil.rmtree(folder)
    (study / "config/config.yaml").write_text("bids_dir: ../bids\nnormalize: {transform: affine}\n")
    brainlm("normalize-anat", "sub-01", "--study", study, "--on-data-error", "record")
    assert len(list(folder.iterdir())) == 2
    # A verb that has nothing to do here says so.
    said = brainlm("warp-bold", identifier, "--study", study, code=2)
    assert "needs no warp of its own" in said


def test_the_workflow_asks_for_a_warp_only_where_the_config_does(tmp_path: Path) -> None:
    bold = np.ones((4, 4, 4, 5))
    t1w = (np.ones((4, 4, 4), dtype=np.float32), np.eye(4))
    with_t1w, identifier = make_study(tmp_path / "a", bold, np.eye(4), t1w=t1w)
    without, _ = make_study(tmp_path / "b", bold, np.eye(4))
    run = SimpleNamespace(recording=identifier)
    affine, syn = ({"normalize": {"transform": kind}} for kind in ("affine", "syn"))
    assert Dag(affine, with_t1w).warp_of(run) == Dag(affine, without).warp_of(run) == []
    assert Dag(affine, with_t1w).anat_warp() == []
    (of_anat,) = Dag(syn, with_t1w).warp_of(run)
    assert of_anat.endswith(f"anat/sub-01_from-T1w_to-{TEMPLATE}_mode-image_desc-syn_xfm.nii.gz")
    assert len(Dag(syn, with_t1w).anat_warp()) == 1
    (own,) = Dag(syn, without).warp_of(run)
    assert f"func/{identifier}_from-boldref" in own
