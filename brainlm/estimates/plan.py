"""What a study will take: each stage's jobs, time, disk and memory, and all of it together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import Config
from ..dag_batches import QC_BATCH, pack_batches
from ..dag_memory import Memory, Named
from ..layout import TEMPLATES, folder_of
from ..recordings import correction_of
from .fit import cluster_config, free_bytes
from .history import read_history
from .models import Model, cohort_models, models_of
from .sizes import Size, size_of
from .takes import Estimate, StageTakes
from .training import weights_of

#: Memory of stages whose rules ask for the same whatever the run, MB. A test reads it in the rules.
FIXED_MB = {
    "normalize-anat": 3000,
    "fieldmap": 2000,
    "coregister-bold": 2000,
    "normalize-bold": 2000,
    "warp-bold": 2000,
    "resample": 3000,
    "adopt-parcels": 1500,
    "qc-figure": 1000,
    "cohort": 4000,
    "scale": 2000,
    "write-shard": 2000,
}

Row = Mapping[str, Any]


class _Sizes(Memory):
    """The memory formulas of the rules, on rows alone."""

    def __init__(self, config: Config, rows: Mapping[str, dict[str, Any]]):
        self.config = config
        self._rows = rows

    def row(self, recording: str) -> dict[str, Any]:
        return self._rows[recording]


def estimate(config: Config, rows: Sequence[dict[str, Any]], study: Path, parcels: int) -> Estimate:
    """What the eligible `rows` of the recordings table will take in the folder `study`."""
    config = cluster_config(config, study)
    chosen = {
        row["recording_id"]: row | {"n_volumes": row["n_volumes"] or 0}
        for row in rows
        if row["eligible"]
    }
    sizes = {name: size_of(row, config, parcels) for name, row in chosen.items()}
    memory = _Sizes(config, chosen)
    models = models_of(config)
    stages, seconds = [], dict.fromkeys(chosen, 0.0)
    for stage in _stages(config, chosen.values()):
        names = [name for name, row in chosen.items() if _has(stage, row, config)]
        if stage == "normalize-anat":  # once for each T1w
            names = list({chosen[name]["anat_id"]: name for name in reversed(names)}.values())
        if not names:
            continue
        told = _takes(stage, names, sizes, models.get(stage), memory, config, study, chosen)
        stages.append(told)
        if told.cpu_h is not None:
            factor = told.took.factor if told.took else 1.0
            for name in names:
                seconds[name] += factor * models[stage].seconds(sizes[name])
    done = {name for name, row in chosen.items() if _is_done(study, row, config)}
    whole = _cohort_stages(config, list(sizes.values()))
    left = {name: time for name, time in seconds.items() if name not in done}
    passing = [models[stage.stage].passing for stage in stages if stage.passing]
    return Estimate(
        runs=len(chosen),
        subjects=len({row["subject"] for row in chosen.values()}),
        done=len(done),
        stages=(*stages, *whole),
        run_s=tuple(left.values()),
        batches=tuple(_batches(config, chosen, left, memory)),
        cores_per_job=config.jobs.cores_per_job,
        cohort_s=3600 * sum(stage.cpu_h or 0.0 for stage in whole),
        passing_of_a_run=max(
            (sum(of(size) for of in passing) for size in sizes.values()), default=0.0
        ),
        free=free_bytes(study),
    )


def _stages(config: Config, rows: Any) -> list[str]:
    """The stages that take a recording from its raw files to parcels and its figure, in order."""
    kinds = {row["kind"] for row in rows}
    straight = config.resample.output == "parcels"
    ica = ["ica"] if config.denoise.method == "aroma" else []
    rest = [*ica, "denoise", "parcellate"]
    if kinds & {"dense", "parcels"}:
        return ["adopt-parcels", "qc-figure"]
    if config.engine != "native":
        before = ["fmriprep"] if config.engine == "fmriprep" else []
        return [*before, *(["adopt-to-parcels"] if straight else ["adopt", *rest]), "qc-figure"]
    place = ["motion", "normalize-anat", "fieldmap", "coregister-bold", "normalize-bold"]
    end = ["resample-to-parcels"] if straight else ["resample", "confounds", *rest]
    return [*place, "warp-bold", *end, "qc-figure"]


def _has(stage: str, row: Row, config: Config) -> bool:
    """Whether this stage works on this run."""
    if stage == "fieldmap":
        asked = {key: row[key] for key in ("fmap_kind", "pe_direction", "t1w")}
        return correction_of(config.distortion.method, **asked) is not None
    if stage in ("normalize-anat", "coregister-bold"):
        return row["t1w"] is not None
    if stage == "warp-bold":
        return row["t1w"] is None and config.normalize.transform == "syn"
    return True


def _takes(
    stage: str,
    names: list[str],
    sizes: Mapping[str, Size],
    model: Model | None,
    memory: _Sizes,
    config: Config,
    study: Path,
    rows: Mapping[str, Row],
) -> StageTakes:
    mem_mb = max(_mem_mb(stage, name, memory, config) for name in names)
    if model is None:
        return StageTakes(stage, len(names), None, 0.0, 0.0, mem_mb)

    def expected(name: str) -> float:
        return model.seconds(sizes[name])

    chosen = {name: rows[name] for name in names}
    took = read_history(study, stage, chosen, expected)
    hours = sum(map(expected, names)) * (took.factor if took else 1.0) / 3600
    kept = sum(model.kept(sizes[name]) for name in names)
    passing = sum(model.passing(sizes[name]) for name in names)
    if config.keep_intermediates:
        kept, passing = kept + passing, 0.0
    return StageTakes(stage, len(names), hours, kept, passing, mem_mb, took)


def _mem_mb(stage: str, name: str, memory: Memory, config: Config) -> int:
    """Memory that the stage's rule asks for, MB."""
    run = Named(name)
    of_size: dict[str, Callable[[], int]] = {
        "motion": lambda: memory.raw_mb(run),
        "confounds": lambda: memory.brain_mb(run, 2),
        "ica": lambda: memory.brain_mb(run, 3),
        "denoise": lambda: memory.brain_mb(run, 1),
        "parcellate": lambda: memory.parcellate_mb(run),
        "resample-to-parcels": lambda: memory.straight_mb(run),
        "adopt-to-parcels": lambda: memory.straight_mb(run),
        "adopt": lambda: memory.brain_mb(run, 2),
    }
    return of_size[stage]() if stage in of_size else FIXED_MB.get(stage, 0)


