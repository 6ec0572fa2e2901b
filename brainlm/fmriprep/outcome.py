"""How a run of fMRIPrep ended, and whose fault it was: the data's or the machine's.

Only the data's fault gives a subject up for good, so that takes evidence: a step that crashed for
no reason of the machine's, fMRIPrep's own word that a file is missing, or outputs that are not
there although all went well. Whatever else is the machine's: the job fails, nothing is recorded
against the subject, and Snakemake may try again. An error in this direction costs a rerun and is
seen at once; one in the other would lose a subject in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import BrainLMError, DataError, InputError, ResourceError
from ..layout import entities_of
from .jobs import Job
from .report import Crash, find_crashes, read_error_section

#: Words by which a traceback or a log shows that the machine failed.
_MACHINE = re.compile(
    r"No space left on device|Disk quota exceeded|Input/output error|Read-only file system"
    r"|Stale file handle|Permission denied|Errno (?:5|12|13|28|30|116|122)\b"
    r"|MemoryError|[Cc]annot allocate memory|[Oo]ut of memory|bad_alloc|\bKilled\b"
    r"|SIGKILL|SIGTERM|SIGBUS|terminated abruptly|BrokenProcessPool"
    r"|[Rr]eturn code: (?:-9|-15|137|143)\b"
    r"|ConnectionError|Connection refused|Max retries exceeded|Name or service not known"
    r"|Temporary failure in name resolution|Network is unreachable"
)
#: What fMRIPrep 25 says of the data when it builds a subject's workflow, before any step runs.
_DATA = re.compile(
    r"No (?:BOLD|T1w) images found for participant[^\n]*"
    r"|This BOLD series contains two echoes[^\n]*"
    r"|Multi-echo (?:images found with mismatching shapes|processing requires at least)[^\n]*"
    r"|Sophisticated PEPOLAR schemes are unsupported[^\n]*"
    r"|Fieldmap-less \(SyN\) estimation was requested, but PhaseEncodingDirection[^\n]*"
    r"|MetadataError: Missing [^\n]*"
)
_KILLED = frozenset({130, 137, 143})
_NO_LICENSE = re.compile(r"valid license file is required|FIPS\) mode is enabled")


def judge(job: Job, code: int, log: Sequence[str], out: Path) -> BrainLMError | None:
    """What went wrong in a run that ended with `code`; None if nothing did.

    `log` holds its last lines, `out` the files that it wrote, and nothing older.
    """
    said = "\n".join(log)
    if code < 0 or code in _KILLED:
        return ResourceError(
            f"fMRIPrep was killed (code {code}): by a limit of memory or time, or by hand",
            fix="give the rule more memory or time, or run it again; nothing is held against "
            f"{job.name}",
        )
    if code in (125, 126, 127, 255):
        return _not_started(code, said)
    if code == 2:
        return InputError(
            f"fMRIPrep did not take its arguments: {_last(log)}",
            fix="look at fmriprep.extra_args and fmriprep.output_spaces in the config",
        )
    crashes = find_crashes(out)
    failed = _failed_steps(job, out)
    crashes = crashes or [crash for crash in failed or [] if isinstance(crash, Crash)]
    if crashes:
        return _crashed(job, crashes)
    if code == 0 and failed is None:
        return ResourceError(
            "fMRIPrep ended well but left no report with a section of errors",
            fix="run the job again, and look into its log",
        )
    return None if code == 0 else _ended_early(job, code, said)


def _failed_steps(job: Job, out: Path) -> list[Crash] | None:
    """The failed steps that the job's reports list; None where no report can be read."""
    sections = [
        read_error_section(path.read_text(encoding="utf-8", errors="replace"))
        for path in sorted(out.glob(f"sub-{job.subject}*.html"))
    ]
    if not sections or any(section is None for section in sections):
        return None
    found: list[Crash] = []
    for section in sections:
        assert section is not None
        unnamed = [Crash("a step", "")] * max(0, section.failed - len(section.crashes))
        found += [*section.crashes, *unnamed]
    return found


