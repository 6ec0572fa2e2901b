"""One job put together: everything it needs is looked for, and its command is built."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import Containers
from ..errors import ResourceError
from . import caches
from .arguments import TEMPLATES, fmriprep_arguments
from .images import Image, LocalImage, find_image, local_image, not_pulled
from .jobs import SURFACES, Job
from .license import find_license, needs_license
from .runtime import (
    Runtime,
    can_wrap,
    container_command,
    detect,
    job_mounts,
    refuse_file,
    wrapper_command,
)


@dataclass(frozen=True)
class Places:
    """Folders of one job on this machine."""

    study: Path
    bids: Path
    out: Path  # this job's alone, until it is known to be good
    work: Path


@dataclass(frozen=True)
class Plan:
    """What will be run, and what the manifest says of it."""

    command: list[str]
    inside: list[str]  # fMRIPrep's own arguments
    runtime: str  # apptainer, docker or fmriprep-docker
    digest: str  # of the image
    version: str | None  # that the outputs must name
    fsaverage: tuple[str, ...]  # subjects to be mounted below the surfaces
    on_stop: list[str]


def plan_job(
    job: Job,
    options: Mapping[str, Any],
    containers: Containers,
    places: Places,
    *,
    threads: int,
    mem_gb: float,
    seed: int,
    filtered: bool,
) -> Plan:
    """Look for runtime, image, licence, templates and fsaverage, then build the command.

    `options` is the config section `fmriprep`. What is not there is an error of the user's or
    the machine's, told before anything is started.
    """
    runtime = detect(containers.runtime)
    image = find_image("fmriprep", places.study)
    found, reference = image_here(runtime, image, options["image"], places.study)
    surfaces = options["freesurfer"]
    license_file = None
    if needs_license(found.license, surfaces):
        license_file = find_license(containers.fs_license, places.study)
    templates = caches.templates_of(options["output_spaces"], surfaces)
    wrapped = runtime.kind == "docker" and can_wrap(
        runtime,
        freesurfer=surfaces,
        templates_chosen=bool(containers.templateflow_home or os.environ.get("TEMPLATEFLOW_HOME")),
        templates=templates,
    )
    home = caches.templateflow_home(containers.templateflow_home, places.study)
    if not wrapped:
        caches.check_templates(home, templates)
    fsaverage: dict[str, Path] = {}
    if surfaces:
        names = caches.fsaverage_names(options["output_spaces"])
        kept = caches.fsaverage_home(found.digest)
        caches.check_fsaverage(kept, names)
        fsaverage = {name: kept / name for name in names}
    mounts = job_mounts(
        bids=places.bids,
        out=places.out,
        work=places.work,
        license_file=license_file,
        templates=None if wrapped else home,
        subjects=places.out / SURFACES if surfaces else None,
        fsaverage=fsaverage,
    )
    inside = fmriprep_arguments(
        job,
        options,
        threads=threads,
        mem_gb=mem_gb,
        seed=seed,
        filtered=filtered,
        licensed=license_file is not None,
    )
    name = f"{places.work.name}-{os.getpid()}"
    if wrapped:
        command = wrapper_command(runtime, reference, mounts, ENVIRONMENT, inside)
    else:
        environment = {**ENVIRONMENT, "TEMPLATEFLOW_HOME": TEMPLATES}
        command = container_command(runtime, reference, mounts, environment, inside, name=name)
    by_daemon = runtime.kind == "docker" and not wrapped
    return Plan(
        command=command,
        inside=inside,
        runtime="fmriprep-docker" if wrapped else runtime.kind,
        digest=found.digest,
        version=found.version,
        fsaverage=tuple(fsaverage),
        on_stop=[runtime.program, "kill", name] if by_daemon else [],
    )


#: What the container's processes are told: no look for newer templates, no usage figures of
#: Nipype's own.
ENVIRONMENT = {"TEMPLATEFLOW_AUTOUPDATE": "off", "NO_ET": "1"}


def image_here(
    runtime: Runtime, image: Image, own: str | None, study: Path
) -> tuple[LocalImage, str]:
    """What is known of the image on this machine, and how the engine is to call it."""
    if runtime.kind == "apptainer":
        found = local_image(image, (study / own).resolve() if own else None)
        return found, str(found.path)
    if own:
        raise refuse_file(own)
    check_docker_image(runtime, image)
    found = LocalImage(Path(), str(image.digest), image.version, image.license)
    return found, image.reference


def check_docker_image(runtime: Runtime, image: Image) -> None:
    """Refuse to start where Docker does not have the image, or does not run."""
    command = [runtime.program, "image", "inspect", "--format", "{{.Id}}", image.reference]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode and "daemon" in done.stderr:
        raise ResourceError(
            f"Docker does not run, or may not be used: {done.stderr.strip().splitlines()[-1]}",
            fix="start its daemon, or join the group docker",
        )
    if done.returncode:
        raise not_pulled(image)
