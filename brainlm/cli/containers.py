"""`brainlm containers`: which images are run, and bringing what they need to this machine."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._console import say
from ._stage import HERE, StudyOption

if TYPE_CHECKING:
    from ..config import Config
    from ..fmriprep.runtime import Mount

NameArg = Annotated[str, typer.Argument(help="an image from `brainlm containers list`")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="print the command, run nothing")]

#: Where fMRIPrep's image keeps the templates that it was built with.
IMAGE_TEMPLATES = "/home/fmriprep/.cache/templateflow"

containers_app = typer.Typer(
    help="Pin, fetch and prepare the container images of engines that are not ours.\n\n"
    "Each image is named by the digest of its bytes in a lock file: that of brainlm, or the "
    "study's own config/images.lock.yaml, which goes first. Before the first fMRIPrep job run "
    "`brainlm containers pull fmriprep` and `brainlm containers prepare`, once, on a machine "
    "with a network.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    app.add_typer(containers_app, name="containers")


@containers_app.command("list")
def list_images(study: StudyOption = HERE) -> None:
    """List the images, their digests, and whether Apptainer's copy of each is on this machine."""
    from ..fmriprep.images import known_images

    for image in known_images(study.resolve()):
        here = "here" if image.digest and image.cached_sif.is_file() else "not here as a .sif"
        say(f"{image.name}  {image.repository}:{image.tag}  {image.digest or 'not pinned'}  {here}")


@containers_app.command("pin")
def pin(
    name: NameArg,
    study: StudyOption = HERE,
    tag: Annotated[str | None, typer.Option(help="another tag than the lock file's")] = None,
    registry: Annotated[
        str | None, typer.Option(help="address to ask instead of the registry itself")
    ] = None,
) -> None:
    """Ask the registry for the digest of an image's tag, and pin it for this study.

    The image that goes with the digest is run from then on, and jobs of another one are stale.
    """
    import re
    from dataclasses import replace

    from ..fmriprep.images import find_image, write_pin
    from ..fmriprep.registry import resolve_digest

    folder = study.resolve()
    image = find_image(name, folder)
    if tag is not None:
        is_version = re.fullmatch(r"\d+\.\d+\.\d+\w*", tag)
        image = replace(image, tag=tag, version=tag if is_version else None)
    pinned = replace(image, digest=resolve_digest(image, registry))
    path = write_pin(pinned, folder)
    say(f"{pinned.repository}:{pinned.tag} is {pinned.digest}")
    say(f"written to {path}")


@containers_app.command("pull")
def pull(name: NameArg, study: StudyOption = HERE, dry_run: DryRunOption = False) -> None:
    """Bring a pinned image to this machine: a .sif file for Apptainer, else into Docker's store."""
    from ..errors import ResourceError
    from ..files import atomic_path
    from ..fmriprep.images import find_image
    from ..fmriprep.process import run_streaming
    from ..fmriprep.runtime import detect

    folder = study.resolve()
    runtime = detect(_config(folder).containers.runtime)
    image = find_image(name, folder)
    if runtime.kind == "docker":
        command = [runtime.program, "pull", image.reference]
        if dry_run:
            say(shlex.join(command))
        elif run_streaming(command, say)[0]:
            raise ResourceError("Docker could not pull the image", fix="see what it said above")
        return
    final = image.cached_sif
    source = f"docker://{image.reference}"
    if dry_run:
        say(shlex.join([runtime.program, "pull", str(final), source]))
        return
    if final.is_file():
        say(f"{final} is there already")
        return
    with atomic_path(final) as temporary:
        code, _ = run_streaming([runtime.program, "pull", str(temporary), source], say)
        if code or not temporary.is_file():
            raise ResourceError("Apptainer could not pull the image", fix="see what it said above")
    say(f"{final} is complete")


@containers_app.command("prepare")
def prepare(study: StudyOption = HERE, dry_run: DryRunOption = False) -> None:
    """Fill the caches that fMRIPrep's jobs read: templates and, for surfaces, fsaverage.

    What the study's config asks for is copied out of the image or fetched by TemplateFlow's own
    client inside it. Jobs then mount both read-only: none of them writes where others read.
    """
    from ..errors import ResourceError
    from ..fmriprep import caches, plan
    from ..fmriprep.images import find_image
    from ..fmriprep.process import run_streaming, scratch, scratch_folder
    from ..fmriprep.runtime import container_command, detect

    folder = study.resolve()
    config = _config(folder)
    runtime = detect(config.containers.runtime)
    options = config.model_dump(mode="json")["fmriprep"]
    image, reference = plan.image_here(
        runtime, find_image("fmriprep", folder), options["image"], folder
    )
    templates = caches.templates_of(options["output_spaces"], options["freesurfer"])
    home = caches.templateflow_home(config.containers.templateflow_home, folder)
    subjects = caches.fsaverage_home(image.digest)
    names = caches.fsaverage_names(options["output_spaces"]) if options["freesurfer"] else []
    work = scratch_folder("prepare", folder, config.containers.work_dir)
    command = container_command(
        runtime,
        reference,
        _mounts(work, home, subjects),
        {},
        ["-c", _inside(), json.dumps(_wishes(templates, names), sort_keys=True)],
        name=work.name,
        program="python",
        network=True,
    )
    if dry_run:
        say(shlex.join(command))
        return
    for made in (home, subjects):
        made.mkdir(parents=True, exist_ok=True)
    with scratch(work):
        code, _ = run_streaming(command, say)
    if code:
        raise ResourceError(f"The caches were not filled (code {code})", fix="see what it said")
    caches.check_templates(home, templates)
    if names:
        caches.check_fsaverage(subjects, names)
    say(f"{home} holds {', '.join(templates)}")


def _mounts(work: Path, home: Path, subjects: Path) -> list[Mount]:
    from ..fmriprep.arguments import SUBJECTS, TEMPLATES, WORK
    from ..fmriprep.runtime import Mount

    places = ((work, WORK), (home, TEMPLATES), (subjects, SUBJECTS))
    return [Mount(source, target, writable=True) for source, target in places]


def _wishes(templates: list[str], subjects: list[str]) -> dict[str, object]:
    """What the script inside the container is to do."""
    from ..fmriprep.arguments import SUBJECTS, TEMPLATES
    from ..fmriprep.caches import files_of

    return {
        "templates": {name: files_of(name) for name in templates},
        "home": TEMPLATES,
        "image_home": IMAGE_TEMPLATES,
        "subjects": subjects,
        "subjects_home": SUBJECTS,
    }


def _inside() -> str:
    """The script itself, as text: the image does not hold brainlm."""
    from ..resources import package_dir

    return (package_dir() / "fmriprep" / "inside.py").read_text(encoding="utf-8")


def _config(folder: Path) -> Config:
    from ..config import load_config
    from ..layout import Study

    return load_config(Study(folder).path("config"))
