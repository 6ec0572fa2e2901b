"""The command that runs a container: Apptainer, Docker, or fMRIPrep's wrapper for Docker."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import InputError
from .arguments import DATA, LICENSE, OUT, SUBJECTS, TEMPLATES, WORK

WRAPPER = "fmriprep-docker"
#: Characters that separate the parts of a mount, which neither engine lets one escape.
_SEPARATORS = {"apptainer": ":,", "docker": ":"}


@dataclass(frozen=True)
class Mount:
    """A folder or file of this machine, and where the container sees it."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Runtime:
    """A container engine that is installed."""

    kind: Literal["apptainer", "docker"]
    program: str  # its full path
    wrapper: str | None = None  # full path of fmriprep-docker, where that is installed


def detect(asked: str, which: Mapping[str, str | None] | None = None) -> Runtime:
    """The engine that the config asks for; auto takes Apptainer first, as clusters have it."""

    def find(name: str) -> str | None:
        return shutil.which(name) if which is None else which.get(name)

    if asked in ("auto", "apptainer"):
        for name in ("apptainer", "singularity"):
            if program := find(name):
                return Runtime("apptainer", program)
    if asked in ("auto", "docker") and (program := find("docker")):
        return Runtime("docker", program, find(WRAPPER))
    wanted = "Apptainer or Docker" if asked == "auto" else asked.capitalize()
    raise InputError(
        f"{wanted} is not installed (or not on PATH)",
        fix="on a cluster try `module load apptainer`; see apptainer.org/docs",
    )


def container_command(
    runtime: Runtime,
    image: str,
    mounts: Sequence[Mount],
    environment: Mapping[str, str],
    arguments: Sequence[str],
    *,
    name: str,
    program: str | None = None,
    network: bool = False,
) -> list[str]:
    """The argument list that runs an image; `program` replaces what the image runs by itself.

    `image` is a .sif file for Apptainer, `repository@digest` for Docker. One mount must be WORK.
    Nothing of this machine's environment is seen inside. Without `network` Docker's containers
    get none: neither data nor usage figures leave, and a template that is missing is an error at
    once. Apptainer needs rights for that which few users have, so there it is left.

    Apptainer would show the user's home and /tmp, whose settings and Python packages change
    what runs; both are folders of the job's scratch instead (`make_scratch`).
    """
    for mount in mounts:
        _check_mountable(mount.source, _SEPARATORS[runtime.kind])
    if runtime.kind == "apptainer":
        work = next(mount.source for mount in mounts if mount.target == WORK)
        command = [runtime.program, "exec" if program else "run", "--cleanenv", "--contain"]
        command += ["--home", f"{work / 'home'}:/home/brainlm", "--pwd", WORK]
        command += ["--bind", f"{work / 'tmp'}:/tmp:rw"]
        for mount in mounts:
            mode = "rw" if mount.writable else "ro"
            command += ["--bind", f"{mount.source}:{mount.target}:{mode}"]
        for key, value in environment.items():
            command += ["--env", f"{key}={value}"]
        return [*command, image, *([program] if program else []), *arguments]
    command = [runtime.program, "run", "--rm", "--name", name, "--pull", "never"]
    command += [] if network else ["--network", "none"]
    command += ["--user", f"{os.getuid()}:{os.getgid()}", "--workdir", WORK]
    if program:
        command += ["--entrypoint", program]
    for mount in mounts:
        ending = "" if mount.writable else ":ro"
        command += ["--volume", f"{mount.source}:{mount.target}{ending}"]
    for key, value in environment.items():
        command += ["--env", f"{key}={value}"]
    return [*command, image, *arguments]


def wrapper_command(
    runtime: Runtime,
    image: str,
    mounts: Sequence[Mount],
    environment: Mapping[str, str],
    arguments: Sequence[str],
) -> list[str]:
    """The same run through `fmriprep-docker`, which mounts what its own options name.

    It takes paths of this machine and puts its own for them, so each of ours is given back. It
    mounts no templates and no shared fsaverage: the image's own templates are read.
    """
    here = {mount.target: mount.source for mount in mounts}
    for mount in mounts:
        _check_mountable(mount.source, _SEPARATORS["docker"])
    inside = list(arguments)
    data, out, level = inside[:3]
    command = [str(runtime.wrapper), str(here[data]), str(here[out]), level]
    command += ["--image", image, "--no-tty", "--network", "none"]
    command += ["--user", f"{os.getuid()}:{os.getgid()}"]
    for key, value in environment.items():
        if key != "TEMPLATEFLOW_HOME":
            command += ["--env", key, value]
    for item in inside[3:]:
        command.append(_on_this_machine(item, here))
    return command


def can_wrap(
    runtime: Runtime, *, freesurfer: bool, templates_chosen: bool, templates: Sequence[str]
) -> bool:
    """Whether `fmriprep-docker` can do this run: it is there, and nothing it lacks is asked for.

    The image holds the templates that every run reads; others, and a cache that the config or
    the environment names, must be mounted, which only `docker run` itself can.
    """
    usual = {"MNI152NLin2009cAsym", "MNI152NLin6Asym", "OASIS30ANTs"}
    return (
        runtime.wrapper is not None
        and not freesurfer
        and not templates_chosen
        and set(templates) <= usual
    )


def job_mounts(
    *,
    bids: Path,
    out: Path,
    work: Path,
    license_file: Path | None,
    templates: Path | None,
    subjects: Path | None,
    fsaverage: Mapping[str, Path],
) -> list[Mount]:
    """What one fMRIPrep job sees. The average subjects lie over the writable subjects' folder."""
    mounts = [Mount(bids, DATA), Mount(out, OUT, True), Mount(work, WORK, True)]
    if license_file is not None:
        mounts.append(Mount(license_file, LICENSE))
    if templates is not None:
        mounts.append(Mount(templates, TEMPLATES))
    if subjects is not None:
        mounts.append(Mount(subjects, SUBJECTS, True))
        mounts += [Mount(path, f"{SUBJECTS}/{name}") for name, path in fsaverage.items()]
    return mounts


def refuse_file(image: str) -> InputError:
    """What to say to a .sif file where Docker is the engine."""
    return InputError(
        "Docker does not run image files, only Apptainer does",
        file=image,
        fix="install Apptainer, or leave fmriprep.image out to run the pinned image",
    )


def _on_this_machine(item: str, here: Mapping[str, Path]) -> str:
    """A path inside the container as the path that was mounted there; others unchanged."""
    for target, source in here.items():
        if item == target:
            return str(source)
        if item.startswith(f"{target}/"):
            return str(source / item.removeprefix(f"{target}/"))
    return item


def _check_mountable(path: Path, separators: str) -> None:
    found = [character for character in separators if character in str(path)]
    if found:
        raise InputError(
            f"Containers cannot mount a path that holds {' or '.join(map(repr, found))}",
            file=path,
            fix="rename the folder, or reach it through a link without that character",
        )
