"""`brainlm fmriprep` from config to manifest, with a stand-in where the container engine is.

No container is run. The stand-in takes the true argument lists and writes the names that
fMRIPrep 25 writes, or fails as it would.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from brainlm.cli._stage import OnDataError
from brainlm.cli.fmriprep import fmriprep
from brainlm.errors import BrainLMError, DataError, InputError, ResourceError
from brainlm.layout import entities_of
from brainlm.provenance import check_input, is_tombstone, sha256_file

from . import fake_engine
from .fmriprep_study import make_machine, make_study, recorded, start

SIF = "fmriprep: {image: ../image.sif}\n"
MANIFEST = "derivatives/fmriprep-jobs/sub-01.json"
RUNS = ("sub-01_task-rest_run-1", "sub-01_task-rest_run-2")


def working_on(root: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a machine with that engine, from now on ours too."""
    root.mkdir()
    environment = make_machine(root, engine)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FAKE_MODE", raising=False)
    return environment


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A machine with Apptainer; its name holds a blank, as those of all folders."""
    return working_on(tmp_path / "a machine", "apptainer", monkeypatch)


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A machine with Docker alone."""
    return working_on(tmp_path / "docks", "docker", monkeypatch)


@pytest.fixture
def study(machine: dict[str, str]) -> Path:
    return make_study(Path(machine["HOME"]), config=SIF)


def nothing_is_left(study: Path) -> bool:
    """Neither scratch nor a job's own folder."""
    staged = list(study.glob("derivatives/fmriprep/.tmp-*"))
    return not staged and not list((study.parent / "tmp").iterdir())


def test_a_job_leaves_its_files_and_a_manifest_of_them(study: Path) -> None:
    fmriprep("sub-01", study=study, mem_gb=20, threads=12)
    manifest = check_input(study / MANIFEST, entities_of("sub-01"))
    final = study / "derivatives" / "fmriprep"
    assert manifest["FmriprepVersion"] == "25.2.5" and manifest["ExitCode"] == 0
    assert manifest["ImageDigest"] == f"sha256:{sha256_file(study.parent / 'image.sif')}"
    assert manifest["Recordings"] == list(RUNS)
    assert len(manifest["Files"]) == 36
    for name, about in manifest["Files"].items():
        assert (final / name).stat().st_size == about["Size"]
        assert sha256_file(final / name) == about["SHA256"]
    assert "bids::sub-01/anat/sub-01_T1w.nii.gz" in manifest["Sources"]
    text = (study / MANIFEST).read_text()
    assert str(study.parent) not in text, "no path of this machine"
    command = manifest["Command"]
    assert command[:4] == ["fmriprep", "/data", "/out", "participant"]
    assert command[command.index("--nprocs") + 1] == "12"
    assert command[command.index("--omp-nthreads") + 1] == "8"
    assert command[command.index("--mem_mb") + 1] == "18000"
    assert "dataset_description.json" not in manifest["Files"]
    assert (final / "dataset_description.json").exists()
    assert nothing_is_left(study)


def test_the_same_job_again_gives_the_same_manifest_and_no_old_file(study: Path) -> None:
    fmriprep("sub-01", study=study)
    first = (study / MANIFEST).read_bytes()
    old = study / "derivatives/fmriprep/sub-01/func/sub-01_task-rest_run-1_space-T1w_bold.nii.gz"
    other = study / "derivatives/fmriprep/sub-012/func/sub-012_bold.nii.gz"
    for path in (old, other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    fmriprep("sub-01", study=study)
    assert (study / MANIFEST).read_bytes() == first
    assert not old.exists() and other.exists()


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("crash", "failed on sub-01 at mcflirt: ValueError: zero-size array"),
        ("html_only", "failed on sub-01 at mcflirt: ValueError: no brain is left"),
        ("missing", "made no confounds of sub-01_task-rest_run-1 (2 outputs are missing)"),
        ("no_bold", "No BOLD images found for participant 01"),
    ],
)
def test_bad_data_give_up_every_recording_of_the_job_and_no_other(
    study: Path, monkeypatch: pytest.MonkeyPatch, mode: str, words: str
) -> None:
    monkeypatch.setenv("FAKE_MODE", mode)
    with pytest.raises(DataError) as raised:
        fmriprep("sub-01", study=study)
    assert words in str(raised.value)
    assert not (study / MANIFEST).exists() and not (study / "qc/failures").exists()

    fmriprep("sub-01", study=study, on_data_error=OnDataError.record)
    assert is_tombstone(study / MANIFEST)
    for recording in RUNS:
        failure = json.loads((study / f"qc/failures/{recording}.json").read_text())
        assert failure["recording_id"] == recording and failure["stage"] == "fmriprep"
        assert words in failure["what"]
    assert not (study / "qc/failures/sub-02_task-rest.json").exists()
    assert not (study / "derivatives/fmriprep/sub-01").exists()
    assert nothing_is_left(study)

    monkeypatch.setenv("FAKE_MODE", "ok")
    fmriprep("sub-01", study=study, on_data_error=OnDataError.record)
    assert not list((study / "qc/failures").iterdir()) and not is_tombstone(study / MANIFEST)
    assert not (study / "qc/fmriprep/sub-01").exists()


