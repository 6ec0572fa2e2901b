"""brainlm's own image, in which `snakemake --sdm apptainer` runs the rules.

Snakemake starts `apptainer exec --home STUDY IMAGE bash -c COMMAND`: the study is seen there, under
its own path and as the home folder, and nothing else of this machine but /tmp. What the stages read
elsewhere is bound here, by the environment variables that Apptainer itself reads, so that nobody
has to think of --apptainer-args.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from .config import Config
from .errors import InputError
from .fetch import cache_dir
from .resources import PLANNED_BY, package_digest

#: Caches below the home folder, which is another one inside, by the variable that names each.
_CACHES = {"TEMPLATEFLOW_HOME": "templateflow", "HF_HOME": "huggingface"}


def pulled_image(reference: str) -> Path:
    """Where `brainlm prefetch` keeps an image of a registry, for machines without a network."""
    repository, _, digest = reference.partition("@sha256:")
    return cache_dir("images") / f"{repository.rpartition('/')[2]}-{digest[:12]}.sif"


class Images:
    """The images of a study's rules; the part of `Dag` that needs the config alone."""

    config: Config
    study: Path

    @property
    def image(self) -> str | None:
        """What the rules run in."""
        return self._located(self.config.containers.image)

    @property
    def gpu_image(self) -> str | None:
        """What the rules that ask for a GPU run in."""
        return self._located(self.config.containers.gpu_image) or self.image

    def _located(self, image: str | None) -> str | None:
        if image is None:
            return None
        if "://" in image:
            pulled = pulled_image(image)
            return str(pulled) if pulled.is_file() else image
        return str((self.study / image).resolve())


def enter_containers(dag: Images, environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what Apptainer needs to know of this study, for all jobs that this process starts."""
    for key, image in (("image", dag.image), ("gpu_image", dag.gpu_image)):
        if image is None:
            raise InputError(
                f"--sdm apptainer needs an image of brainlm, and containers.{key} names none",
                file=dag.study / "config" / "config.yaml",
                fix="build one (`apptainer build brainlm.sif containers/brainlm.def`) and set "
                f"containers.{key}: /path/to/brainlm.sif; or leave --sdm out",
            )
        if "://" not in image and not Path(image).is_file():
            raise InputError(f"The image that containers.{key} names does not exist", file=image)
    environment["BRAINLM_CACHE"] = str(cache_dir("atlases").parent.resolve())
    for variable, name in _CACHES.items():
        environment[variable] = environment.get(variable) or str(Path.home() / ".cache" / name)
    engine = "APPTAINER" if shutil.which("apptainer") else "SINGULARITY"
    given = [path for path in environment.get(f"{engine}_BIND", "").split(",") if path]
    binds = dict.fromkeys([*given, *map(str, _outside(dag, environment))])
    environment[f"{engine}_BIND"] = ",".join(binds)
    if dag.config.pretrain.device != "cpu":
        environment[f"{engine}_NV"] = "1"  # the driver's libraries, where there is a GPU
    # The Python of the image is not to look into that of this machine.
    environment[f"{engine}ENV_PYTHONPATH"] = ""
    environment[PLANNED_BY] = package_digest()


def _outside(dag: Images, environment: MutableMapping[str, str]) -> list[Path]:
    """The folders and files outside the study that its stages read, as far as they are here.

    Each by the path that is said, and by the one that its links lead to: stages use either.
    """
    config = dag.config
    said = [
        *_paths_in(config.model_dump()),
        config.released.source,
        environment["BRAINLM_CACHE"],
        *(environment[variable] for variable in _CACHES),
        environment.get("BRAINLM_REGISTRY"),
        environment.get("TMPDIR"),
    ]
    inside = dag.study.resolve()
    whole = [Path(os.path.normpath(inside / path)) for path in said if path]
    paths = [either for path in whole for either in (path.resolve(), path)]
    return [path for path in paths if path.exists() and not path.is_relative_to(inside)]


def _paths_in(content: Mapping[str, Any]) -> Iterator[Path]:
    """Every path in the config, whatever its section."""
    for value in content.values():
        if isinstance(value, Path):
            yield value
        elif isinstance(value, Mapping):
            yield from _paths_in(value)
