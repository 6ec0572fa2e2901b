"""Every option of the pipeline, with its default and its help text, in this one place.

The commented `config/config.yaml`, the JSON schema in `workflow/schemas/` and the docs are
generated from these models; a test keeps them equal. An unknown key is an error.
"""

from .base import Section
from .cleaning import Denoise, Ica, Parcellate
from .derivatives import Derivatives
from .engines import Containers, Fmriprep
from .files import (
    config_schema,
    load_config,
    load_preset,
    load_study_preset,
    parse_config,
    read_schema,
    study_presets,
    to_commented_yaml,
)
from .forecasting import Forecasts, Networks
from .interpretation import Attention, Contrast, ParcelNetworks
from .jobs import Jobs
from .latent import Experiment, Latent, Perturbation
from .learning import (
    Evaluate,
    Mask,
    Model,
    Pretrain,
    Quality,
    Released,
    Scale,
    Shards,
    Split,
    Timing,
)
from .phenotypes import Label, PhenotypeFile, Phenotypes
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
from .scaling import Scaling, Size, scaling_points
from .study import FMRIPREP_SPACE, Config
from .tracking import Tracking
from .tuning import Finetune, Probe, Target

__all__ = [
    "FMRIPREP_SPACE",
    "AtlasChoice",
    "Attention",
    "Config",
    "Confounds",
    "Containers",
    "Contrast",
    "Denoise",
    "Derivatives",
    "Distortion",
    "Eligibility",
    "Evaluate",
    "Experiment",
    "Finetune",
    "Fmriprep",
    "Forecasts",
    "Ica",
    "Jobs",
    "Label",
    "Latent",
    "Mask",
    "Model",
    "Motion",
    "Networks",
    "Normalize",
    "ParcelNetworks",
    "Parcellate",
    "Perturbation",
    "PhenotypeFile",
    "Phenotypes",
    "Pretrain",
    "Probe",
    "Quality",
    "Released",
    "Resample",
    "Scale",
    "Scaling",
    "Section",
    "Shards",
    "Size",
    "Space",
    "Split",
    "Target",
    "Timing",
    "Tracking",
    "config_schema",
    "load_config",
    "load_preset",
    "load_study_preset",
    "parse_config",
    "read_schema",
    "scaling_points",
    "study_presets",
    "to_commented_yaml",
]
