"""What a study needs from elsewhere: whether each thing is on this machine, and how to get it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..atlas.registry import Atlas
    from ..config import Config


@dataclass(frozen=True)
class Need:
    """One thing that a run reads and that no package brings along."""

    what: str
    source: str  # where it comes from
    is_here: Callable[[], bool]  # and whole
    get: Callable[[], object]
    by_hand: str  # brings it to a machine without a network


def needs_of(config: Config, kinds: Collection[str], study: Path) -> Iterator[Need]:
    """What a run of this study will ask for, in the order in which it is asked for.

    `kinds` are those of runs that another pipeline preprocessed, if any are.
    """
    from ..atlas.registry import find_atlas, find_dense

    if not kinds or "volume" in kinds:
        yield from _template(config.space.template)
        yield from _atlas(find_atlas(config.atlas.name))
        if config.denoise.method == "aroma" and config.ica.masks == "aroma":
            yield _masks()
    if "dense" in kinds:
        yield from _atlas(find_dense(config.atlas.name))
    if config.released.source and not (study / config.released.source).is_dir():
        yield _released(config.released.source, config.released.subfolder)
    if config.engine == "fmriprep":
        yield from _fmriprep(config, study)
    for image in dict.fromkeys((config.containers.image, config.containers.gpu_image)):
        if image is not None and "://" in image:
            yield _own_image(image)


def _template(name: str) -> Iterator[Need]:
    from ..templates import TEMPLATES, is_here
    from .template import get

    template = TEMPLATES.get(name)
    if template is not None and template.address is not None:
        yield Need(
            f"template {name}, with tissue maps",
            f"{template.address}/tpl-{name}",
            lambda: is_here(name),
            lambda: get(name, None),
            f"brainlm template get {name} --from FOLDER",
        )


def _atlas(atlas: Atlas) -> Iterator[Need]:
    from ..atlas.fetch import get_atlas, locate

    def is_here() -> bool:
        from ..errors import InputError

        try:
            return locate(atlas).is_file()
        except InputError:
            return False

    if not atlas.built:
        yield Need(
            f"atlas {atlas.name}",
            atlas.url or str(atlas.path),
            is_here,
            lambda: get_atlas(atlas),
            f"brainlm atlas get {atlas.name} --from FILE",
        )


def _masks() -> Need:
    from ..masks import fetch_masks, masks_here, pinned

    return Need(
        "masks of ICA-AROMA",
        pinned("csf").url.rpartition("/")[0],
        masks_here,
        fetch_masks,
        "brainlm masks get --from FOLDER",
    )


def _released(repo: str, subfolder: str | None) -> Need:
    def is_here() -> bool:
        from ..errors import BrainLMError
        from ..model.repository import fetch_model

        try:
            return _is_whole(fetch_model(repo, subfolder, local_files_only=True))
        except BrainLMError:
            return False

    def get() -> None:
        from ..errors import ResourceError
        from ..model.repository import fetch_model

        if not _is_whole(fetch_model(repo, subfolder)):
            folder = fetch_model(repo, subfolder, force_download=True)
            if not _is_whole(folder):
                raise ResourceError(
                    "The files of the model do not have the checksums that the Hub gives",
                    file=folder,
                    fix="try again later",
                )

    return Need(
        f"model {repo}" + (f", {subfolder}" if subfolder else ""),
        f"the Hugging Face Hub, {repo}",
        is_here,
        get,
        "download the folder elsewhere and set released.source to it",
    )


def _is_whole(folder: Path) -> bool:
    """Whether a model of the Hub's cache is there, and its large files are what they are named by.

    The Hub's client keeps them under their SHA-256.
    """
    from ..provenance import sha256_file

    weights = [
        path
        for name in ("model.safetensors", "pytorch_model.bin")
        if (path := (folder / name).resolve()).is_file()
    ]
    named = [path for path in weights if len(path.name) == 64]
    return bool(weights) and all(sha256_file(path) == path.name for path in named)


def _fmriprep(config: Config, study: Path) -> Iterator[Need]:
    """The image of fMRIPrep and the caches that its jobs read."""
    from ..errors import BrainLMError
    from ..fmriprep import caches, plan
    from ..fmriprep.images import find_image
    from ..fmriprep.runtime import detect
    from .containers import prepare, pull

    image, options = find_image("fmriprep", study), config.model_dump(mode="json")["fmriprep"]

    def image_is_here() -> bool:
        try:
            plan.image_here(detect(config.containers.runtime), image, options["image"], study)
        except BrainLMError:
            return False
        return True

    def caches_are_here() -> bool:
        templates = caches.templates_of(options["output_spaces"], options["freesurfer"])
        home = caches.templateflow_home(config.containers.templateflow_home, study)
        try:
            caches.check_templates(home, templates)
            if options["freesurfer"]:
                names = caches.fsaverage_names(options["output_spaces"])
                caches.check_fsaverage(caches.fsaverage_home(str(image.digest)), names)
        except BrainLMError:
            return False
        return True

    if options["image"] is None:
        yield Need(
            f"image {image.name} {image.tag}",
            f"{image.repository}@{image.digest or 'not pinned'}",
            image_is_here,
            lambda: pull("fmriprep", study),
            "bring a .sif file and set fmriprep.image to it",
        )
    yield Need(
        "templates of fMRIPrep" + (" and FreeSurfer's fsaverage" * options["freesurfer"]),
        "the image, else TemplateFlow",
        caches_are_here,
        lambda: prepare(study),
        "bring a TemplateFlow home and set containers.templateflow_home to it",
    )


def _own_image(reference: str) -> Need:
    from ..dag_containers import pulled_image

    path = pulled_image(reference)

    def pull() -> None:
        from ..errors import ResourceError
        from ..files import atomic_path
        from ..fmriprep.process import run_streaming
        from ..fmriprep.runtime import detect
        from ._console import say

        program = detect("apptainer").program
        with atomic_path(path) as temporary:
            command = [program, "pull", str(temporary), reference]
            if run_streaming(command, say)[0] or not temporary.is_file():
                raise ResourceError(f"It could not be pulled: {shlex.join(command)}")

    return Need(
        f"image {reference.partition('@')[0].rpartition('/')[2]} for --sdm apptainer",
        reference,
        path.is_file,
        pull,
        f"bring the .sif file to {path}",
    )
