"""The stages: which part of the config and which source files decide what each one makes.

Snakemake passes both to a rule as parameters, so that a changed option or a changed line of
code reruns that stage and what follows it, and nothing before.
"""

from __future__ import annotations

import ast
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .config import Config, Model, load_preset
from .errors import InputError
from .resources import package_dir

#: Changes here must keep every output's bytes; they do not by themselves rerun a stage.
GROUND_FLOOR = frozenset(
    {
        "brainlm",
        "brainlm.config",
        "brainlm.errors",
        "brainlm.fetch",
        "brainlm.files",
        "brainlm.identity",
        "brainlm.layout",
        "brainlm.provenance",
        "brainlm.recordings",
        "brainlm.resources",
        "brainlm.signals",
        "brainlm.stages",
        "brainlm.cli",
        "brainlm.cli._stage",
        "brainlm.cli._console",
        # Who is told of a training, and its pictures: not what is learned.
        "brainlm.cli._progress",
        "brainlm.cli._training_figures",
        "brainlm.cli._tuning_figures",
        "brainlm.cli._watching",
        # On what a training ran: a log of its own, and no result.
        "brainlm.train.machine",
        # How a job asks Slurm for its own place in the queue.
        "brainlm.cluster",
        "brainlm.cluster.ask",
        "brainlm.cluster.own_job",
        # Where and how fMRIPrep is run, and how its end is judged: not what it computes.
        "brainlm.cli._job",
        "brainlm.fmriprep.caches",
        "brainlm.fmriprep.images",
        "brainlm.fmriprep.license",
        "brainlm.fmriprep.outcome",
        "brainlm.fmriprep.outputs",
        "brainlm.fmriprep.plan",
        "brainlm.fmriprep.process",
        "brainlm.fmriprep.report",
        "brainlm.fmriprep.runtime",
    }
)


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline: a rule, a command and the config sections that it reads."""

    verb: str
    sections: tuple[str, ...]
    takes_seed: bool = False

    @property
    def module(self) -> str:
        """The module of the command."""
        return f"brainlm.cli.{self.verb.replace('-', '_')}"


#: What decides the way from the brain of a run, held in memory, to its parcels.
_TO_PARCELS = ("confounds", "ica", "denoise", "parcellate", "atlas", "space")

STAGES: dict[str, Stage] = {
    stage.verb: stage
    for stage in (
        Stage("prepare-atlas", ("atlas", "space")),
        Stage("fmriprep", ("fmriprep",), takes_seed=True),
        Stage("motion", ("motion",)),
        Stage("fieldmap", ("distortion", "normalize")),
        Stage("normalize-anat", ("normalize", "space")),
        Stage("coregister-bold", ("distortion", "normalize", "space")),
        Stage("normalize-bold", ("distortion", "normalize", "space")),
        Stage("warp-bold", ("distortion", "normalize", "space")),
        Stage("resample", ("distortion", "normalize", "resample", "space")),
        Stage("adopt", ("engine", "derivatives", "fmriprep", "motion", "confounds", "space")),
        Stage("adopt-parcels", ("engine", "derivatives", "motion", "parcellate", "atlas", "space")),
        Stage("confounds", ("confounds", "space")),
        Stage("ica", ("ica", "derivatives", "space")),
        Stage("denoise", ("denoise", "space")),
        Stage("parcellate", ("parcellate", "atlas", "space")),
        Stage(
            "resample-to-parcels",
            (
                "distortion",
                "normalize",
                "resample",
                *_TO_PARCELS,
            ),
        ),
        Stage(
            "adopt-to-parcels",
            (
                "engine",
                "derivatives",
                "fmriprep",
                "motion",
                *_TO_PARCELS,
            ),
        ),
        Stage(
            "cohort",
            (
                "eligibility",
                "quality",
                "split",
                "timing",
                "scale",
                "shards",
                "parcellate",
                "atlas",
                "space",
            ),
        ),
        Stage("scale-brackets", ("scale", "atlas")),
        Stage("scale-part", ("atlas",)),
        Stage("scale", ("scale", "timing", "atlas")),
        Stage("write-shard", ("shards", "atlas")),
        Stage("index-shards", ("shards", "atlas")),
        Stage("pretrain", ("model", "pretrain"), takes_seed=True),
        Stage("import-checkpoint", ("released", "pretrain")),
        Stage("finetune", ("finetune", "pretrain"), takes_seed=True),
        Stage("embed", ("pretrain",)),
        Stage("probe", ("probe", "evaluate", "finetune", "pretrain"), takes_seed=True),
        Stage("evaluate-reconstruction", ("evaluate", "pretrain"), takes_seed=True),
        Stage(
            "predict-label",
            ("networks", "finetune", "pretrain", "released", "model"),
            takes_seed=True,
        ),
        Stage(
            "evaluate-clinical",
            ("evaluate", "networks", "probe", "finetune", "pretrain"),
            takes_seed=True,
        ),
        Stage(
            "score-forecast",
            ("forecasts", "finetune", "pretrain", "released", "model"),
            takes_seed=True,
        ),
        Stage("train-scaling", ("scaling", "evaluate", "pretrain"), takes_seed=True),
        Stage("compare-scaling", ("scaling", "evaluate", "pretrain"), takes_seed=True),
        Stage("evaluate-networks", ("parcel_networks", "evaluate", "pretrain"), takes_seed=True),
        Stage(
            "evaluate-attention", ("attention", "evaluate", "finetune", "pretrain"), takes_seed=True
        ),
        Stage("compare-forecasts", ("forecasts", "evaluate", "pretrain"), takes_seed=True),
        Stage("evaluate-latent", ("latent", "evaluate", "finetune", "pretrain"), takes_seed=True),
        Stage(
            "evaluate-perturbation",
            ("perturbation", "evaluate", "finetune", "pretrain"),
            takes_seed=True,
        ),
        Stage(
            "qc-figure",
            (
                "engine",
                "distortion",
                "normalize",
                "confounds",
                "denoise",
                "parcellate",
                "space",
                "atlas",
            ),
        ),
        Stage(
            "qc-page",
            (
                "engine",
                "confounds",
                "quality",
                "eligibility",
                "split",
                "parcellate",
                "space",
                "atlas",
            ),
        ),
        Stage("phantom-check", ("space", "atlas", "parcellate")),
        Stage(
            "evaluation-page",
            ("evaluate", "forecasts", "parcellate", "space", "atlas", "pretrain", "finetune"),
        ),
        Stage("report", ("parcellate", "space", "atlas", "pretrain", "finetune")),
        Stage(
            "reproducibility",
            ("report", "parcellate", "space", "atlas", "pretrain", "finetune"),
        ),
    )
}


def stage_params(name: str, config: Config) -> dict[str, Any]:
    """The parameters of a stage as plain JSON types: its sections, and the seed if it uses it."""
    stage = STAGES[name]
    content = config.model_dump(mode="json", include=set(stage.sections))
    if "evaluate" in content and name != "evaluation-page":
        del content["evaluate"]["tasks"]  # what else is run changes no other result
    if "model" in content:
        content["model"] = load_preset(config.model)
    if "scaling" in content:
        content["scaling"]["sizes"] = [
            {
                "name": size.name,
                "model": load_preset(Model(preset=size.preset, overrides=size.overrides)),
                "learning_rate": size.learning_rate,
            }
            for size in config.scaling.sizes
        ]
    if stage.takes_seed:
        content["seed"] = config.seed
    return content


def params_to_json(params: dict[str, Any]) -> str:
    """Canonical JSON: what the rules put on a command line."""
    return json.dumps(params, sort_keys=True, separators=(",", ":"))


def parse_params(name: str, text: str) -> dict[str, Any]:
    """Read the parameters that a rule put on a command line."""
    try:
        params = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"--params is not valid JSON: {error}",
            fix="leave it out to take the values of config/config.yaml",
        ) from None
    expected = set(STAGES[name].sections) | ({"seed"} if STAGES[name].takes_seed else set())
    if not isinstance(params, dict) or set(params) != expected:
        raise InputError(
            f"--params of {name} must hold exactly the keys {', '.join(sorted(expected))}",
            fix="leave it out to take the values of config/config.yaml",
        )
    return params


@cache
def code_digest(name: str) -> str:
    """Digest of the source files that decide what the stage makes (16 hex digits).

    They are found by following the imports of the stage's command, also those inside
    functions, down to the ground floor.
    """
    return module_digest(STAGES[name].module)


def module_digest(entry: str) -> str:
    """Digest of the module `entry` and of all that it imports above the ground floor."""
    digest = hashlib.sha256()
    for module in sorted(source_modules(entry)):
        path = _source_of(module)
        assert path is not None
        digest.update(module.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def source_modules(entry: str) -> frozenset[str]:
    """All modules of this package that `entry` imports, directly or not, above the ground."""
    found: set[str] = set()
    waiting = [entry]
    while waiting:
        module = waiting.pop()
        if module in found or module in GROUND_FLOOR:
            continue
        found.add(module)
        waiting.extend(_imports_of(module))
    return frozenset(found)


@cache
def _imports_of(module: str) -> tuple[str, ...]:
    path = _source_of(module)
    if path is None:
        return ()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [base])])
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return tuple(sorted(name for name in names if _source_of(name) is not None))


@cache
def _source_of(module: str) -> Path | None:
    parts = module.split(".")
    if parts[0] != "brainlm":
        return None
    path = package_dir().joinpath(*parts[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None
