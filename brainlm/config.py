"""Every option of the pipeline, with its default and its help text, in this one place.

The commented `config/config.yaml`, the JSON schema in `workflow/schemas/` and the docs are
generated from these models; a test keeps them equal. An unknown key is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .errors import InputError
from .files import read_json
from .resources import share_dir

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
#: YAML reads a bare `off` as false.
OrOff = BeforeValidator(lambda value: "off" if value is False else value)


class Section(BaseModel):
    """A part of the config: frozen, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Eligibility(Section):
    """Which BOLD runs enter the pipeline; the others stay in the table with their reason."""

    min_volumes: Annotated[int, Field(ge=5)] = Field(
        200, description="shortest run, in volumes; BrainLM reads windows of 200"
    )
    tr_min: Positive = Field(0.3, description="shortest believable repetition time, s")
    tr_max: Positive = Field(5.0, description="longest believable repetition time, s")


class Space(Section):
    """The standard space in which parcels are read."""

    template: Literal["MNI152NLin2009aSym", "MNI152NLin6Asym"] = Field(
        "MNI152NLin2009aSym",
        description="template to normalise to; MNI152NLin6Asym is A424's own space and must be "
        "fetched (`brainlm template get`), the other one ships with nilearn",
    )
    resolution_mm: Positive = Field(2.0, description="voxel size of the normalised series, mm")


class AtlasChoice(Section):
    """The parcellation."""

    name: str = Field(
        "A424",
        pattern=r"^[A-Za-z0-9+]+$",
        description="a name from `brainlm atlas list`; A424approx is the offline stand-in",
    )
    space_ok: bool = Field(
        False,
        description="use the atlas although it was drawn in another MNI space than the data's",
    )


class Motion(Section):
    """Head motion: rigid registration of every volume to the run's reference."""

    iterations: Annotated[int, Field(ge=1)] = Field(
        12, description="most Gauss-Newton steps at each of the two resolution levels"
    )
    tolerance_mm: Positive = Field(
        0.001, description="stop when a step moves no voxel of the brain by more than this, mm"
    )
    fd_radius_mm: Positive = Field(
        50.0, description="head radius that turns rotations into mm for FD (Power et al. 2012)"
    )


class Normalize(Section):
    """Registration of T1w to the template and of BOLD to T1w (ANTs)."""

    transform: Literal["affine", "syn"] = Field(
        "syn",
        description="to the template; syn goes on from the affine by a nonlinear warp (ANTs SyN), "
        "affine stops there and saves half a minute per T1w",
    )
    resolution_mm: Positive = Field(
        3.0, description="grid on which registration metrics are computed, mm"
    )


class Distortion(Section):
    """Susceptibility distortion of EPI: where it comes from and how far it is undone."""

    method: Annotated[Literal["auto", "fieldmap", "syn", "off"], OrOff] = Field(
        "auto",
        description="auto: by a field map where there is one; fieldmap: give up runs without; "
        "syn: runs without by a warp to their T1w along the phase-encoding axis; off",
    )
    modulate: bool = Field(
        False,
        description="also undo the pile-up of signal in the series; a constant factor per voxel",
    )


class Resample(Section):
    """The one interpolation from raw BOLD to standard space."""

    order: Annotated[int, Field(ge=1, le=5)] = Field(
        3, description="B-spline order; 1 is linear, 3 is cubic"
    )
    slice_timing: Annotated[Literal["auto", "off"], OrOff] = Field(
        "auto",
        description="auto: bring the slices of a volume to one moment where SliceTiming is known",
    )
    slice_reference: Share = Field(
        0.5, description="that moment: 0 is the first slice's, 1 the last one's, 0.5 between them"
    )
    output: Literal["series", "parcels"] = Field(
        "series",
        description="series: 4-D files between the steps up to parcels; parcels: all these steps "
        "in memory, the same results without the 4-D files (large cohorts)",
    )