def test_the_crash_file_is_kept_where_the_failure_says(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MODE", "crash")
    fmriprep("sub-01", study=study, on_data_error=OnDataError.record)
    failure = json.loads((study / f"qc/failures/{RUNS[0]}.json").read_text())
    assert failure["file"].startswith("qc/fmriprep/sub-01/crash-")
    assert (study / failure["file"]).read_text().startswith(f"Node: {fake_engine.NODE}")
    assert (study / "qc/fmriprep/sub-01/sub-01.html").exists()


@pytest.mark.parametrize(
    ("mode", "error", "words"),
    [
        ("killed", ResourceError, "killed"),
        ("disk_full", ResourceError, "Errno 28"),
        ("silent", ResourceError, "does not say which step failed: Segmentation fault"),
        ("no_report", ResourceError, "left no report"),
        ("license", InputError, "does not accept the FreeSurfer licence"),
        ("arguments", InputError, "unrecognized arguments: --wrong"),
    ],
)
def test_the_machines_faults_are_held_against_no_recording(
    study: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    error: type[BrainLMError],
    words: str,
) -> None:
    monkeypatch.setenv("FAKE_MODE", mode)
    with pytest.raises(error) as raised:
        fmriprep("sub-01", study=study, on_data_error=OnDataError.record)
    assert words in str(raised.value) and not isinstance(raised.value, DataError)
    assert not (study / MANIFEST).exists() and not (study / "qc/failures").exists()
    assert nothing_is_left(study)


def test_what_a_job_lacks_is_told_before_anything_starts(
    study: Path, machine: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = study / "config/config.yaml"
    template = study.parent / "templateflow/tpl-MNI152NLin6Asym"
    (template / "tpl-MNI152NLin6Asym_res-02_T1w.nii.gz").write_text("")
    with pytest.raises(InputError, match=r"lacks tpl-MNI152NLin6Asym.*_res-02_T1w"):
        fmriprep("sub-01", study=study)
    monkeypatch.delenv("FS_LICENSE")
    with pytest.raises(InputError, match="No FreeSurfer licence was found"):
        fmriprep("sub-01", study=study)
    config.write_text("bids_dir: ../bids data\nfmriprep: {image: ../nowhere.sif}\n")
    with pytest.raises(InputError, match="image file does not exist"):
        fmriprep("sub-01", study=study)
    config.write_text("bids_dir: ../bids data\n")
    with pytest.raises(InputError) as raised:
        fmriprep("sub-01", study=study)
    assert "brainlm containers pull fmriprep" in str(raised.value)
    monkeypatch.setenv("PATH", str(study))
    with pytest.raises(InputError, match="Apptainer or Docker is not installed"):
        fmriprep("sub-01", study=study)
    assert recorded(machine) == []


def test_a_raw_file_that_changed_is_given_up(study: Path, machine: dict[str, str]) -> None:
    (study.parent / "bids data/sub-01/anat/sub-01_T1w.nii.gz").write_text("another head")
    with pytest.raises(DataError, match="changed since it was onboarded"):
        fmriprep("sub-01", study=study)
    assert recorded(machine) == []


def test_a_subject_without_a_t1w_is_given_up_before_it_starts(machine: dict[str, str]) -> None:
    study = make_study(Path(machine["HOME"]), config=SIF, t1w=False)
    with pytest.raises(DataError, match="no T1w of its own"):
        fmriprep("sub-02", study=study)
    assert recorded(machine) == []


def test_outputs_of_another_version_than_the_pinned_one_are_refused(
    machine: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from brainlm.fmriprep.images import find_image

    study = make_study(Path(machine["HOME"]))
    sif = find_image("fmriprep").cached_sif
    sif.parent.mkdir(parents=True)
    sif.write_text("image")
    fmriprep("sub-01", study=study)
    digest = json.loads((study / MANIFEST).read_text())["ImageDigest"]
    assert digest == find_image("fmriprep").digest
    monkeypatch.setenv("FAKE_MODE", "other_version")
    with pytest.raises(InputError, match=r"fMRIPrep 24\.0\.0, the lock file says 25\.2\.5"):
        fmriprep("sub-01", study=study, on_data_error=OnDataError.record)
    assert not (study / "qc/failures").exists()


def test_ineligible_runs_are_kept_out(machine: dict[str, str]) -> None:
    bad = "sub-01_task-nback_run-1"
    study = make_study(Path(machine["HOME"]), config=SIF, ineligible=(bad,))
    fmriprep("sub-01", study=study)
    manifest = json.loads((study / MANIFEST).read_text())
    assert "--bids-filter-file" in manifest["Command"]
    assert not [name for name in manifest["Files"] if "nback" in name]
    assert len(manifest["Files"]) == 36


def test_sessions_meet_without_replacing_each_others_files(
    machine: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(
        Path(machine["HOME"]),
        ("sub-01_ses-1_task-rest", "sub-01_ses-2_task-rest"),
        config="fmriprep: {image: ../image.sif, level: session}\n",
    )
    fmriprep("sub-01_ses-1", study=study)
    fmriprep("sub-01", session="2", study=study)
    folder = study / "derivatives/fmriprep-jobs"
    one, two = (json.loads((folder / f"sub-01_ses-{n}.json").read_text()) for n in "12")
    for manifest, n in ((one, "1"), (two, "2")):
        assert manifest["Entities"] == {"sub": "01", "ses": n}
        assert f"sub-01_ses-{n}.html" in manifest["Files"]
        assert "--session-label" in manifest["Command"] and "sessionwise" in manifest["Command"]
    assert not set(one["Files"]) & set(two["Files"])
    for name in (*one["Files"], *two["Files"]):
        assert (study / "derivatives/fmriprep" / name).is_file()
    with pytest.raises(InputError, match="jobs are named sub-01_ses-1 here"):
        fmriprep("sub-01", study=study)
    # The report of such a run says that there are no errors, but the crash files are there.
    monkeypatch.setenv("FAKE_MODE", "session_crash")
    with pytest.raises(DataError, match="no brain is left"):
        fmriprep("sub-01_ses-2", study=study)
    assert (study / "derivatives/fmriprep/sub-01/ses-1/func").is_dir()


def test_surfaces_read_one_shared_fsaverage(machine: dict[str, str]) -> None:
    from brainlm.fmriprep.caches import fsaverage_home

    from .fmriprep_study import fill_templates

    root = Path(machine["HOME"])
    config = "fmriprep: {image: ../image.sif, freesurfer: true, cifti: 91k}\n"
    study = make_study(root, config=config)
    fill_templates(root / "templateflow", freesurfer=True)
    with pytest.raises(InputError, match="no whole copy of FreeSurfer's fsaverage"):
        fmriprep("sub-01", study=study)
    shared = fsaverage_home(f"sha256:{sha256_file(root / 'image.sif')}") / "fsaverage"
    for part in ("surf/lh.white", "label/rh.FG1.mpm.vpnl.label"):
        (shared / part).parent.mkdir(parents=True)
        (shared / part).write_text("x")
    fmriprep("sub-01", study=study)
    command = recorded(machine)[-1]
    assert f"{shared}:/freesurfer/fsaverage:ro" in command
    assert command[command.index("--fs-subjects-dir") + 1] == "/freesurfer"
    assert command[command.index("--cifti-output") + 1] == "91k"
    assert "--fs-no-reconall" not in command
    assert not (study / "derivatives/fmriprep/sourcedata/freesurfer/fsaverage").exists()


def test_dry_run_prints_the_command_and_runs_nothing(
    study: Path, machine: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    import shlex

    fmriprep("sub-01", study=study, dry_run=True)
    printed = shlex.split(capsys.readouterr().out.strip())
    assert recorded(machine) == [] and not (study / "derivatives").exists()
    fmriprep("sub-01", study=study)
    assert recorded(machine)[0][1:] == printed[1:]


def test_docker_gets_the_pinned_image_no_network_and_our_user(
    docker: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(docker["HOME"])
    study = make_study(root)
    fmriprep("sub-01", study=study)
    inspect, command = recorded(docker)
    assert inspect[:3] == ["docker", "image", "inspect"] and "@sha256:" in inspect[-1]
    assert inspect[-1] in command
    assert command[command.index("--network") + 1] == "none"
    assert command[command.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"
    assert f"{root / 'bids data'}:/data:ro" in command
    assert json.loads((study / MANIFEST).read_text())["Runtime"] == "docker"
    monkeypatch.setenv("FAKE_IMAGE_CODE", "1")
    with pytest.raises(InputError, match="not on this machine"):
        fmriprep("sub-01", study=study)
    (study / "config/config.yaml").write_text(f"bids_dir: ../bids data\n{SIF}")
    with pytest.raises(InputError, match="Docker does not run image files"):
        fmriprep("sub-01", study=study)


def test_a_stopped_job_tells_dockers_daemon_to_end_the_container(docker: dict[str, str]) -> None:
    study = make_study(Path(docker["HOME"]))
    process = start(study, {**docker, "FAKE_MODE": "hang"}, "sub-01")
    assert process.stdout is not None
    while "stand-in: hang" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    started, killed = recorded(docker)[-2:]
    assert killed == ["docker", "kill", started[started.index("--name") + 1]]
    assert process.returncode == 1 and nothing_is_left(study)


def test_a_job_that_is_stopped_ends_its_container_and_cleans_up(
    study: Path, machine: dict[str, str]
) -> None:
    process = start(study, {**machine, "FAKE_MODE": "hang"}, "sub-01")
    assert process.stdout is not None
    while "stand-in: hang" not in process.stdout.readline():
        pass
    assert not nothing_is_left(study)
    again = start(study, machine, "sub-01")
    assert "is being processed already" in again.communicate(timeout=60)[0]
    assert again.returncode == 2
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1 and "stopped by SIGTERM" in said
    assert nothing_is_left(study) and not (study / "qc/failures").exists()


def test_a_killed_job_takes_its_container_along_and_the_next_sweeps_what_it_left(
    study: Path, machine: dict[str, str]
) -> None:
    process = start(study, {**machine, "FAKE_MODE": "hang"}, "sub-01")
    assert process.stdout is not None
    while "stand-in: hang" not in process.stdout.readline():
        pass
    work = next((study.parent / "tmp").iterdir())
    stand_in = Path("/proc") / (work / "pid").read_text()
    assert stand_in.exists()
    process.kill()
    process.communicate(timeout=30)
    patience = time.monotonic() + 20
    while _runs(stand_in) and time.monotonic() < patience:
        time.sleep(0.02)
    assert not _runs(stand_in) and not nothing_is_left(study)
    locked = work / "locked"
    locked.mkdir()
    (locked / "file").touch()
    locked.chmod(0o500)
    fmriprep("sub-01", study=study)
    assert nothing_is_left(study)


def _runs(process: Path) -> bool:
    """Whether a folder of /proc is that of a process that is no zombie."""
    try:
        return "\nState:\tZ" not in (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_wrapper_is_used_where_docker_is_the_engine_and_it_can(
    docker: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrapper mounts no templates: where a cache is named, Docker itself is called."""
    root = Path(docker["HOME"])
    wrapper = root / "bin" / "fmriprep-docker"
    wrapper.write_text("#!/bin/sh\necho the wrapper; exit 125\n")
    wrapper.chmod(0o755)
    study = make_study(root)
    fmriprep("sub-01", study=study)
    assert json.loads((study / MANIFEST).read_text())["Runtime"] == "docker"
    monkeypatch.delenv("TEMPLATEFLOW_HOME")
    shutil.rmtree(root / "templateflow")
    with pytest.raises(ResourceError, match=r"did not run \(code 125\): the wrapper"):
        fmriprep("sub-01", study=study)
