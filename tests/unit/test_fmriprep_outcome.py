"""Reading reports and crash files, and whose fault a failed run was."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainlm.errors import DataError, InputError, ResourceError
from brainlm.fmriprep.jobs import Job
from brainlm.fmriprep.outcome import fmriprep_version, judge, missing_outputs, wrong_version
from brainlm.fmriprep.outputs import install, remove_owned
from brainlm.fmriprep.report import Crash, ErrorSection, find_crashes, read_error_section

from . import fake_engine

JOB = Job("sub-01", ("sub-01_task-rest_run-1",))


def test_a_report_without_errors() -> None:
    assert read_error_section(fake_engine.report(fake_engine.CLEAN)) == ErrorSection(0, ())


@pytest.mark.parametrize("text", ["", "<html>", "No errors to report!", "<div id='errors'></div>"])
def test_a_report_without_a_section_of_errors_is_no_clean_report(text: str) -> None:
    assert read_error_section(text) is None


def test_words_outside_the_section_do_not_count() -> None:
    inside = fake_engine.FAILED.format(count=1, node="a.b", traceback="ValueError: x")
    page = f"<p>{fake_engine.CLEAN}</p>{fake_engine.report(inside)}<p>{fake_engine.CLEAN}</p>"
    found = read_error_section(page)
    assert found is not None and found.failed == 1 and found.crashes[0].node == "a.b"


LINE = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20)


@given(st.lists(st.tuples(LINE, LINE), min_size=1, max_size=4))
def test_every_failed_step_is_read(steps: list[tuple[str, str]]) -> None:
    """Escaped by us: NiReports itself puts tracebacks in as they are."""
    sections = [
        fake_engine.FAILED.format(
            count=len(steps), node=html.escape(node), traceback=html.escape(trace)
        )
        for node, trace in steps
    ]
    found = read_error_section(fake_engine.report("\n".join(sections)))
    assert found is not None and found.failed == len(steps)
    assert [(crash.node, crash.traceback) for crash in found.crashes] == [
        (node.removeprefix("Node Name:").strip(), trace.strip()) for node, trace in steps
    ]


def test_the_reason_of_a_crash_is_its_exception() -> None:
    trace = fake_engine.TRACEBACK.format(error="nipype.pipeline.NodeExecutionError: step x\n\n")
    assert Crash("a", trace).reason == "nipype.pipeline.NodeExecutionError: step x"
    assert Crash("a", "Traceback (most recent call last):\n  oh\n").reason == "oh"
    assert Crash("a", "").reason == "no reason is given"


def crashed(out: Path, error: str, folder: str = "sub-01/log/run") -> None:
    path = out / folder / "crash-1.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    trace = fake_engine.TRACEBACK.format(error=error)
    path.write_text(f"Node: {fake_engine.NODE}\nWorking directory: /work\n\n{trace}")


@pytest.mark.parametrize("folder", ["sub-01/log/run", "sub-01/ses-1/log/run"])
def test_crash_files_are_found_wherever_fmriprep_puts_them(tmp_path: Path, folder: str) -> None:
    crashed(tmp_path, "ValueError: x", folder)
    (found,) = find_crashes(tmp_path)
    assert found.node == fake_engine.NODE and found.reason == "ValueError: x"
    assert isinstance(judge(JOB, 1, [], tmp_path), DataError)


@pytest.mark.parametrize(
    "error",
    [
        "OSError: [Errno 28] No space left on device",
        "OSError: [Errno 122] Disk quota exceeded: '/work/x'",
        "OSError: [Errno 5] Input/output error",
        "MemoryError",
        "numpy._core._exceptions._ArrayMemoryError: Unable: MemoryError",
        "subprocess.CalledProcessError: antsRegistration: Cannot allocate memory",
        "RuntimeError: Return code: 137",
        "RuntimeError: Return code: -9",
        "concurrent.futures.process.BrokenProcessPool: A process was terminated abruptly",
        "requests.exceptions.ConnectionError: HTTPSConnectionPool: Max retries exceeded",
        "PermissionError: [Errno 13] Permission denied: '/out/x'",
    ],
)
def test_a_crash_that_names_the_machine_is_not_the_datas(tmp_path: Path, error: str) -> None:
    crashed(tmp_path, error)
    found = judge(JOB, 1, [], tmp_path)
    assert isinstance(found, ResourceError) and found.file is not None


@pytest.mark.parametrize(
    "error",
    [
        "ValueError: zero-size array to reduction operation minimum",
        "RuntimeError: Return code: 1",
        "Exception: No T1w images found for participant 01. All workflows require T1w images.",
        "OSError: [Errno 2801] odd",
    ],
)
def test_other_crashes_are_the_datas(tmp_path: Path, error: str) -> None:
    crashed(tmp_path, error)
    found = judge(JOB, 1, [], tmp_path)
    assert isinstance(found, DataError) and "at mcflirt: " in found.what


@pytest.mark.parametrize("code", [-9, -15, 130, 137, 143])
def test_a_killed_run_is_the_machines_whatever_it_left(tmp_path: Path, code: int) -> None:
    crashed(tmp_path, "ValueError: x")
    assert isinstance(
        judge(JOB, code, ["No BOLD images found for participant"], tmp_path), ResourceError
    )


@given(st.integers(1, 255), st.lists(LINE, max_size=3))
def test_no_code_alone_gives_a_subject_up(code: int, log: list[str]) -> None:
    found = judge(JOB, code, log, Path("/nowhere"))
    assert isinstance(found, (ResourceError, InputError))


@pytest.mark.parametrize(
    "words",
    [
        "RuntimeError: No BOLD images found for participant 01 and task <all>.",
        "Exception: No T1w images found for participant 01. All workflows require T1w images.",
        "RuntimeError: This BOLD series contains two echoes, which fMRIPrep does not support:",
        "RuntimeError: Multi-echo images found with mismatching shapes",
        "NotImplementedError: Sophisticated PEPOLAR schemes are unsupported.",
        "sdcflows.fieldmaps.MetadataError: Missing 'Units' for </data/sub-01/fmap/x.nii.gz>.",
    ],
)
def test_what_fmriprep_says_of_the_data_counts_if_the_machine_was_well(
    tmp_path: Path, words: str
) -> None:
    said = ["Traceback (most recent call last):", words]
    found = judge(JOB, 1, said, tmp_path)
    assert isinstance(found, DataError) and words.partition(": ")[2][:20] in found.what
    full = [*said, "OSError: [Errno 28] No space left on device"]
    assert isinstance(judge(JOB, 1, full, tmp_path), ResourceError)


def test_a_clean_end_needs_a_clean_report(tmp_path: Path) -> None:
    assert isinstance(judge(JOB, 0, [], tmp_path), ResourceError)
    (tmp_path / "sub-01.html").write_text(fake_engine.report(fake_engine.CLEAN))
    assert judge(JOB, 0, [], tmp_path) is None
    (tmp_path / "sub-01_ses-1_func.html").write_text("<html>")
    assert isinstance(judge(JOB, 0, [], tmp_path), ResourceError)


def place(out: Path, stem: str, *names: str) -> None:
    folder = out / "sub-01" / "func"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or fake_engine.BOLD:
        (folder / f"{stem}_{name}").write_text("x")


def test_missing_outputs_are_named(tmp_path: Path) -> None:
    assert len(missing_outputs(JOB, tmp_path)) == 3
    place(tmp_path, "sub-01_task-rest_run-1")
    assert missing_outputs(JOB, tmp_path) == []
    grid = "space-MNI152NLin6Asym_res-2_desc-preproc_bold.nii.gz"
    series = tmp_path / "sub-01/func" / f"sub-01_task-rest_run-1_{grid}"
    series.write_text("")
    assert missing_outputs(JOB, tmp_path) == ["sub-01_task-rest_run-1: preprocessed series"]
    series.unlink()
    place(tmp_path, "sub-01_task-rest_run-2")
    place(tmp_path, "sub-01_task-rest_run-1", grid.replace("res-2", "res-1"))
    assert missing_outputs(JOB, tmp_path) == ["sub-01_task-rest_run-1: preprocessed series"]


def test_outputs_are_found_by_their_entities(tmp_path: Path) -> None:
    """Echoes are joined, and the order of entities is fMRIPrep's."""
    place(tmp_path, "sub-01_task-rest_acq-b_dir-AP")
    job = Job(
        "sub-01", ("sub-01_task-rest_dir-AP_acq-b_echo-1", "sub-01_task-rest_dir-AP_acq-b_echo-2")
    )
    assert missing_outputs(job, tmp_path) == []