class Confounds(Section):
    """Confound time series, in fMRIPrep's names."""

    fd_threshold_mm: Positive = Field(0.5, description="FD above which a volume is an outlier, mm")
    dvars_threshold: Positive = Field(
        1.5, description="standardised DVARS above which a volume is an outlier"
    )
    high_pass_s: NonNegative = Field(
        100.0, description="cut-off period of the cosine columns, s; denoise makes its own"
    )
    compcor_components: Annotated[int, Field(ge=0)] = Field(
        10,
        description="most components of each CompCor kind; fewer if they explain half the variance",
    )


class Ica(Section):
    """Independent components of a run, for denoise.method: aroma (ICA-AROMA)."""

    smoothing_mm: NonNegative = Field(
        6.0, description="FWHM of the smoothing that the components are sought in, mm"
    )
    high_pass_s: NonNegative = Field(
        100.0, description="cut-off period of the cosines taken out before, s"
    )
    components: Annotated[int, Field(ge=0)] = Field(
        0, description="how many; 0: estimated for each run (Minka's Laplace evidence)"
    )
    masks: Literal["template", "aroma"] = Field(
        "template",
        description="CSF and brain edge: from the template's tissue maps, or those published "
        "with ICA-AROMA (`brainlm masks get`)",
    )
    masks_space_ok: bool = Field(
        False,
        description="use the published masks although they were drawn in another MNI space "
        "(MNI152NLin6Asym) than the data's",
    )
    seed: Annotated[int, Field(ge=0)] = Field(1, description="of the search and of resamplings")


class Denoise(Section):
    """Temporal filtering, scrubbing and nuisance regression, in one least-squares fit."""

    method: Literal["none", "motion6", "motion24", "36p", "acompcor", "aroma"] = Field(
        "aroma",
        description="none; 6 motion parameters; 24 (with derivatives and squares); 36p: 24 and "
        "white matter, CSF and global signal expanded alike; acompcor: 24 and 5 + 5 components "
        "of white matter and CSF; aroma: independent components that ICA-AROMA takes for noise",
    )
    aroma: Literal["nonaggressive", "aggressive", "orthogonal"] = Field(
        "nonaggressive",
        description="noise components: nonaggressive takes out what only they explain; aggressive "
        "all that they could; orthogonal what they explain once the others are taken out of them",
    )
    high_pass: Literal["cosine", "gaussian"] = Field(
        "cosine",
        description="cosine: slow cosines are fitted; gaussian: a Gaussian-weighted running line "
        "is subtracted, as by FSL (UK Biobank: gaussian with high_pass_s 100)",
    )
    high_pass_s: NonNegative = Field(
        100.0,
        description="cut-off period, s; 0 switches it off; gaussian: twice the sigma, as in FEAT",
    )
    low_pass_s: NonNegative = Field(
        0.0,
        description="period below which cosines are fitted too (band-pass), s, e.g. 10; 0: off",
    )
    scrub: Annotated[Literal["off", "mark", "censor", "interpolate"], OrOff] = Field(
        "off",
        description="volumes with motion: mark lists them; censor fits without them and leaves "
        "them out of the series; interpolate fits without them and fills the gaps",
    )
    scrub_fd_mm: Positive = Field(0.5, description="FD above which a volume is scrubbed, mm")
    scrub_dvars: NonNegative = Field(
        0.0, description="standardised DVARS above which a volume is scrubbed as well; 0: never"
    )
    scrub_pad: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] = Field(
        (0, 0), description="volumes scrubbed before and after each of these, too"
    )

    @model_validator(mode="after")
    def _a_band_is_left(self) -> Denoise:
        if self.low_pass_s and self.high_pass_s and self.low_pass_s >= self.high_pass_s:
            raise ValueError("low_pass_s must be shorter than high_pass_s, to leave a band")
        return self


class Parcellate(Section):
    """The series of each parcel."""

    estimator: Literal["mean", "median", "eigenvariate", "weighted"] = Field(
        "mean",
        description="how a parcel's voxels become one series: mean; median; eigenvariate: first "
        "principal component, at the parcel's mean level; weighted: mean weighted by the "
        "template's grey-matter share",
    )
    min_coverage: Share = Field(
        0.5, description="parcels with a smaller share of usable voxels become NaN, never 0"
    )


