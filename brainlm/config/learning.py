"""Options of the cohort, its shards, training and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import NonNegative, Positive, Section, Share


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
    stratify: tuple[str, ...] = Field(
        (),
        description="labels (and site) of which each split gets its share, e.g. [site, sex, age]; "
        "config/split-ledger.tsv then keeps who has been drawn",
    )
    bins: Annotated[int, Field(ge=2, le=20)] = Field(
        4, description="parts into which a numeric label is cut for it, by its quantiles"
    )
    family: str | None = Field(
        None, description="label that names families: their members stay together"
    )
    external: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="column (site, dataset or a label) and its values whose subjects, and their "
        "families, are wholly for test, e.g. {site: [HCP]}",
    )

    @model_validator(mode="after")
    def _shares_leave_a_test_set(self) -> Split:
        if self.train <= 0 or self.train + self.val >= 1:
            raise ValueError("train must be above 0, and train + val below 1, to leave a test set")
        return self

    @model_validator(mode="after")
    def _one_way_to_split(self) -> Split:
        if self.table and (self.stratify or self.external):
            raise ValueError("table says every subject's split: stratify and external go without")
        return self


class Timing(Section):
    """The repetition time of the shards: each recording's own, or one for all."""

    tr: Positive | None = Field(
        None, description="repetition time that all recordings get, s; null: each keeps its own"
    )
    tolerance: Share = Field(
        0.01, description="relative difference of a TR that is passed over as none"
    )
    other: Literal["resample", "exclude"] = Field(
        "resample", description="what becomes of recordings with another TR, where tr is set"
    )


class Scale(Section):
    """Bringing parcels to one scale, by the train split alone."""

    method: Literal[
        "robust",
        "recording-zscore",
        "global-sd",
        "global-p99",
        "recording-minmax",
        "parcel-minmax",
        "global-minmax",
    ] = Field(
        "robust",
        description="robust: median and interquartile range of each parcel; the others are those "
        "that BrainLM's authors tried",
    )
    remove_mean: bool = Field(
        True,
        description="first subtract each recording's mean over time from each parcel; without it, "
        "levels differ between recordings as they were stored",
    )
    fitted: Path | None = Field(
        None,
        description="a normalization.safetensors that is used as it is: for an external cohort, or "
        "to let a cohort grow without a new scale",
    )

    @model_validator(mode="after")
    def _the_method_has_its_mean_removed(self) -> Scale:
        centred = ("recording-zscore", "global-sd", "global-p99")
        if self.method in centred and not self.remove_mean:
            raise ValueError(
                f"scale.method {self.method} removes the mean: remove_mean must be true"
            )
        return self


