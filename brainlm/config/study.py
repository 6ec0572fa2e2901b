"""The whole configuration of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from .base import Section
from .cleaning import Denoise, Ica, Parcellate
from .derivatives import Derivatives
from .engines import ALWAYS_ASKED, Containers, Fmriprep
from .forecasting import Forecasts, Networks
from .interpretation import Attention, ParcelNetworks
from .jobs import Jobs
from .latent import Latent, Perturbation
from .learning import Evaluate, Model, Pretrain, Quality, Released, Scale, Shards, Split, Timing
from .phenotypes import Phenotypes
from .preprocessing import (
    AtlasChoice,
    Confounds,
    Distortion,
    Eligibility,
    Motion,
    Normalize,
    Resample,
    Space,
)
from .reporting import Report
from .scaling import Scaling
from .tracking import Tracking
from .tuning import Finetune, Probe

#: The space that fMRIPrep is always asked for.
FMRIPREP_SPACE = ALWAYS_ASKED.partition(":")[0]


class Config(Section):
    """The whole configuration of a study."""

    name: str = Field("study", description="what the reports call this study")
    bids_dir: Path = Field(
        Path("bids"), description="the BIDS dataset; relative paths start at the study folder"
    )
    engine: Literal["native", "fmriprep", "derivatives"] = Field(
        "native",
        description="who preprocesses: native: this workflow; fmriprep: fMRIPrep in a container, "
        "run by this workflow; derivatives: somebody did already, and bids_dir holds their files",
    )
    fmriprep: Fmriprep = Fmriprep()
    containers: Containers = Containers()
    seed: int = Field(1, ge=0, description="of everything random: training, masks, bootstrap")
    eligibility: Eligibility = Eligibility()
    phenotypes: Phenotypes = Phenotypes()
    space: Space = Space()
    atlas: AtlasChoice = AtlasChoice()
    derivatives: Derivatives = Derivatives()
    motion: Motion = Motion()
    normalize: Normalize = Normalize()
    distortion: Distortion = Distortion()
    resample: Resample = Resample()
    confounds: Confounds = Confounds()
    ica: Ica = Ica()
    denoise: Denoise = Denoise()
    parcellate: Parcellate = Parcellate()
    quality: Quality = Quality()
    split: Split = Split()
    timing: Timing = Timing()
    scale: Scale = Scale()
    shards: Shards = Shards()
    model: Model = Model()
    pretrain: Pretrain = Pretrain()
    released: Released = Released()
    finetune: Finetune = Finetune()
    probe: Probe = Probe()
    tracking: Tracking = Tracking()
    evaluate: Evaluate = Evaluate()
    forecasts: Forecasts = Forecasts()
    networks: Networks = Networks()
    scaling: Scaling = Scaling()
    parcel_networks: ParcelNetworks = ParcelNetworks()
    attention: Attention = Attention()
    latent: Latent = Latent()
    perturbation: Perturbation = Perturbation()
    report: Report = Report()
    jobs: Jobs = Jobs()
    keep_intermediates: bool = Field(
        False, description="keep the normalised and denoised 4-D series (large) when done"
    )

    @model_validator(mode="after")
    def _the_method_has_its_columns(self) -> Config:
        if self.denoise.method == "acompcor" and not self.confounds.compcor_components:
            raise ValueError("denoise.method acompcor needs confounds.compcor_components above 0")
        if self.denoise.method == "acompcor50" and self.confounds.compcor_components != "half":
            raise ValueError("denoise.method acompcor50 needs confounds.compcor_components: half")
        return self

    @model_validator(mode="after")
    def _the_engine_can_do_it(self) -> Config:
        ours = self.space.template == FMRIPREP_SPACE or self.derivatives.space_ok
        if self.engine == "fmriprep" and not ours:
            raise ValueError(
                f"engine fmriprep gives series in {FMRIPREP_SPACE}: set space.template to it"
            )
        if self.engine != "derivatives" and self.space.template == "fsLR":
            raise ValueError(
                "space.template fsLR is for dense series, which engine derivatives reads"
            )
        return self

    @model_validator(mode="after")
    def _only_what_is_trained_here_scales(self) -> Config:
        if self.scaling.sizes and self.released.source:
            raise ValueError(
                "scaling trains models of several sizes, but released.source takes one that is "
                "trained already: leave one of them out"
            )
        return self

    @property
    def labels(self) -> dict[str, str]:
        """The fields of file names that the config alone decides."""
        return {
            "space": self.space.template,
            "res": f"{self.space.resolution_mm:g}".replace(".", "p"),
            "atlas": self.atlas.name,
            "estimator": self.parcellate.estimator,
        }

    def resolve_bids_dir(self, study: Path) -> Path:
        """The BIDS folder as an absolute path."""
        return (study / self.bids_dir).resolve()