class Quality(Section):
    """Which finished recordings enter the cohort."""

    max_mean_fd_mm: Positive = Field(0.55, description="largest mean FD of a recording, mm")
    min_parcels: Share = Field(0.8, description="smallest share of parcels with coverage")
    max_excluded: Share = Field(
        0.5, description="fail loudly when a larger share of eligible recordings is excluded"
    )


class Split(Section):
    """Train, validation and test, by subject."""

    train: Share = Field(0.8, description="share of subjects to train on")
    val: Share = Field(0.1, description="share of subjects to validate on; the rest are tested")
    salt: str = Field(
        "brainlm", description="another salt gives another draw; adding subjects moves nobody"
    )
    table: Path | None = Field(
        None, description="your own TSV with columns subject and split, instead of the draw"
    )

    @model_validator(mode="after")
    def _shares_leave_a_test_set(self) -> Split:
        if self.train <= 0 or self.train + self.val >= 1:
            raise ValueError("train must be above 0, and train + val below 1, to leave a test set")
        return self


class Shards(Section):
    """The sharded tensors that training reads."""

    dtype: Literal["float16", "float32"] = Field("float16", description="storage type")
    target_mb: Positive = Field(256.0, description="size at which a new shard begins, MB")


class Model(Section):
    """The network: a preset of config/models, with any of its keys replaced."""

    preset: str = Field("tiny", description="a file name in config/models, without .yaml")
    overrides: dict[str, int | float | str] = Field(
        default_factory=dict, description="keys of the preset to replace, e.g. {dropout: 0.1}"
    )


class Pretrain(Section):
    """Masked-autoencoder pretraining."""

    run: str = Field("brainlm", pattern=r"^[A-Za-z0-9.-]+$", description="name of the run")
    epochs: Annotated[int, Field(ge=1)] = Field(100, description="passes over the train split")
    windows_per_recording: Annotated[int, Field(ge=1)] = Field(
        1, description="random windows drawn from each recording in an epoch"
    )
    batch_size: Annotated[int, Field(ge=1)] = Field(8, description="windows per step")
    learning_rate: Positive = Field(1e-3, description="peak rate of AdamW")
    weight_decay: NonNegative = Field(0.05, description="of AdamW; not on biases and norms")
    warmup: Share = Field(0.05, description="share of the steps with a rising rate")
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.75, description="share of the tokens hidden from the encoder"
    )
    clip_norm: Positive = Field(1.0, description="largest gradient norm")
    checkpoint_every: Annotated[int, Field(ge=1)] = Field(
        100, description="steps between checkpoints"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")


class Target(Section):
    """A label to predict."""

    name: str = Field(pattern=r"^[A-Za-z0-9]+$", description="column of participants.tsv")
    kind: Literal["regression", "binary"] = Field("regression", description="what to fit")
    positive: str | None = Field(
        None, description="for binary: the value that counts as 1 (else the values are 0 and 1)"
    )


class Finetune(Section):
    """Fine-tuning on labels."""

    targets: tuple[Target, ...] = Field((), description="labels to predict: name, kind, positive")
    epochs: Annotated[int, Field(ge=1)] = Field(30, description="passes over the train split")
    batch_size: Annotated[int, Field(ge=1)] = Field(8, description="windows per step")
    learning_rate: Positive = Field(3e-4, description="peak rate of AdamW")
    weight_decay: NonNegative = Field(0.05, description="of AdamW; not on biases and norms")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="in the head")
    freeze_encoder: bool = Field(False, description="train the head alone")


class Evaluate(Section):
    """Evaluation on the held-out subjects."""

    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.75, description="share of tokens to reconstruct"
    )
    bootstrap: Annotated[int, Field(ge=100)] = Field(
        1000, description="resamplings of subjects for the 95% confidence intervals"
    )


