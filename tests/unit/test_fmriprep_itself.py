"""fMRIPrep's own program behind our verb, with tools that all fail: what a true failure leaves.

Neither a container nor any of the tools (ANTs, FSL, FreeSurfer, AFNI) is there. The program reads
our arguments, builds its whole workflow from our cache of templates without a network, and
crashes at the first step, with its own crash file, report and exit code. See
test_fmriprep_parser.py for the environment that this needs.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainlm.cli._stage import OnDataError
from brainlm.cli.fmriprep import fmriprep
from brainlm.fmriprep.caches import files_of, templates_of
from brainlm.fmriprep.report import read_error_section
from brainlm.images import write_image
from brainlm.provenance import is_tombstone, sha256_file

from .fmriprep_study import make_machine, make_study

INTERPRETER = os.environ.get("BRAINLM_FMRIPREP_PYTHON", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not INTERPRETER,
        reason="BRAINLM_FMRIPREP_PYTHON does not name an interpreter with fMRIPrep",
    ),
]

TOOLS = (
    "3dAutomask 3dTshift 3dUnifize Atropos DenoiseImage ImageMath MultiplyImages "
    "N4BiasFieldCorrection ThresholdImage antsAI antsApplyTransforms antsRegistration bet fast "
    "flirt fslmaths lta_convert mcflirt mri_coreg"
)
#: Stands where Apptainer is: no container, but true paths in place of the mounted ones.
SHIM = """#!{python} -S
import os, sys
arguments = sys.argv[1:]
pairs = list(zip(arguments, arguments[1:]))
mounts = [value.split(":")[:2] for flag, value in pairs if flag == "--bind"]

def here(item):
    for source, target in mounts:
        if item == target or item.startswith(target + "/"):
            return source + item[len(target):]
    return item

variables = dict(value.split("=", 1) for flag, value in pairs if flag == "--env")
home = next(value for flag, value in pairs if flag == "--home").split(":")[0]
environment = {{**{{key: here(value) for key, value in variables.items()}}, "HOME": home,
                "PATH": "{tools}:/usr/bin:/bin", "TMPDIR": "{tmp}"}}
inside = [here(item) for item in arguments[arguments.index("/data"):]]
script = "from fmriprep.cli.run import main; main()"
os.execve("{interpreter}", ["{interpreter}", "-c", script, *inside], environment)
"""
SKELETON = "from templateflow.conf import TF_LAYOUT"


def small_image(path: Path, shape: tuple[int, ...], tr: float | None = None) -> None:
    data = np.random.default_rng(0).integers(0, 100, shape).astype(np.int16)
    write_image(path, data, np.diag([3.0, 3, 3, 1]), **({"tr": tr} if tr else {}))


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import subprocess

    machine = make_machine(tmp_path)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in (*TOOLS.split(), "mri_convert"):  # the last says that the licence is good
        code = 0 if name == "mri_convert" else 1
        (tools / name).write_text(f"#!/bin/sh\necho no tool\nexit {code}\n")
        (tools / name).chmod(0o755)
    shim = tmp_path / "bin" / "apptainer"
    interpreter = Path(INTERPRETER).absolute()
    shim.write_text(
        SHIM.format(
            python=sys.executable, tools=tools, tmp=tmp_path / "tmp", interpreter=interpreter
        )
    )
    shim.chmod(0o755)
    for name, value in machine.items():
        monkeypatch.setenv(name, value)

    home = tmp_path / "home of templates"
    environment = {**machine, "TEMPLATEFLOW_HOME": str(home), "PYTHONPATH": ""}
    subprocess.run([INTERPRETER, "-c", SKELETON], env=environment, check=True, capture_output=True)
    for template in templates_of([], False):
        for name in files_of(template)[1:]:
            small_image(home / name, (10, 10, 10))
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(home))

    study = make_study(
        tmp_path,
        ("sub-01_task-rest",),
        config="fmriprep: {image: ../image.sif}\n",
        ineligible=("sub-01_task-nback",),
    )
    bids = tmp_path / "bids data"
    about = {"Name": "x", "BIDSVersion": "1.10.0"}
    (bids / "dataset_description.json").write_text(json.dumps(about))
    path = study / "onboarding" / "recordings.parquet"
    table = pd.read_parquet(path)
    for index, row in table.iterrows():
        small_image(bids / row["bold"], (16, 16, 16, 40), 2.0)
        small_image(bids / row["t1w"], (20, 20, 20))
        details = {"RepetitionTime": 2.0, "TaskName": row["task"]}
        (bids / row["bold"].replace(".nii.gz", ".json")).write_text(json.dumps(details))
        table.loc[index, "bold_sha256"] = sha256_file(bids / row["bold"])
        table.loc[index, "t1w_sha256"] = sha256_file(bids / row["t1w"])
    table.to_parquet(path)
    return study


def test_a_true_crash_gives_the_subject_up(study: Path, capsys: pytest.CaptureFixture) -> None:
    fmriprep("sub-01", study=study, on_data_error=OnDataError.record)
    said = capsys.readouterr().out
    assert "Running fMRIPrep version 25.2" in said
    assert "_task-rest_" in said and "nback" not in said.partition("Running fMRIPrep")[2]
    assert "ConnectionError" not in said, "every template was there"
    assert is_tombstone(study / "derivatives/fmriprep-jobs/sub-01.json")
    failure = json.loads((study / "qc/failures/sub-01_task-rest.json").read_text())
    assert failure["what"].startswith("fMRIPrep failed on sub-01 at ")
    assert (study / failure["file"]).read_text().startswith("Node: fmriprep_25_2_wf.")
    section = read_error_section((study / "qc/fmriprep/sub-01/sub-01.html").read_text())
    assert section is not None and section.failed >= 1
    assert section.crashes[0].node.startswith("fmriprep_25_2_wf.sub_01_wf.")
    assert not list((study.parent / "tmp").glob("brainlm-fmriprep-*"))
