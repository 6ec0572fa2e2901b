"""What each stage takes of a run, from its size: fitted to measured runs (docs/onboarding.md).

Seconds are those of one core of the machine of docs/performance.md; another may be twice as fast or
as slow. `tests/benchmarks/bench_estimates.py` measures the stages and sets these beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..config import Config
from .sizes import Size

#: By how much a sum of estimates may be off either way, on another machine and other data; and
#: where the stages' times are those of the study's own earlier jobs.
FACTOR, FACTOR_MEASURED = 2.0, 1.3

PerRun = Callable[[Size], float]


def _nothing(size: Size) -> float:
    return 0.0


def _series(size: Size) -> float:
    """A 4-D file of the brain, float32 and packed."""
    return 3.9e6 * size.brain_series


@dataclass(frozen=True)
class Model:
    """What a stage takes of one run."""

    seconds: PerRun
    kept: PerRun = _nothing  # bytes that stay
    passing: PerRun = _nothing  # bytes that go when the next stages have read them


def models_of(config: Config) -> dict[str, Model]:
    """The model of each stage of a recording, with the options of this study."""
    syn = config.normalize.transform == "syn"
    confounds = Model(lambda s: 2 + 0.12 * s.brain_series, lambda s: 6e3 + 810 * s.volumes)
    ica = Model(
        lambda s: 3 + 0.04 * s.volumes + 0.15 * s.brain_series,
        lambda s: 2.5e7 * s.brain + 770 * s.volumes + 2e4,
    )
    denoise = Model(
        lambda s: 2.3 + 0.077 * s.brain_series, lambda s: 5e3 + 4810 * s.volumes, _series
    )
    parcellate = Model(
        lambda s: 1.5 + 0.018 * s.brain_series, lambda s: 7e4 + 4.2 * s.parcels * s.volumes
    )
    resample = Model(
        lambda s: 3 + 0.08 * s.raw_series + 0.055 * s.brain_series,
        lambda s: 5e3 + 1e5 * s.brain,
        _series,
    )
    adopt = Model(
        lambda s: 4 + 0.095 * s.brain_series,
        lambda s: 2e4 + 2e6 * s.box + 700 * s.volumes,
        _series,
    )
    found = {
        "motion": Model(
            lambda s: 3 + 0.16 * s.raw_series, lambda s: 5e3 + 3.6e6 * s.raw + 420 * s.volumes
        ),
        "normalize-anat": Model(lambda s: 37.0 if syn else 9.0, lambda s: 9e6 if syn else 6e6),
        "fieldmap": Model(lambda s: 12.0, lambda s: 1e4 + 5e6 * s.raw),
        "coregister-bold": Model(lambda s: 10.0, lambda s: 2e3),
        "normalize-bold": Model(lambda s: 2.5, lambda s: 9e3),
        "warp-bold": Model(lambda s: 15.0, lambda s: 3e6),
        "resample": resample,
        "confounds": confounds,
        "ica": ica,
        "denoise": denoise,
        "parcellate": parcellate,
        "adopt": adopt,
        "adopt-parcels": Model(
            lambda s: 2 + 0.02 * s.brain_series if s.brain > 0.05 else 2.0, parcellate.kept
        ),
        "qc-figure": Model(lambda s: 1.5, lambda s: 1.5e5),
    }
    joined = ["confounds", *(["ica"] if config.denoise.method == "aroma" else [])]
    joined += ["denoise", "parcellate"]
    for name in ("resample", "adopt"):
        found[f"{name}-to-parcels"] = _in_one([found[part] for part in (name, *joined)])
    return found


def _in_one(parts: list[Model]) -> Model:
    """Stages in one process: nothing is written between them, and read again."""
    return Model(
        lambda s: 0.6 * sum(part.seconds(s) for part in parts),
        lambda s: sum(part.kept(s) for part in parts),
    )


def cohort_models(config: Config) -> dict[str, Model]:
    """What the stages of the whole cohort take of each run."""
    width = 2 if config.shards.dtype == "float16" else 4
    return {
        "cohort": Model(lambda s: 0.01, lambda s: 300.0),
        "scale": Model(lambda s: 0.012 * s.volumes / 490, lambda s: 10.0),
        "write-shard": Model(
            lambda s: 0.009 * s.volumes / 490, lambda s: 1.01 * width * s.parcels * s.volumes
        ),
    }
