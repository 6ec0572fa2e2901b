"""`brainlm phantom-check --denoising` on one small phantom run, registered by the truth."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainlm.atlas import load_table
from brainlm.atlas.build import approximate_labels
from brainlm.denoise.judge import write_metrics, write_mixing
from brainlm.files import write_json, write_text
from brainlm.images import write_image
from brainlm.layout import Study, entities_of
from brainlm.phantom.parameters import SPACE, TRUTH, Parameters
from brainlm.preproc.tables import write_confounds
from brainlm.provenance import write_sidecar
from brainlm.recordings import COLUMNS
from brainlm.series import in_volumes, write_series

from .true_run import true_runs

ZOOM = 5.0
SMALL = Parameters(subjects=1, two_runs=0, two_sessions=0, volumes=80, voxel_mm=6.0)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of one recording up to its components, and the phantom's truth."""
    (run,) = true_runs(SMALL, ZOOM)
    name = run.run.id
    bids, root = tmp_path / "bids", Study(tmp_path / "study")
    truth = bids / TRUTH / "sub-01" / "func"
    truth.mkdir(parents=True)
    run.artefacts.to_csv(truth / f"{name}_desc-truth_artefacts.tsv", sep="\t", index=False)
    neural = np.zeros((SMALL.volumes, len(load_table())))
    neural[:, run.shown] = run.neural
    pd.DataFrame(neural).to_parquet(truth / f"{name}_desc-truth_timeseries.parquet")
    write_json(truth / f"{name}_desc-truth_timeseries.json", {"SamplingFrequency": 0.5})
    about = {"parameters": SMALL.to_json(), "recordings": [name], "corrupted": {}}
    write_json(bids / TRUTH / "phantom.json", about)
    pd.DataFrame(columns=["participant_id", "age", "sex", "score"]).to_csv(
        bids / TRUTH / "traits.tsv", sep="\t", index=False
    )

    fields = {"recording": name, "folder": "sub-01", "space": SPACE, "res": "5"}
    fields["atlas"] = "A424approx"
    kinds = ("preproc_bold", "mni_mask", "confounds", "ica_mixing", "aroma_metrics")
    paths = {kind: root.path(kind, **fields) for kind in (*kinds, "atlas_image", "recordings")}
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    judged, affine = run.components(components=12), run.tissues.affine
    volumes = in_volumes(run.series, run.mask, np.arange(SMALL.volumes))
    write_series(paths["preproc_bold"], volumes, (*run.mask.shape, SMALL.volumes), affine, tr=2.0)
    write_image(paths["mni_mask"], run.mask.astype(np.uint8), affine)
    write_confounds(paths["confounds"], run.confounds)
    write_mixing(paths["ica_mixing"], judged.mixing)
    write_metrics(paths["aroma_metrics"], judged.metrics)
    labels = approximate_labels(load_table(), SPACE, ZOOM)
    write_image(paths["atlas_image"], labels.data.astype(np.int16), affine)
    for kind in kinds:
        write_sidecar(
            paths[kind],
            stage="test",
            code_digest="",
            entities=entities_of(name),
            sources={},
            parameters={},
            software={},
        )
    row = {**dict.fromkeys(COLUMNS), "recording_id": name, "subject": "01"}
    pd.DataFrame([row]).to_parquet(paths["recordings"])
    config = "bids_dir: ../bids\natlas: {name: A424approx}\nspace: {resolution_mm: 5.0}\n"
    write_text(root.path("config"), config)
    return root.root


def test_every_method_is_held_against_the_truth(study: Path) -> None:
    command = [sys.executable, "-m", "brainlm", "phantom-check", "--denoising", "--study", study]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((study / "qc" / "phantom_truth.json").read_text())["denoising"]
    assert found["n"] == 1 and found["components"]["n"] == 12
    methods = found["methods"]
    assert methods["none"]["kept"]["neural"] == 1 and methods["none"]["neural_error"] == 0
    assert methods["motion24"]["neural_error"] > methods["tissues"]["neural_error"] > 0
    assert methods["none"]["freedom"] - methods["tissues"]["freedom"] == 6  # 2 means, 2 + 2
    plain, more = (methods[f"aroma, non-aggr{rest}"] for rest in ("essive", "., tissues"))
    assert plain["freedom"] - more["freedom"] == 6 and plain["kept"] != more["kept"]
    assert plain["qc_fc"] is None
    assert all(name in done.stdout for name in methods)


def test_a_study_without_components_is_told_what_to_do(study: Path) -> None:
    for path in study.rglob("*aroma_metrics.tsv"):
        path.unlink()
    command = [sys.executable, "-m", "brainlm", "phantom-check", "--denoising", "--study", study]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "keep_intermediates: true" in done.stderr