class Config(Section):
    """The whole configuration of a study."""

    name: str = Field("study", description="what the reports call this study")
    bids_dir: Path = Field(
        Path("bids"), description="the BIDS dataset; relative paths start at the study folder"
    )
    seed: int = Field(1, ge=0, description="of everything random: training, masks, bootstrap")
    eligibility: Eligibility = Eligibility()
    space: Space = Space()
    atlas: AtlasChoice = AtlasChoice()
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
    shards: Shards = Shards()
    model: Model = Model()
    pretrain: Pretrain = Pretrain()
    finetune: Finetune = Finetune()
    evaluate: Evaluate = Evaluate()
    keep_intermediates: bool = Field(
        False, description="keep the normalised and denoised 4-D series (large) when done"
    )

    @model_validator(mode="after")
    def _the_method_has_its_columns(self) -> Config:
        if self.denoise.method == "acompcor" and not self.confounds.compcor_components:
            raise ValueError("denoise.method acompcor needs confounds.compcor_components above 0")
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


def parse_config(content: dict[str, Any], *, source: str | Path) -> Config:
    """Validate a parsed YAML mapping, with one readable line for each fault."""
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(part) for part in fault['loc']) or 'config'}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise InputError(
            "The config is not valid: " + "; ".join(faults),
            file=source,
            fix="`brainlm config options` lists every key with its meaning and default",
        ) from None


def load_config(path: str | Path) -> Config:
    """Read and validate `config.yaml`."""
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise InputError(
            "There is no config here",
            file=path,
            fix="run this in a study folder, or make one: `brainlm onboard BIDS_DIR --study DIR`",
        ) from None
    except yaml.YAMLError as error:
        raise InputError(
            f"The config is not valid YAML: {' '.join(str(error).split())}",
            file=path,
            fix="mend the line named; strings with a colon need quotes",
        ) from None
    if not isinstance(content, dict):
        raise InputError("The config must be a mapping of keys to values", file=path)
    return parse_config(content, source=path)


def load_preset(model: Model) -> dict[str, Any]:
    """The network's settings: the preset file with the overrides applied."""
    path = share_dir() / "config" / "models" / f"{model.preset}.yaml"
    if not path.exists():
        known = ", ".join(sorted(entry.stem for entry in path.parent.glob("*.yaml")))
        raise InputError(
            f"There is no model preset called {model.preset!r}", file=path, fix=f"choose of {known}"
        )
    preset = yaml.safe_load(path.read_text(encoding="utf-8"))
    unknown = set(model.overrides) - set(preset)
    if unknown:
        raise InputError(
            f"model.overrides holds unknown keys: {', '.join(sorted(unknown))}",
            fix=f"choose of {', '.join(sorted(preset))}",
        )
    return {**preset, **model.overrides}


def to_commented_yaml(config: Config) -> str:
    """The config as YAML, each key under its help text."""
    lines = [
        "# Configuration of a BrainLM study. Every key may be left out: it then has the value",
        "# shown in `brainlm config options`. Paths are relative to the study folder.",
    ]
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Section):
            lines += ["", f"# {(value.__doc__ or '').strip()}", f"{name}:"]
            for key, option in type(value).model_fields.items():
                lines.append(f"  # {option.description}")
                lines += _yaml_lines(key, getattr(value, key), indent="  ")
        else:
            lines += ["", f"# {field.description}", *_yaml_lines(name, value, indent="")]
    return "\n".join(lines) + "\n"


def _yaml_lines(key: str, value: Any, indent: str) -> list[str]:
    if isinstance(value, tuple):
        value = [
            item.model_dump(exclude_none=True) if isinstance(item, Section) else item
            for item in value
        ]
    if isinstance(value, Path):
        value = str(value)
    text = yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=90)
    return [indent + line for line in text.rstrip("\n").split("\n")]


def config_schema() -> dict[str, Any]:
    """The JSON schema of the config, for Snakemake and for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(mode="validation"),
    }


def read_schema(path: str | Path) -> dict[str, Any]:
    """Read the committed JSON schema."""
    return dict(read_json(path))
