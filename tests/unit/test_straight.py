"""Straight into parcels: the same results as by way of 4-D files, without leaving any."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from brainlm.cli._stage import OnDataError
from brainlm.cli.confounds import confounds
from brainlm.cli.denoise import denoise
from brainlm.cli.ica import ica
from brainlm.cli.parcellate import parcellate
from brainlm.cli.prepare_atlas import prepare_atlas
from brainlm.cli.resample import resample
from brainlm.cli.resample_to_parcels import resample_to_parcels
from brainlm.files import write_json
from brainlm.images import read_image
from brainlm.layout import Study
from brainlm.provenance import sidecar_path
from brainlm.series import open_series

from .synthetic_head import bytes_below, centered_affine
from .synthetic_registered import fields_of, registered_study

KINDS = ("mni_mask", "confounds", "carpet", "timeseries", "coverage")
CONFIG = """
space: {resolution_mm: 4}
normalize: {resolution_mm: 4, transform: affine}
atlas: {name: A424approx}
confounds: {compcor_components: 5}
"""
PLAIN = "denoise: {method: motion24}"
CENSORING = """
denoise: {method: acompcor, high_pass: gaussian, low_pass_s: 4.4, scrub: censor, scrub_fd_mm: 2.0}
"""


COUNT = 80


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, str]:
    """A moving run whose field of view ends below the vertex, its true motion, and an atlas."""
    shape = (31, 37, 18)
    params = np.random.default_rng(0).normal(0, [0.2] * 3 + [0.003] * 3, (COUNT, 6))
    params[[30, 31, 70], 1] += 2
    affine = centered_affine(shape, 6.0, center=(0, -18, -10))
    folder = tmp_path_factory.mktemp("straight")
    study, identifier = registered_study(folder, params, affine=affine, shape=shape, config=CONFIG)
    prepare_atlas(study.root)
    return study, identifier


def paths(study: Study, identifier: str) -> dict[str, Path]:
    fields = fields_of(study, identifier)
    return {kind: study.path(kind, **fields) for kind in (*KINDS, "preproc_bold", "denoised_bold")}


FIX = "denoise: {method: fix}"
EIGENVARIATE = "parcellate: {estimator: eigenvariate}\n"


@pytest.mark.parametrize(
    "options",
    ["", PLAIN, CENSORING + EIGENVARIATE, FIX],
    ids=["aroma", "plain", "censoring, eigenvariate", "fix"],
)
def test_both_ways_give_the_same(prepared: tuple[Study, str], options: str) -> None:
    study, identifier = prepared
    study.path("config").write_text("bids_dir: ../bids\n" + CONFIG + options)
    components = (ica,) if not options else ()
    for stage in (resample, confounds, *components, denoise, parcellate):
        stage(identifier, study.root)
    files = paths(study, identifier)
    by_files = {kind: files[kind].read_bytes() for kind in KINDS}
    abouts = {kind: json.loads(sidecar_path(files[kind]).read_text()) for kind in KINDS}
    series = pd.read_parquet(files["timeseries"])
    if options == FIX:
        mask = read_image(files["mni_mask"]).data > 0
        given = open_series(files["preproc_bold"]).in_mask(mask)
        np.testing.assert_array_equal(open_series(files["denoised_bold"]).in_mask(mask), given)
        assert abouts["carpet"]["Denoising"] == "fix: passed on as given"
        assert abouts["carpet"]["LooksCleaned"] is False  # nobody took its motion out
    for path in files.values():
        path.unlink()
        sidecar_path(path).unlink()

    resample_to_parcels(identifier, study.root)
    assert not files["preproc_bold"].exists() and not files["denoised_bold"].exists()
    for kind in ("mni_mask", "confounds", "coverage"):
        assert files[kind].read_bytes() == by_files[kind], kind
    straight = pd.read_parquet(files["timeseries"])
    assert list(straight.columns) == list(series.columns) and len(straight) == len(series)
    np.testing.assert_array_equal(straight.isna(), series.isna())
    assert 0.5 < series.iloc[0].notna().mean() < 0.95  # the vertex is out of view
    np.testing.assert_allclose(straight, series, rtol=1e-6)
    assert files["carpet"].read_bytes() == by_files["carpet"]
    for kind in KINDS:
        about = json.loads(sidecar_path(files[kind]).read_text())
        for key in set(abouts[kind]) - {"Stage", "CodeDigest", "Parameters", "Software", "Sources"}:
            assert about[key] == abouts[kind][key], (kind, key)
        assert any(source.startswith("bids::") for source in about["Sources"])
    if CENSORING in options:
        kept = about["KeptVolumes"]
        assert len(straight) == len(kept) < COUNT and not {30, 70} & set(kept)
        after = load_file(files["carpet"])["after"]
        assert np.isnan(after[:, 30]).all() and np.isfinite(after[:, kept]).all()
    else:
        assert len(straight) == COUNT
    again = bytes_below(study.root / "derivatives")
    resample_to_parcels(identifier, study.root, threads=2)
    assert bytes_below(study.root / "derivatives") == again


def test_a_run_that_is_too_short_leaves_tombstones_and_a_reason(
    prepared: tuple[Study, str],
) -> None:
    study, identifier = prepared
    study.path("config").write_text(
        "bids_dir: ../bids\n" + CONFIG + "denoise: {method: 36p, low_pass_s: 12}\n"
    )
    resample_to_parcels(identifier, study.root, on_data_error=OnDataError.record)
    files = paths(study, identifier)
    assert all(files[kind].stat().st_size == 0 for kind in KINDS)
    ledger = json.loads(study.path("failure", recording=identifier).read_text())
    assert ledger["stage"] == "resample-to-parcels"
    assert "degrees of freedom" in ledger["what"] and "low_pass_s" in ledger["fix"]


def test_a_failure_of_a_stage_that_is_not_asked_for_any_more_is_forgotten(
    prepared: tuple[Study, str],
) -> None:
    """ICA gave the run up; with another method it is whole, and no audit may count it lost."""
    study, identifier = prepared
    study.path("config").write_text("bids_dir: ../bids\n" + CONFIG)
    ledger = study.path("failure", recording=identifier)
    for stage, stays in (("ica", False), ("fieldmap", False), ("qc-figure", True)):
        write_json(ledger, {"stage": stage, "what": "it did not settle", "fix": None})
        resample_to_parcels(identifier, study.root)
        assert ledger.exists() == stays, stage
