"""From what fMRIPrep has written in the study to our own files, by the job's manifest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from brainlm.cli._stage import OnDataError
from brainlm.cli.adopt import OUTPUTS, adopt
from brainlm.config import FMRIPREP_SPACE, load_config, parse_config
from brainlm.errors import DataError, InputError, UpstreamError
from brainlm.images import read_image
from brainlm.layout import Study, folder_of
from brainlm.provenance import is_tombstone, read_sidecar, sha256_file

from . import synthetic_ready as ready
from .fmriprep_study import make_study

RUN = "sub-01_task-rest_run-1"
CONFIG = f"""
engine: fmriprep
derivatives: {{space_ok: true}}
space: {{template: {ready.SPACE}, resolution_mm: {ready.ZOOM}}}
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A raw study in which fMRIPrep has made the first of two runs of a subject."""
    root = make_study(tmp_path, config=CONFIG)
    made = ready.fmriprep(root / "derivatives/fmriprep", {RUN: 3})
    files = sorted(path for path in made.rglob("sub-01*") if path.is_file())
    manifest = root / "derivatives/fmriprep-jobs/sub-01.json"
    manifest.parent.mkdir(parents=True)
    listed = {path.relative_to(made).as_posix(): {"SHA256": sha256_file(path)} for path in files}
    manifest.write_text(json.dumps({"Entities": {"sub": "01"}, "Files": listed}))
    return Study(root)


def path_of(study: Study, kind: str, recording: str = RUN) -> Path:
    labels = load_config(study.path("config")).labels
    return study.path(kind, **labels, recording=recording, folder=folder_of(recording))


def test_a_raw_run_is_adopted_from_the_files_of_its_job(study: Study) -> None:
    adopt(RUN, study.root)
    brain = ready.template()
    found = read_image(path_of(study, "preproc_bold")).data
    np.testing.assert_array_equal(found, ready.series_of(brain, 3) * brain.data[..., None])
    about = read_sidecar(path_of(study, "preproc_bold"))
    assert about["ProcessedBy"]["normalisation"] == "fMRIPrep 25.1.3"
    sources = set(about["Sources"])
    assert "derivatives/fmriprep-jobs/sub-01.json" in sources
    assert any(name.startswith("derivatives/fmriprep/sub-01/func/") for name in sources)


def test_the_list_of_another_job_is_refused(study: Study) -> None:
    manifest = study.root / "derivatives/fmriprep-jobs/sub-01.json"
    manifest.write_text(manifest.read_text().replace('"01"', '"02"'))
    with pytest.raises(DataError, match=r"is of \{.sub.: .02.\}, not of sub-01"):
        adopt(RUN, study.root)


def test_a_run_that_fmriprep_left_out_is_given_up_alone(study: Study) -> None:
    other = RUN.replace("run-1", "run-2")
    with pytest.raises(DataError, match="there is no preprocessed series of it"):
        adopt(other, study.root)
    adopt(other, study.root, on_data_error=OnDataError.record)
    assert all(is_tombstone(path_of(study, kind, other)) for kind in OUTPUTS)
    adopt(RUN, study.root)


def test_a_job_that_was_given_up_is_passed_on(study: Study) -> None:
    (study.root / "derivatives/fmriprep-jobs/sub-01.json").write_bytes(b"")
    with pytest.raises(UpstreamError, match="fMRIPrep gave up on sub-01"):
        adopt(RUN, study.root)


def test_files_that_are_not_those_of_the_manifest_are_refused(study: Study) -> None:
    series = next((study.root / "derivatives/fmriprep").rglob("*desc-preproc_bold.nii.gz"))
    series.write_bytes(series.read_bytes() + b"\0")
    with pytest.raises(DataError, match="has changed since"):
        adopt(RUN, study.root)


def test_before_fmriprep_has_run_it_says_so(study: Study) -> None:
    (study.root / "derivatives/fmriprep-jobs/sub-01.json").unlink()
    with pytest.raises(InputError, match=r"sub-01\.json does not exist yet"):
        adopt(RUN, study.root)


def test_the_native_engine_has_nothing_to_adopt(study: Study) -> None:
    path = study.path("config")
    path.write_text(path.read_text().replace("engine: fmriprep", "engine: native"))
    with pytest.raises(InputError, match="is a raw run"):
        adopt(RUN, study.root)


def test_the_config_asks_for_the_space_that_fmriprep_gives() -> None:
    with pytest.raises(InputError, match="gives series in MNI152NLin6Asym"):
        parse_config({"engine": "fmriprep"}, source="test")
    parse_config({"engine": "fmriprep", "space": {"template": FMRIPREP_SPACE}}, source="test")