class Shards(Section):
    """The sharded tensors that training reads."""

    dtype: Literal["float16", "float32"] = Field("float16", description="storage type")
    target_mb: Positive = Field(384.0, description="size that a shard is meant to have, MB")
    by_wave: bool = Field(
        True,
        description="recordings that a later onboarding adds get shards of their own, so that "
        "the earlier ones stay as they are; false deals all anew",
    )


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
    batch_size: Annotated[int, Field(ge=1)] = Field(
        8, description="windows per step, over all processes"
    )
    accumulate: Annotated[int, Field(ge=1)] = Field(
        1, description="passes in which each process takes its windows of a step, for less memory"
    )
    optimizer: Literal["adamw", "adam", "muon"] = Field(
        "adamw", description="adam is what the paper names; muon: for the blocks' matrices"
    )
    learning_rate: Positive = Field(1e-3, description="peak rate")
    base_learning_rate: Positive | None = Field(
        None,
        description="instead of learning_rate: peak rate for 256 windows per step; for others in "
        "proportion",
    )
    weight_decay: NonNegative = Field(0.05, description="not on biases and norms")
    warmup: Share = Field(0.05, description="share of the steps with a rising rate")
    mask: Literal["random", "future", "parcels", "networks"] = Field(
        "random",
        description="what is hidden: any tokens; the end of the window; whole parcels; all parcels "
        "of some networks",
    )
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.75, description="share of the tokens hidden from the encoder"
    )
    guessed: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        description="share of the hidden tokens that a step guesses; less is faster (cross decoder "
        "and random masks only)",
    )
    loss: Literal["mse", "mae"] = Field(
        "mse", description="error of the guesses: mean of the squared or of the absolute ones"
    )
    clip_norm: Positive = Field(1.0, description="largest gradient norm")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description="end with a running mean of the weights, of which each step keeps this share, "
        "e.g. 0.999; 0: with the last weights",
    )
    precision: Literal["auto", "float32", "bf16", "bf16-full"] = Field(
        "auto",
        description="bf16: float32 weights, products in bf16; bf16-full: matrices too are bf16, "
        "with float32 copies for the optimiser; auto: bf16 on a GPU that has it, else float32",
    )
    compile: bool = Field(
        False,
        description="compile the model (torch.compile): minutes at first, then faster on a GPU",
    )
    attention: Literal["sdpa", "flash", "eager", "nystrom"] = Field(
        "sdpa",
        description="sdpa: PyTorch's kernels; flash: the package flash-attn; eager: written out; "
        "nystrom: for models with landmarks",
    )
    checkpoint_blocks: bool = Field(
        False, description="compute activations again in the backward pass: less memory, slower"
    )
    data: Literal["auto", "resident", "mmap"] = Field(
        "auto",
        description="resident: the whole train split in the GPU's memory; mmap: windows are read "
        "from the files ahead of each step; auto: resident where it fits",
    )
    processes: Annotated[int, Field(ge=1)] = Field(
        1,
        description="processes of each node that share the work, each with a GPU; the workflow "
        "starts them with torchrun, those of several nodes with srun",
    )
    nodes: Annotated[int, Field(ge=1)] = Field(
        1, description="nodes of a Slurm cluster that share the work, each with so many processes"
    )
    deterministic: bool = Field(
        True,
        description="equal bytes from equal runs; false: on a GPU whatever kernels are fastest, "
        "timed at the start",
    )
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="with several processes: ddp: each holds the model; fsdp: each holds a part",
    )
    checkpoint_every: Annotated[int, Field(ge=1)] = Field(
        100, description="steps between checkpoints; one more is made at the end of each epoch"
    )
    keep_checkpoints: Annotated[int, Field(ge=1)] = Field(
        2, description="newest checkpoints that are kept, beside that of the best epoch"
    )
    stop_before_end_s: NonNegative = Field(
        120.0,
        description="in a Slurm job: seconds before its time limit at which training saves and "
        "stops by itself; 0: it does not",
    )
    validate_windows: Annotated[int, Field(ge=1)] | None = Field(
        4096,
        description="windows of the val split that a validation looks at, at most; always the "
        "same ones, spread evenly over its datasets and sites; null: all",
    )
    validate_every: Annotated[int, Field(ge=1)] | None = Field(
        None, description="validate after so many steps too; null: at the end of each epoch alone"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")


class Released(Section):
    """A model that BrainLM's authors released, taken instead of pretraining."""

    source: str | None = Field(
        None,
        description="folder with config.json and weights, or a repository on the Hugging Face Hub, "
        "e.g. vandijklab/brainlm; null: pretrain",
    )
    subfolder: str | None = Field(
        None, description="of it, e.g. old_13M, vitmae_111M or vitmae_650M"
    )


#: In the paper's order.
EvaluationTask = Literal[
    "reconstruction",
    "scaling",
    "clinical",
    "latent",
    "forecast",
    "networks",
    "attention",
    "perturbation",
]


class Mask(Section):
    """What is hidden of a window."""

    kind: Literal["random", "future", "parcels", "networks"] = Field(
        "random",
        description="any tokens; the last time points; whole parcels; all parcels of some networks",
    )
    share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.75, description="of the tokens; of future: of the time points"
    )


class Evaluate(Section):
    """Evaluation on the held-out subjects."""

    tasks: tuple[EvaluationTask, ...] = Field(
        (
            "reconstruction",
            "clinical",
            "latent",
            "forecast",
            "networks",
            "attention",
            "perturbation",
        ),
        description="what `snakemake evaluate` runs: clinical: each of finetune.targets; forecast: "
        "where finetune.forecast is true; scaling, not a default, pretrains a grid of models; []: "
        "nothing, and no page",
    )
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.75, description="share of tokens to reconstruct, hidden at random: the main condition"
    )
    masks: tuple[Mask, ...] = Field(
        (
            Mask(share=0.2),
            Mask(share=0.75),
            Mask(share=0.9),
            Mask(kind="future", share=0.1),
        ),
        description="what else to hide (kind: random, future, parcels or networks; share), each in "
        "its own; those of Ortega Caro et al. 2024",
    )
    whole_masks: Annotated[int, Field(ge=0)] = Field(
        5,
        description="whole recordings are guessed too, in so many turns, each of which hides "
        "another part of their tokens; 0: not",
    )
    whole_recordings: Annotated[int, Field(ge=1)] = Field(
        1000, description="test recordings, at most, that are guessed whole, drawn by the seed"
    )
    bootstrap: Annotated[int, Field(ge=100)] = Field(
        1000, description="resamplings of subjects for the 95% confidence intervals"
    )
    most_recordings: Annotated[int, Field(ge=10)] = Field(
        5000,
        description="train recordings, at most, that the baselines on connectivity are fitted on: "
        "they hold a number for each pair of recordings",
    )
    leave_site_out: bool = Field(
        False,
        description="also predict labels of each site's test subjects by methods fitted on the "
        "other sites; not by the fine-tuned model and networks, which saw all of them",
    )
    permute_within_sites: bool = Field(
        False,
        description="p of labels: permute them among people of the same site, so that what sites "
        "differ by proves nothing",
    )

    @model_validator(mode="after")
    def _each_task_once(self) -> Evaluate:
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError("tasks must not name one twice")
        return self

    @model_validator(mode="after")
    def _something_is_left_to_guess_from(self) -> Evaluate:
        if self.whole_masks == 1:
            raise ValueError("whole_masks must be 2 or more, or 0: one mask would hide everything")
        return self
