"""Our arguments before fMRIPrep's own parser and its wrapper; its true reports before our reader.

Needs an interpreter with fMRIPrep (1.2 GB, an environment of its own) and fmriprep-docker:
    python -m venv fmriprep-env
    fmriprep-env/bin/pip install fmriprep==25.2.5 fmriprep-docker==25.2.5
    BRAINLM_FMRIPREP_PYTHON=fmriprep-env/bin/python pytest tests/unit/test_fmriprep_parser.py
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from brainlm.cli.fmriprep import fmriprep
from brainlm.config import Config
from brainlm.fmriprep.arguments import DATA, FILTER, LICENSE, OUT, SUBJECTS, WORK, check_extra
from brainlm.fmriprep.arguments import fmriprep_arguments as arguments_of
from brainlm.fmriprep.jobs import Job, bids_filter
from brainlm.fmriprep.report import ErrorSection, read_error_section

from . import fake_engine
from .fmriprep_study import make_machine, make_study, recorded

INTERPRETER = os.environ.get("BRAINLM_FMRIPREP_PYTHON", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not INTERPRETER,
        reason="BRAINLM_FMRIPREP_PYTHON does not name an interpreter with fMRIPrep",
    ),
]

PARSE = """
import json, sys
from fmriprep.cli.parser import _build_parser
found = vars(_build_parser().parse_args(json.loads(sys.argv[1])))
print("\\nFOUND" + json.dumps(found, default=str))
"""
CHOOSE = """
import json, sys
from fmriprep.cli.parser import _build_parser
from niworkflows.utils.bids import collect_data
arguments, subject = json.loads(sys.argv[1]), sys.argv[2]
filters = _build_parser().parse_args(arguments).bids_filters
data, _ = collect_data(arguments[0], subject, bids_validate=False, bids_filters=filters)
print("\\nFOUND" + json.dumps(data["bold"]))
"""

#: A report as NiReports itself renders it, of the crash files in a folder.
RENDER = """
import json, sys, types
from pathlib import Path
import jinja2
from nireports.assembler import data
from nireports.assembler.report import SubReport
from nireports.assembler.reportlet import Reportlet
layout = types.SimpleNamespace(root=sys.argv[1])
errors = {"custom": "errors", "path": sys.argv[1], "title": "Errors"}
section = SubReport("About", True, [Reportlet(layout, config=errors, out_dir=sys.argv[1])], "")
template = data.load("report.tpl").absolute()
loader = jinja2.FileSystemLoader(str(template.parent))
environment = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True)
nothing = {"header": [], "navbar": [], "footer": []}
html = environment.get_template(template.name).render(title="x", sections=[section], **nothing)
print("\\nFOUND" + json.dumps(html))
"""


def ask(script: str, *arguments: str) -> Any:
    """What a script prints in fMRIPrep's interpreter."""
    done = subprocess.run(
        [INTERPRETER, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_ET": "1", "PYTHONPATH": ""},
    )
    assert "FOUND" in done.stdout, done.stderr[-2000:]
    return json.loads(done.stdout.rpartition("FOUND")[2])


@pytest.fixture
def here(tmp_path: Path) -> dict[str, Path]:
    """Folders and files of this machine for those inside the container."""
    places = {
        DATA: tmp_path / "bids data",
        OUT: tmp_path / "out",
        WORK: tmp_path / "work",
        SUBJECTS: tmp_path / "subjects",
    }
    for folder in places.values():
        folder.mkdir()
    places[LICENSE] = tmp_path / "license.txt"
    places[FILTER] = places[WORK] / "bids_filter.json"
    places[LICENSE].write_text("x")
    places[FILTER].write_text("{}")
    return places


def parsed(options: dict[str, Any], here: dict[str, Path], job: str = "sub-01") -> dict[str, Any]:
    section = Config(fmriprep=options).model_dump(mode="json")["fmriprep"]
    arguments = arguments_of(
        Job(job, (f"{job}_task-rest",)),
        section,
        threads=6,
        mem_gb=20,
        seed=3,
        filtered=True,
        licensed=True,
    )
    places = {place: str(path) for place, path in here.items()}
    return dict(ask(PARSE, json.dumps([places.get(item, item) for item in arguments])))


def test_the_default_arguments_mean_to_fmriprep_what_they_mean_to_us(
    here: dict[str, Path],
) -> None:
    found = parsed({}, here)
    expected = {
        "bids_dir": str(here[DATA]),
        "output_dir": str(here[OUT]),
        "work_dir": str(here[WORK]),
        "fs_license_file": str(here[LICENSE]),
        "analysis_level": "participant",
        "participant_label": ["01"],
        "session_label": None,
        "subject_anatomical_reference": "first-lex",
        "run_reconall": False,
        "cifti_output": False,
        "output_layout": "bids",
        "level": "full",
        "nprocs": 6,
        "omp_nthreads": 6,
        "memory_gb": 18.0,
        "_random_seed": 3,
        "skull_strip_fixed_seed": True,
        "skip_bids_validation": True,
        "stop_on_first_crash": True,
        "notrack": True,
        "bids_filters": {},
    }
    assert {key: found[key] for key in expected} == expected
    assert "MNI152NLin6Asym" in found["output_spaces"] and "res-2" in found["output_spaces"]


def test_every_option_of_the_section_reaches_the_parser(here: dict[str, Path]) -> None:
    options = {
        "level": "session",
        "output_spaces": ["T1w", "MNI152NLin2009cAsym:res-native", "fsaverage5"],
        "freesurfer": True,
        "cifti": "170k",
        "extra_args": ["--dummy-scans", "4", "--ignore", "fieldmaps", "sbref", "--use-syn-sdc"],
    }
    found = parsed(options, here, "sub-01_ses-a2")
    assert found["session_label"] == ["a2"] and found["participant_label"] == ["01"]
    assert found["subject_anatomical_reference"] == "sessionwise"
    assert found["run_reconall"] and found["cifti_output"] == "170k"
    assert found["fs_subjects_dir"] == str(here[SUBJECTS])
    assert found["dummy_scans"] == 4 and found["ignore"] == ["fieldmaps", "sbref"]
    assert found["use_syn_sdc"] == "error"
    for space in ("MNI152NLin6Asym", "T1w", "MNI152NLin2009cAsym", "fsaverage"):
        assert space in found["output_spaces"]


def test_every_argument_that_we_refuse_is_one_of_fmripreps() -> None:
    """A misspelt name in our list would let the true one through."""
    from brainlm.errors import InputError
    from brainlm.fmriprep.arguments import OURS

    script = """
import json
from fmriprep.cli.parser import _build_parser
known = [name for action in _build_parser()._actions for name in action.option_strings]
print("\\nFOUND" + json.dumps(known))
"""
    known = set(ask(script))
    assert set(OURS) <= known
    allowed = []
    for name in sorted(known):
        try:
            check_extra([name])
            allowed.append(name)
        except InputError:
            pass
    assert {"--dummy-scans", "--ignore", "--force", "--bold2anat-dof", "-v"} <= set(allowed)
    assert not set(allowed) & set(OURS)


def test_fmriprep_chooses_the_runs_that_the_filter_names(here: dict[str, Path]) -> None:
    """The filter is read by PyBIDS, whose run numbers are padded integers."""
    names = [
        "sub-01_ses-1_task-rest_run-01",
        "sub-01_ses-1_task-rest_run-02",
        "sub-01_ses-2_task-rest_run-01",
        "sub-01_ses-1_task-nback_run-01",
    ]
    for name in names:
        session = name.split("_")[1]
        path = here[DATA] / "sub-01" / session / "func" / f"{name}_bold.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    about = {"Name": "x", "BIDSVersion": "1.10.0"}
    (here[DATA] / "dataset_description.json").write_text(json.dumps(about))
    command = [str(here[DATA]), "out", "participant", "--bids-filter-file", str(here[FILTER])]
    for chosen in (names[:1], names[:2], [names[0], names[2]], [names[3]]):
        here[FILTER].write_text(json.dumps(bids_filter(chosen, names)))
        found = ask(CHOOSE, json.dumps(command), "01")
        assert sorted(Path(path).name for path in found) == sorted(
            f"{name}_bold.nii.gz" for name in chosen
        )


def test_reports_rendered_by_nireports_are_read(tmp_path: Path) -> None:
    clean = read_error_section(ask(RENDER, str(tmp_path)))
    assert clean == ErrorSection(0, ())
    for number in range(2):
        traceback = fake_engine.TRACEBACK.format(error=f"ValueError: x < {number}")
        text = f"Node: a.b.node{number}\nWorking directory: /work\n\nNode inputs:\n\n"
        (tmp_path / f"crash-{number}.txt").write_text(f"{text}in_file = <undefined>\n{traceback}")
    found = read_error_section(ask(RENDER, str(tmp_path)))
    assert found is not None and found.failed == 2
    assert {crash.node for crash in found.crashes} == {"a.b.node0", "a.b.node1"}
    assert {crash.reason[:14] for crash in found.crashes} == {"ValueError: x "}


def test_the_true_wrapper_calls_docker_as_we_mean_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = Path(INTERPRETER).parent / "fmriprep-docker"
    if not wrapper.exists():
        pytest.skip(f"fmriprep-docker is not installed beside {INTERPRETER}")
    environment = make_machine(tmp_path, "docker")
    (tmp_path / "bin" / "fmriprep-docker").symlink_to(wrapper.absolute())
    environment |= {"PYTHONPATH": "", "BRAINLM_FMRIPREP_PYTHON": INTERPRETER}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TEMPLATEFLOW_HOME")
    study = make_study(tmp_path, ineligible=("sub-01_task-nback_run-1",))
    fmriprep("sub-01", study=study)
    manifest = json.loads((study / "derivatives/fmriprep-jobs/sub-01.json").read_text())
    assert manifest["Runtime"] == "fmriprep-docker" and len(manifest["Files"]) == 36
    command = recorded(environment)[-1]
    at = command.index("participant")
    assert command[at - 2 : at] == ["/data", "/out"]
    assert command[at - 3].startswith("docker.io/nipreps/fmriprep@sha256:")
    assert "-it" not in command and "--network=none" in command
    for item in (
        f"{tmp_path / 'bids data'}:/data:ro",
        f"{environment['FS_LICENSE']}:/opt/freesurfer/license.txt:ro",
        "NO_ET=1",
    ):
        assert item in command[:at]
    inside = command[at:]
    for option, value in (
        ("--participant-label", "01"),
        ("--output-spaces", "MNI152NLin6Asym:res-2"),
        ("--bids-filter-file", "/tmp/bids_filter.json"),
        ("-w", "/scratch"),
        ("--mem_mb", "14400"),
    ):
        assert inside[inside.index(option) + 1] == value
    assert "--notrack" in inside and "--fs-no-reconall" in inside
