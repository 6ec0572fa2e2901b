"""Options of the engines that are not ours: what fMRIPrep is to make, and how it is run here.

They are two sections because only the first decides results: changing where images and
templates lie must not make days of preprocessing stale.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from .base import OrOff, Section

#: The space in which A424 is drawn, at the resolution of its image: asked for in every run.
ALWAYS_ASKED = "MNI152NLin6Asym:res-2"


class Fmriprep(Section):
    """What fMRIPrep is asked for (engine: fmriprep only); a change here runs it again."""

    image: Path | None = Field(
        None,
        description="a .sif file of fMRIPrep, its SHA-256 is recorded; null: the image of "
        "config/images.lock.yaml, else the one that brainlm was made with (`brainlm containers`)",
    )
    level: Literal["subject", "session"] = Field(
        "subject",
        description="one job per subject, or per session, each then with a T1w of its own",
    )
    output_spaces: tuple[str, ...] = Field(
        (ALWAYS_ASKED,),
        description=f"as of fMRIPrep's --output-spaces; {ALWAYS_ASKED}, where parcels are read, "
        "is added where it is missing",
    )
    freesurfer: bool = Field(
        False, description="also reconstruct surfaces (recon-all, many hours); parcels need none"
    )
    cifti: Annotated[Literal["off", "91k", "170k"], OrOff] = Field(
        "off", description="also write grayordinate series; needs fmriprep.freesurfer"
    )
    extra_args: tuple[str, ...] = Field(
        (),
        description="further fMRIPrep arguments, one item each: [--dummy-scans, '4']; those that "
        "this workflow sets itself are refused",
    )

    @field_validator("output_spaces")
    @classmethod
    def _spaces_hold_ours(cls, spaces: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [space for space in spaces if not space or space.startswith("-") or " " in space]
        if wrong:
            raise ValueError(f"these are no output spaces: {', '.join(map(repr, wrong))}")
        return spaces if ALWAYS_ASKED in spaces else (ALWAYS_ASKED, *spaces)

    @model_validator(mode="after")
    def _cifti_has_surfaces(self) -> Fmriprep:
        if self.cifti != "off" and not self.freesurfer:
            raise ValueError("fmriprep.cifti needs fmriprep.freesurfer: true")
        return self


class Containers(Section):
    """How containers are run on this machine; nothing here changes a result."""

    runtime: Literal["auto", "apptainer", "docker"] = Field(
        "auto",
        description="auto: Apptainer (or Singularity) where it is installed, else Docker",
    )
    image: str | None = Field(
        None,
        description="brainlm's own image, in which `snakemake --sdm apptainer` runs the rules: a "
        ".sif file, or docker://REPOSITORY@sha256:DIGEST; not used without --sdm",
    )
    gpu_image: str | None = Field(
        None, description="the same for the rules that ask for a GPU; null: `image`"
    )
    fs_license: Path | None = Field(
        None,
        description="FreeSurfer's licence file (free, surfer.nmr.mgh.harvard.edu/registration.html)"
        "; null: $FS_LICENSE, else $FREESURFER_HOME/license.txt",
    )
    templateflow_home: Path | None = Field(
        None,
        description="cache of templates, filled by `brainlm containers prepare`, mounted "
        "read-only; null: $TEMPLATEFLOW_HOME, else ~/.cache/templateflow",
    )
    work_dir: Path | None = Field(
        None,
        description="where a job keeps its scratch (some 20 GB), emptied when it ends; "
        "null: $TMPDIR; on a cluster a disk of the node is best",
    )

    @field_validator("image", "gpu_image")
    @classmethod
    def _is_fixed(cls, image: str | None) -> str | None:
        fixed = image is None or "://" not in image or re.search(r"@sha256:[0-9a-f]{64}$", image)
        if not fixed:
            raise ValueError(
                f"{image} may be other bytes tomorrow: end it in @sha256:DIGEST, or name a .sif "
                "file"
            )
        return image