def _cohort_stages(config: Config, sizes: Sequence[Size]) -> list[StageTakes]:
    """The stages of the whole cohort, and what models leave on the disk."""
    found = []
    for stage, model in cohort_models(config).items():
        hours = sum(map(model.seconds, sizes)) / 3600
        kept = sum(map(model.kept, sizes))
        found.append(StageTakes(stage, 1, hours, kept, 0.0, FIXED_MB[stage]))
    # Weights, and checkpoints with the two moments of AdamW beside them: the newest and the best.
    copies = 1 + 3 * (config.pretrain.keep_checkpoints + 1)
    kept = 0.0 if config.released.source else 4.0 * weights_of(config) * copies
    mem_mb = 16000 * config.pretrain.processes
    return [*found, StageTakes("pretrain", 1, None, kept, 0.0, mem_mb)]


def _batches(
    config: Config,
    rows: Mapping[str, Mapping[str, Any]],
    left: Mapping[str, float],
    memory: Memory,
) -> list[tuple[float, int]]:
    """Seconds and memory of each job of a cluster."""
    most, cores = config.jobs.recordings_per_job, config.jobs.cores_per_job
    found = []
    for names in pack_batches(rows, most if most > 1 else QC_BATCH):
        times = [left[name] for name in names if name in left]
        if times:
            at_a_time = min(cores, len(names))
            found.append((max(max(times), sum(times) / at_a_time), memory.mb_of_batch(names)))
    return found


def _is_done(study: Path, row: Row, config: Config) -> bool:
    """Whether a run's parcels are there."""
    name = row["recording_id"]
    fields = {"recording": name, "folder": folder_of(name), **config.labels}
    return (study / TEMPLATES["timeseries"].format(**fields)).exists()
