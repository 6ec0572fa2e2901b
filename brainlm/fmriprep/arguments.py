"""fMRIPrep's own arguments, as they are inside the container.

Every value is one item of a list: nothing here is ever read by a shell, so that paths and
labels may hold blanks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError
from .jobs import Job

#: Where things lie inside the container.
DATA, OUT, WORK = "/data", "/out", "/work"
TEMPLATES, SUBJECTS = "/templateflow", "/freesurfer"
LICENSE = "/opt/freesurfer/license.txt"
FILTER_NAME = "bids_filter.json"
FILTER = f"{WORK}/{FILTER_NAME}"

#: Share of the job's memory that fMRIPrep may plan with: its own estimates are not exact.
_MEMORY_SHARE = 0.9
#: Threads of one step; more do not speed up ANTs' registration of a head.
_MOST_THREADS_OF_A_STEP = 8

#: Arguments that this workflow sets or leaves out on purpose, and their other spellings.
OURS: dict[str, str] = {
    "--participant-label": "the job's subject",
    "--participant_label": "the job's subject",
    "--session-label": "the job's session",
    "--subject-anatomical-reference": "fmriprep.level",
    "--longitudinal": "fmriprep.level",
    "--track-sessions": "fmriprep.level",
    "--no-track-sessions": "fmriprep.level",
    "--bids-filter-file": "the recordings table",
    "--bids-database-dir": "the job, which reads one subject's files",
    "--output-spaces": "fmriprep.output_spaces",
    "--output-layout": "the study's layout",
    "--cifti-output": "fmriprep.cifti",
    "--fs-no-reconall": "fmriprep.freesurfer",
    "--fs-subjects-dir": "fmriprep.freesurfer",
    "--fs-license-file": "containers.fs_license",
    "--work-dir": "containers.work_dir",
    "-w": "containers.work_dir",
    "--clean-workdir": "the job, which cleans up itself",
    "--nprocs": "the rule's threads",
    "--nthreads": "the rule's threads",
    "--n_cpus": "the rule's threads",
    "--n-cpus": "the rule's threads",
    "--omp-nthreads": "the rule's threads",
    "--mem": "the rule's memory",
    "--mem_mb": "the rule's memory",
    "--mem-mb": "the rule's memory",
    "--notrack": "always",
    "--skip-bids-validation": "always: onboarding has read every file",
    "--skip_bids_validation": "always: onboarding has read every file",
    "--stop-on-first-crash": "always",
    "--anat-only": "the workflow, which needs the BOLD series",
    "--level": "the workflow, which needs all outputs",
    "--reports-only": "the workflow, which needs all outputs",
    "--boilerplate-only": "the workflow, which needs all outputs",
    "--boilerplate_only": "the workflow, which needs all outputs",
    "--config-file": "the study's config",
    "--use-plugin": "the rule's resources",
    "--nipype-plugin-file": "the rule's resources",
    "--derivatives": "engine: derivatives, since the container sees no other files",
    "-d": "engine: derivatives, since the container sees no other files",
    "--task-id": "the recordings table",
    "-t": "the recordings table",
    "--echo-idx": "the recordings table",
    "--random-seed": "seed",
    "--skull-strip-fixed-seed": "seed",
    "--version": "no run",
    "--help": "no run",
    "-h": "no run",
}


def fmriprep_arguments(
    job: Job,
    options: Mapping[str, Any],
    *,
    threads: int,
    mem_gb: float,
    seed: int,
    filtered: bool,
    licensed: bool,
) -> list[str]:
    """The arguments of one job, with the paths that hold inside the container.

    `options` is the config section `fmriprep`, `mem_gb` all memory that the job has.
    """
    arguments = [DATA, OUT, "participant"]
    arguments += ["--participant-label", job.subject]
    if job.session is not None:
        arguments += ["--session-label", job.session]
        arguments += ["--subject-anatomical-reference", "sessionwise"]
    arguments += ["--output-spaces", *options["output_spaces"]]
    if options["freesurfer"]:
        arguments += ["--fs-subjects-dir", SUBJECTS]
    else:
        arguments.append("--fs-no-reconall")
    if options["cifti"] != "off":
        arguments += ["--cifti-output", options["cifti"]]
    if filtered:
        arguments += ["--bids-filter-file", FILTER]
    if licensed:
        arguments += ["--fs-license-file", LICENSE]
    arguments += ["--work-dir", WORK]
    arguments += ["--nprocs", str(threads)]
    arguments += ["--omp-nthreads", str(min(threads, _MOST_THREADS_OF_A_STEP))]
    # In this spelling: fmriprep-docker looks for it before it asks questions on a terminal.
    arguments += ["--mem_mb", str(int(mem_gb * 1000 * _MEMORY_SHARE))]
    arguments += ["--random-seed", str(seed), "--skull-strip-fixed-seed"]
    arguments += ["--skip-bids-validation", "--stop-on-first-crash", "--notrack"]
    return [*arguments, *check_extra(options["extra_args"])]


def check_extra(extra: Sequence[str]) -> list[str]:
    """The user's further arguments, refused where they would undo ours.

    argparse takes unambiguous beginnings for the whole (`--participant` for
    `--participant-label`), so these are refused too.
    """
    for item in extra:
        if not item.startswith("-") or _is_number(item):
            continue
        name = item.partition("=")[0] if item.startswith("--") else item[:2]
        for ours, setter in OURS.items():
            if name == ours or (name.startswith("--") and ours.startswith(name)):
                raise InputError(
                    f"fmriprep.extra_args holds {item}, which this workflow sets itself",
                    fix=f"leave it out; it is decided by {setter}",
                )
    if extra and not extra[0].startswith("-"):
        raise InputError(
            f"fmriprep.extra_args must begin with an option, not with {extra[0]!r}",
            fix="one item each: [--dummy-scans, '4']",
        )
    return list(extra)


def _is_number(item: str) -> bool:
    try:
        float(item)
    except ValueError:
        return False
    return True