def test_versions(tmp_path: Path) -> None:
    assert fmriprep_version(tmp_path) is None
    about = tmp_path / "dataset_description.json"
    for text in ("{", "[]", '{"GeneratedBy": [{"Name": "other"}]}'):
        about.write_text(text)
        assert fmriprep_version(tmp_path) is None
    about.write_text(json.dumps({"GeneratedBy": [{"Name": "fMRIPrep", "Version": "25.2.5"}]}))
    assert fmriprep_version(tmp_path) == "25.2.5"
    assert wrong_version(tmp_path, "25.2.5") is None
    assert wrong_version(tmp_path, None) is None
    assert isinstance(wrong_version(tmp_path, "25.2.7"), InputError)
    about.unlink()
    for pinned in (None, "25.2.5"):
        assert isinstance(wrong_version(tmp_path, pinned), InputError)


LABEL = st.text("abcXYZ019", min_size=1, max_size=4)


@given(LABEL, LABEL, LABEL)
def test_jobs_own_their_files_and_no_others(subject: str, session: str, other: str) -> None:
    whole = Job(f"sub-{subject}", ())
    part = Job(f"sub-{subject}_ses-{session}", ())
    for path in (
        f"sub-{subject}/ses-{session}/func/sub-{subject}_ses-{session}_task-x_bold.nii.gz",
        f"sub-{subject}/figures/sub-{subject}_ses-{session}_task-x_bold.svg",
        f"sub-{subject}_ses-{session}.html",
        f"sourcedata/freesurfer/sub-{subject}_ses-{session}/surf/lh.white",
    ):
        assert whole.owns(path) and part.owns(path)
        assert not Job(f"sub-{subject}{other}", ()).owns(path)
        assert not Job(f"sub-{subject}_ses-{session}{other}", ()).owns(path)
    for path in ("dataset_description.json", "logs/CITATION.md", ".bidsignore"):
        assert not whole.owns(path) and not part.owns(path)
    assert whole.owns(f"sub-{subject}/anat/sub-{subject}_dseg.nii.gz")
    assert not part.owns(f"sub-{subject}/anat/sub-{subject}_dseg.nii.gz")


def test_links_are_moved_as_links(tmp_path: Path) -> None:
    made, final = tmp_path / "made", tmp_path / "final"
    surfaces = made / "sourcedata/freesurfer/sub-01/surf"
    surfaces.mkdir(parents=True)
    (surfaces / "lh.pial.T1").write_text("x")
    (surfaces / "lh.pial").symlink_to("lh.pial.T1")
    files = install(JOB, made, final)
    assert list(files) == ["sourcedata/freesurfer/sub-01/surf/lh.pial.T1"]
    moved = final / "sourcedata/freesurfer/sub-01/surf/lh.pial"
    assert moved.is_symlink() and moved.read_text() == "x" and not made.exists()
    remove_owned(JOB, final)
    assert not moved.is_symlink()
