"""What goes into an fMRIPrep job's command: arguments, filter, engine, licence, templates."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainlm.config import Config, parse_config
from brainlm.errors import DataError, InputError
from brainlm.fmriprep.arguments import DATA, OUT, WORK, check_extra, fmriprep_arguments
from brainlm.fmriprep.caches import (
    FILES,
    check_templates,
    files_of,
    fsaverage_names,
    missing_templates,
    templates_of,
)
from brainlm.fmriprep.inside import query_of
from brainlm.fmriprep.jobs import Job, bids_filter, check_anatomy, job_of, jobs_of, lets_through
from brainlm.fmriprep.license import find_license, needs_license
from brainlm.fmriprep.runtime import (
    Mount,
    Runtime,
    can_wrap,
    container_command,
    detect,
    job_mounts,
    wrapper_command,
)

from .fmriprep_study import LICENSE, fill_templates

JOB = Job("sub-01", ("sub-01_task-rest",))
TEXT = st.text(st.characters(codec="utf-8", exclude_characters=":,\0/"), min_size=1, max_size=8)


def arguments(job: Job = JOB, **options: Any) -> list[str]:
    section = Config(fmriprep=options).model_dump(mode="json")["fmriprep"]
    return fmriprep_arguments(
        job, section, threads=4, mem_gb=16, seed=1, filtered=False, licensed=True
    )


# --- the config and fMRIPrep's arguments ---------------------------------------------------


@given(st.lists(st.sampled_from(["T1w", "MNI152NLin2009cAsym:res-2", "MNI152NLin6Asym:res-1"])))
def test_the_space_of_the_parcels_is_always_asked_for(spaces: list[str]) -> None:
    given_spaces = arguments(output_spaces=spaces)
    at = given_spaces.index("--output-spaces") + 1
    assert "MNI152NLin6Asym:res-2" in given_spaces[at : at + len(spaces) + 1]
    assert given_spaces.count("MNI152NLin6Asym:res-2") == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"output_spaces": ["--nprocs"]},
        {"output_spaces": ["T1w fsnative"]},
        {"cifti": "91k"},
        {"level": "run"},
    ],
)
def test_sections_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        parse_config({"fmriprep": wrong}, source="test")


def test_yaml_reads_a_bare_off_as_false() -> None:
    assert Config(fmriprep={"cifti": False}).fmriprep.cifti == "off"


def test_nobody_is_told_of_a_run_and_no_file_is_validated_twice() -> None:
    for always in ("--notrack", "--skip-bids-validation", "--stop-on-first-crash"):
        assert always in arguments()
    assert "--fs-no-reconall" in arguments()
    assert "--fs-subjects-dir" not in arguments()


@pytest.mark.parametrize(
    "extra",
    [
        ["--nprocs", "8"],
        ["--nprocs=8"],
        ["--participant"],  # argparse takes the beginning for the whole
        ["--output-space", "T1w"],
        ["-w", "/tmp"],
        ["-w/tmp"],
        ["-t", "rest"],
        ["--dummy-scans", "4", "--random-seed", "2"],
        ["--derivatives", "/x"],
        ["--use-plugin", "x"],
        ["sub-02"],
    ],
)
def test_extra_arguments_that_undo_ours_are_refused(extra: list[str]) -> None:
    with pytest.raises(InputError, match=r"fmriprep\.extra_args"):
        check_extra(extra)


@pytest.mark.parametrize(
    "extra",
    [
        [],
        ["--dummy-scans", "4"],
        ["--fmap-bspline"],
        ["--fd-spike-threshold", "-0.5"],
        ["--ignore", "fieldmaps", "t2w"],
        ["-vv"],
        ["--me-output-echos"],
        ["--bold2anat-dof", "9"],
    ],
)
def test_other_extra_arguments_go_through_last(extra: list[str]) -> None:
    found = arguments(extra_args=extra)
    assert found[len(found) - len(extra) :] == extra


# --- jobs and filters ----------------------------------------------------------------------


def test_jobs_are_subjects_or_sessions() -> None:
    names = ["sub-01_ses-1_task-a", "sub-01_ses-2_task-a", "sub-02_task-a", "sub-01_ses-1_task-b"]
    by_subject = jobs_of(names, "subject")
    assert list(by_subject) == ["sub-01", "sub-02"]
    assert by_subject["sub-01"].recordings == (names[0], names[1], names[3])
    by_session = jobs_of(names, "session")
    assert list(by_session) == ["sub-01_ses-1", "sub-01_ses-2", "sub-02"]
    assert by_session["sub-01_ses-1"].recordings == (names[0], names[3])
    for level, jobs in (("subject", by_subject), ("session", by_session)):
        for job in jobs.values():
            assert all(job_of(name, level) == job.name for name in job.recordings)


VALUES = st.sampled_from(["1", "2", "3"])
RECORDING = st.builds(
    lambda ses, task, run: (
        "sub-01" + (f"_ses-{ses}" if ses else "") + f"_task-{task}" + (f"_run-{run}" if run else "")
    ),
    st.none() | VALUES,
    VALUES,
    st.none() | VALUES,
)


@given(st.lists(RECORDING, min_size=1, max_size=6, unique=True), st.data())
def test_the_filter_keeps_all_that_are_chosen(names: list[str], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    filters = bids_filter(chosen, names)
    assert all(lets_through(filters, name) for name in chosen)
    if set(chosen) == set(names):
        assert filters == {}
    assert all(None not in values for values in filters.get("bold", {}).values())


def test_the_filter_shuts_out_a_run_that_differs_in_one_value() -> None:
    names = ["sub-01_task-rest_run-1", "sub-01_task-rest_run-2", "sub-01_task-nback_run-1"]
    assert bids_filter(names[:2], names) == {"bold": {"task": ["rest"]}}
    assert bids_filter(names[:1], names) == {"bold": {"task": ["rest"], "run": ["1"]}}
    cross = [*names, "sub-01_task-nback_run-2"]
    filters = bids_filter([cross[0], cross[3]], cross)
    assert all(lets_through(filters, name) for name in cross), "a product cannot tell these apart"


def test_a_session_needs_a_t1w_of_its_own() -> None:
    rows = [{"t1w": "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"}]
    check_anatomy("sub-01", rows, "subject")
    check_anatomy("sub-01_ses-1", rows, "session")
    with pytest.raises(DataError, match="no T1w of its own"):
        check_anatomy("sub-01_ses-2", rows, "session")
    with pytest.raises(DataError, match="no T1w of its own"):
        check_anatomy("sub-01", [{"t1w": None}], "subject")


# --- engines ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "installed", "kind"),
    [
        ("auto", ["apptainer", "docker"], "apptainer"),
        ("auto", ["singularity", "docker"], "apptainer"),
        ("auto", ["docker", "fmriprep-docker"], "docker"),
        ("docker", ["apptainer", "docker"], "docker"),
        ("apptainer", ["docker"], None),
        ("docker", ["apptainer"], None),
        ("auto", ["fmriprep-docker"], None),
    ],
)
def test_the_engine_is_the_one_asked_for_if_it_is_there(
    asked: str, installed: list[str], kind: str | None
) -> None:
    which = {name: f"/opt/{name}" for name in installed}
    if kind is None:
        with pytest.raises(InputError, match="not installed"):
            detect(asked, which)
    else:
        found = detect(asked, which)
        assert found.kind == kind and found.wrapper == which.get(
            "fmriprep-docker" if kind == "docker" else ""
        )


@given(TEXT, TEXT)
def test_any_path_is_one_item_of_the_command(one: str, two: str) -> None:
    bids, work = Path("/a") / one, Path("/b") / two
    mounts = [Mount(bids, DATA), Mount(work, WORK, True)]
    for kind, flag, endings in (
        ("apptainer", "--bind", (":/data:ro", ":/work:rw")),
        ("docker", "--volume", (":/data:ro", ":/work")),
    ):
        runtime = Runtime(kind, f"/opt/{kind}")  # type: ignore[arg-type]
        command = container_command(runtime, "i", mounts, {"A": one}, ["x", two], name="n")
        for path, ending in ((bids, endings[0]), (work, endings[1])):
            at = command.index(f"{path}{ending}")
            assert command[at - 1] == flag
        assert f"A={one}" in command and command[-3:] == ["i", "x", two]


@pytest.mark.parametrize(("kind", "path"), [("apptainer", "/a,b"), ("docker", "/a:b")])
def test_paths_that_no_engine_can_mount_are_refused(kind: str, path: str) -> None:
    runtime = Runtime(kind, kind)  # type: ignore[arg-type]
    mounts = [Mount(Path(path), DATA), Mount(Path("/w"), WORK, True)]
    with pytest.raises(InputError, match="cannot mount a path"):
        container_command(runtime, "i", mounts, {}, [], name="n")


def test_only_the_jobs_own_folders_can_be_written() -> None:
    shared = {"fsaverage": Path("/c/fsaverage")}
    mounts = job_mounts(
        bids=Path("/b"),
        out=Path("/o"),
        work=Path("/w"),
        license_file=Path("/l"),
        templates=Path("/t"),
        subjects=Path("/s"),
        fsaverage=shared,
    )
    assert [mount.target for mount in mounts if mount.writable] == [OUT, WORK, "/freesurfer"]
    assert mounts[-1] == Mount(Path("/c/fsaverage"), "/freesurfer/fsaverage")


def test_apptainer_shows_neither_home_nor_environment() -> None:
    runtime = Runtime("apptainer", "apptainer")
    mounts = [Mount(Path("/w"), WORK, True)]
    command = container_command(runtime, "i", mounts, {}, [], name="n")
    assert {"--cleanenv", "--contain"} <= set(command)
    assert command[command.index("--home") + 1] == "/w/home:/home/brainlm"
    assert "/w/tmp:/tmp:rw" in command


def test_the_wrapper_gets_paths_of_this_machine() -> None:
    runtime = Runtime("docker", "docker", "/opt/fmriprep-docker")
    mounts = job_mounts(
        bids=Path("/b b"),
        out=Path("/o"),
        work=Path("/w"),
        license_file=Path("/l"),
        templates=None,
        subjects=None,
        fsaverage={},
    )
    inside = fmriprep_arguments(
        JOB,
        Config().model_dump(mode="json")["fmriprep"],
        threads=1,
        mem_gb=8,
        seed=1,
        filtered=True,
        licensed=True,
    )
    command = wrapper_command(runtime, "repo@sha256:0", mounts, {"A": "b"}, inside)
    assert command[:4] == ["/opt/fmriprep-docker", "/b b", "/o", "participant"]
    for option, value in (
        ("--image", "repo@sha256:0"),
        ("--work-dir", "/w"),
        ("--bids-filter-file", "/w/bids_filter.json"),
        ("--fs-license-file", "/l"),
        ("--user", f"{os.getuid()}:{os.getgid()}"),
    ):
        assert command[command.index(option) + 1] == value
    assert "--no-tty" in command, "it would ask for a terminal, which jobs have not"


def test_the_wrapper_is_left_where_it_cannot_pass_on_what_is_asked_for() -> None:
    usual = templates_of(["MNI152NLin6Asym:res-2"], False)
    runtime = Runtime("docker", "docker", "fmriprep-docker")

    def can(**changes: Any) -> bool:
        asked = {"freesurfer": False, "templates_chosen": False, "templates": usual, **changes}
        return can_wrap(asked.pop("runtime", runtime), **asked)

    assert can()
    assert not can(freesurfer=True)
    assert not can(templates_chosen=True)
    assert not can(templates=[*usual, "MNIPediatricAsym"])
    assert not can(runtime=Runtime("docker", "docker"))


# --- licence, templates, fsaverage ---------------------------------------------------------------


def test_the_licence_is_asked_for_only_where_it_is_tested() -> None:
    assert needs_license("always", freesurfer=False)
    assert needs_license("surfaces", freesurfer=True)
    assert not needs_license("surfaces", freesurfer=False)


def test_the_licence_is_looked_for_in_order(tmp_path: Path) -> None:
    home = tmp_path / "freesurfer"
    home.mkdir()
    for path in (tmp_path / "mine", tmp_path / "theirs", home / "license.txt"):
        path.write_text(LICENSE)
    everything = {"FS_LICENSE": str(tmp_path / "theirs"), "FREESURFER_HOME": str(home)}
    assert find_license(Path("mine"), tmp_path, everything) == tmp_path / "mine"
    assert find_license(None, tmp_path, everything) == tmp_path / "theirs"
    del everything["FS_LICENSE"]
    assert find_license(None, tmp_path, everything) == home / "license.txt"
    with pytest.raises(InputError, match="No FreeSurfer licence was found"):
        find_license(None, tmp_path, {"FREESURFER_HOME": str(tmp_path)})


@pytest.mark.parametrize("text", ["", "see https://surfer\n1\n2\n", "a@b.org\n", "<html>\n\n\n"])
def test_what_is_no_licence_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "license.txt"
    path.write_text(text)
    with pytest.raises(InputError, match="is not a FreeSurfer licence"):
        find_license(path, tmp_path, {})
    with pytest.raises(InputError, match="FS_LICENSE names does not exist"):
        find_license(None, tmp_path, {"FS_LICENSE": str(tmp_path / "no")})


def test_every_template_of_a_run_must_be_whole(tmp_path: Path) -> None:
    spaces = ("MNI152NLin6Asym:res-2", "T1w", "MNIPediatricAsym:cohort-1:res-2", "fsaverage5")
    templates = templates_of(spaces, True)
    assert templates == [
        "MNI152NLin6Asym",
        "MNI152NLin2009cAsym",
        "OASIS30ANTs",
        "fsaverage",
        "fsLR",
        "MNIPediatricAsym",
    ]
    fill_templates(tmp_path, spaces, freesurfer=True)
    child = "tpl-MNIPediatricAsym/tpl-MNIPediatricAsym_*_T1w.nii.gz"
    assert missing_templates(tmp_path, templates) == [child]
    head = tmp_path / "tpl-MNIPediatricAsym/cohort-1/tpl-MNIPediatricAsym_cohort-1_T1w.nii.gz"
    head.parent.mkdir()
    head.write_text("x")
    check_templates(tmp_path, templates)
    for template in FILES:
        for name in files_of(template):
            (tmp_path / name).write_text("")  # as TemplateFlow leaves what nobody asked for
            assert missing_templates(tmp_path, templates) == [name]
            (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match=r"lacks tpl-MNI152NLin6Asym/.* and \d+ more"):
        check_templates(tmp_path / "nowhere", templates)


def test_fsaverage_comes_first_and_once() -> None:
    assert fsaverage_names(["T1w"]) == ["fsaverage"]
    assert fsaverage_names(["fsaverage5", "fsaverage:den-10k"]) == ["fsaverage", "fsaverage5"]


def test_templateflow_is_asked_for_one_file_at_a_time() -> None:
    """Each of these queries gives exactly its file in TemplateFlow 25.1's own skeleton."""
    name = "tpl-MNI152NLin2009cAsym_res-02_desc-fMRIPrep_boldref.nii.gz"
    assert query_of(f"tpl-MNI152NLin2009cAsym/{name}") == {
        "resolution": 2,
        "desc": "fMRIPrep",
        "label": None,
        "atlas": None,
        "space": None,
        "suffix": "boldref",
        "extension": ".nii.gz",
    }
    for template in FILES:
        for path in files_of(template)[1:]:
            assert query_of(path)["suffix"], path
