"""What our own engine preprocessed, given back in fMRIPrep's names, must give the same parcels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainlm.cli.adopt import adopt
from brainlm.cli.confounds import confounds
from brainlm.cli.denoise import denoise
from brainlm.cli.onboard import Engine, onboard
from brainlm.cli.parcellate import parcellate
from brainlm.cli.prepare_atlas import prepare_atlas
from brainlm.cli.resample import resample
from brainlm.layout import Study

from .synthetic_head import centered_affine
from .synthetic_ready import describe
from .synthetic_registered import fields_of, registered_study

CONFIG = """
space: {resolution_mm: 4}
normalize: {resolution_mm: 4, transform: affine}
atlas: {name: A424approx}
confounds: {compcor_components: 5}
denoise: {method: 36p, scrub: interpolate, scrub_fd_mm: 1.0}
"""
SETTINGS = (
    "space.resolution_mm=4",
    "atlas.name=A424approx",
    "eligibility.min_volumes=50",
    "denoise={method: 36p, scrub: interpolate, scrub_fd_mm: 1.0}",
)


@pytest.mark.parametrize("compressed", [True, False])
def test_the_same_parcels_by_way_of_fmriprep_names(tmp_path: Path, compressed: bool) -> None:
    shape = (31, 37, 18)
    params = np.random.default_rng(0).normal(0, [0.1] * 3 + [0.002] * 3, (60, 6))
    params[[20, 45], 1] += 2
    affine = centered_affine(shape, 6.0, center=(0, -18, -10))
    own, run = registered_study(tmp_path / "own", params, affine=affine, shape=shape, config=CONFIG)
    prepare_atlas(own.root)
    for stage in (resample, confounds, denoise, parcellate):
        stage(run, own.root)

    def path_of(study: Study, kind: str) -> Path:
        return study.path(kind, **fields_of(study, run))

    root = tmp_path / "prep"
    describe(root, "fMRIPrep", "25.1.0")
    folder = root / run.split("_")[0] / "func"
    folder.mkdir(parents=True)
    stem = f"{run}_space-MNI152NLin2009aSym_res-4"
    series = folder / f"{stem}_desc-preproc_bold.nii.gz"
    shutil.copy(path_of(own, "preproc_bold"), series)
    if not compressed:
        import gzip

        series.with_suffix("").write_bytes(gzip.decompress(series.read_bytes()))
        series.unlink()
    shutil.copy(path_of(own, "mni_mask"), folder / f"{stem}_desc-brain_mask.nii.gz")
    shutil.copy(path_of(own, "confounds"), folder / f"{run}_desc-confounds_timeseries.tsv")
    tr = json.loads(path_of(own, "confounds").with_suffix(".json").read_text())["RepetitionTime"]
    (folder / f"{stem}_desc-preproc_bold.json").write_text(json.dumps({"RepetitionTime": tr}))

    onboard(root, tmp_path / "study", settings=list(SETTINGS), engine=Engine.derivatives)
    study = Study(tmp_path / "study")
    prepare_atlas(study.root)
    for stage in (adopt, denoise, parcellate):
        stage(run, study.root)
    theirs, ours = (pd.read_parquet(path_of(s, "timeseries")) for s in (study, own))
    assert ours.notna().to_numpy().mean() > 0.5
    # The motion table passes through text of eight digits once more; nothing else may differ.
    pd.testing.assert_frame_equal(theirs, ours, rtol=1e-6)
    assert path_of(study, "mni_mask").read_bytes() == path_of(own, "mni_mask").read_bytes()