def _crashed(job: Job, crashes: Sequence[Crash]) -> BrainLMError:
    """The error for steps that crashed: the machine's if any of them shows that."""
    for crash in crashes:
        if found := _MACHINE.search(crash.traceback):
            return ResourceError(
                f"A step of fMRIPrep failed through the machine ({found[0]}): {crash.node}",
                file=crash.file,
                fix="free space, memory or the network, then run the job again",
            )
    first = crashes[0]
    more = f" and {len(crashes) - 1} more" if len(crashes) > 1 else ""
    return DataError(
        f"fMRIPrep failed on {job.name} at {first.node.rpartition('.')[2]}{more}: {first.reason}",
        file=first.file,
        fix=f"look at qc/fmriprep/{job.name}; mend or leave out the run it names, onboard again",
    )


def _not_started(code: int, said: str) -> BrainLMError:
    if _NO_LICENSE.search(said):
        return InputError(
            "fMRIPrep does not accept the FreeSurfer licence",
            fix="register anew (it is free) and set containers.fs_license to the file",
        )
    return ResourceError(
        f"The container did not run (code {code}): {_last(said.splitlines())}",
        fix="look into the log; `brainlm containers list` says what is on this machine",
    )


def _ended_early(job: Job, code: int, said: str) -> BrainLMError:
    """A run that failed without a crash file: its log must say that it was the data."""
    if not _MACHINE.search(said) and (found := _DATA.search(said)):
        return DataError(
            f"fMRIPrep cannot use {job.name}: {found[0].strip()}",
            fix="mend the subject's files and onboard again, or leave it out",
        )
    return ResourceError(
        f"fMRIPrep ended with code {code} and does not say which step failed: "
        f"{_last(said.splitlines())}",
        fix=f"look into the log; nothing is held against {job.name}, so the job may be run again",
    )


def _last(log: Sequence[str]) -> str:
    lines = [line.strip() for line in log if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def missing_outputs(job: Job, out: Path) -> list[str]:
    """What the next stage needs and is not there, as `recording: kind`.

    Compared by entities, not by names: fMRIPrep joins the echoes of a run, and its order of
    entities may differ.
    """
    found: dict[str, list[dict[str, str]]] = {}
    for path in (out / f"sub-{job.subject}").rglob("func/*"):
        if path.stat().st_size and not path.name.endswith(".json"):
            stem = path.name.partition(".")[0]
            body, _, suffix = stem.rpartition("_")
            with_suffix = f"{suffix}{path.name.removeprefix(stem)}"
            try:
                found.setdefault(with_suffix, []).append(entities_of(body))
            except ValueError:
                continue
    return [
        f"{recording}: {kind}"
        for recording in job.recordings
        for kind, (suffix, extra) in _NEEDED.items()
        if not any(_is_of(recording, extra, entities) for entities in found.get(suffix, []))
    ]


_GRID = {"space": "MNI152NLin6Asym", "res": "2"}
#: What is read of each recording: its suffix, and the entities besides the recording's own.
_NEEDED: dict[str, tuple[str, dict[str, str]]] = {
    "preprocessed series": ("bold.nii.gz", {**_GRID, "desc": "preproc"}),
    "brain mask": ("mask.nii.gz", {**_GRID, "desc": "brain"}),
    "confounds": ("timeseries.tsv", {"desc": "confounds"}),
}
#: Entities that fMRIPrep's outputs do not repeat: echoes are joined, phase images left.
_DROPPED = ("echo", "part")


def _is_of(recording: str, extra: dict[str, str], entities: dict[str, str]) -> bool:
    own = {key: value for key, value in entities_of(recording).items() if key not in _DROPPED}
    return {**own, **extra} == {k: v for k, v in entities.items() if k not in _DROPPED}


def fmriprep_version(out: Path) -> str | None:
    """The version that fMRIPrep wrote into `dataset_description.json`."""
    try:
        about = json.loads((out / "dataset_description.json").read_text(encoding="utf-8"))
        made = {one["Name"]: one["Version"] for one in about["GeneratedBy"]}
        return str(made["fMRIPrep"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def wrong_version(out: Path, pinned: str | None) -> InputError | None:
    """What is wrong if the outputs name another fMRIPrep than the pinned one, or none at all."""
    found = fmriprep_version(out)
    if found is not None and pinned in (None, found):
        return None
    return InputError(
        f"The outputs say that they were made by fMRIPrep {found}, the lock file says {pinned}"
        if found
        else "The outputs do not say which fMRIPrep made them",
        fix="mend the entry of fmriprep in config/images.lock.yaml",
    )
