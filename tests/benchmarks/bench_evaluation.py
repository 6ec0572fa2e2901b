"""What the evaluation of the demo costs: `python -m tests.benchmarks.bench_evaluation`.

A study of the demo's size and with its options (8 subjects, 10 recordings of 220 volumes, 424
parcels), whose parcel series come from the phantom's network model without the images between.
Models are trained for one epoch, untimed; then every command of the evaluation runs as a process of
its own, one after the other on one thread, and CPU seconds are those of the process, starting
included. It fails where the workflow would make an evaluation that no command here made.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from brainlm.bids.study import merge, parse_settings
from brainlm.cli.demo import demo_settings
from brainlm.config import Config
from brainlm.dag import Dag
from brainlm.layout import Study
from brainlm.phantom.network import simulate
from brainlm.phantom.parameters import stream
from brainlm.phantom.traits import AGE_RANGE, SCORE_RANGE, Traits
from tests.unit.synthetic_cohort import write_recording, write_recordings

ATLAS, SPACE = "A424approx", "MNI152NLin2009aSym"
VOLUMES, TR = 220, 1.0
#: Runs of each subject, and its split: as many as in the demo.
SUBJECTS = {"train": (2, 1, 2, 1), "val": (1,), "test": (1, 1, 1)}
AT_MOST = 300.0  # CPU seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        study = Study(Path(temporary) / "study")
        config = write_config(study)
        run(study, "prepare-atlas")
        write_series(study, config)
        for command in _trainings():
            run(study, command)
        spent = {command: run(study, command) for command in _evaluations(config)}
        missing = [
            path
            for path in Dag(json.loads(study.path("config").read_text()), study.root).evaluations
            if not (study.root / path).exists()
        ]
        if missing:
            sys.exit(f"no command here makes {', '.join(missing)}")
    for command, seconds in spent.items():
        print(f"    {command:48s} {seconds:6.1f} CPU s")
    total = sum(spent.values())
    print(f"whole evaluation, {len(spent)} commands: {total:.0f} CPU s (at most {AT_MOST:.0f})")


def run(study: Study, command: str) -> float:
    """CPU seconds of `brainlm command`, by itself on one thread."""
    log = study.root / "log.txt"
    arguments = [sys.executable, "-m", "brainlm", *command.split(), "--study", str(study.root)]
    with log.open("w") as output:
        redirected = [(os.POSIX_SPAWN_DUP2, output.fileno(), 1)]
        redirected += [(os.POSIX_SPAWN_DUP2, output.fileno(), 2)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = os.posix_spawn(sys.executable, arguments, environment, file_actions=redirected)
        _, status, used = os.wait4(process, 0)
    if status:
        sys.exit(f"brainlm {command} failed:\n{log.read_text()[-2000:]}")
    return used.ru_utime + used.ru_stime


def write_config(study: Study) -> Config:
    """The demo's options, with trainings of one epoch."""
    quick = ["split.table=config/splits.tsv", "pretrain.epochs=1", "finetune.epochs=1"]
    settings = [one for one in demo_settings(ATLAS, SPACE) if "split." not in one]
    content = merge({}, parse_settings([*settings, *quick]))
    study.path("config").parent.mkdir(parents=True)
    study.path("config").write_text(json.dumps(content))
    return Config.model_validate(content)


def write_series(study: Study, config: Config) -> None:
    """The recordings table, the splits and the parcel series."""
    parcels = pd.read_csv(study.path("atlas_table", **config.labels), sep="\t")
    rows, splits = [], []
    for number, (split, runs) in enumerate(
        (split, runs) for split, subjects in SUBJECTS.items() for runs in subjects
    ):
        rng = stream(0, "bench evaluation", str(number))
        traits = Traits(rng.uniform(*AGE_RANGE), "FM"[number % 2], rng.uniform(*SCORE_RANGE))
        splits.append({"subject": f"{number:02d}", "split": split})
        for session in range(1, runs + 1):
            recording = f"sub-{number:02d}_task-rest_run-{session}"
            clean = simulate(parcels, traits, VOLUMES * TR, 1.0, rng).at(TR * np.arange(VOLUMES))
            series = (1000 + 10 * clean + rng.standard_normal(clean.shape)).astype(np.float32)
            write_recording(study, recording, series, parcels=parcels, labels=config.labels)
            rows.append(
                {
                    "recording_id": recording,
                    "subject": f"{number:02d}",
                    "task": "rest",
                    "dataset": "phantom",
                    "bold": f"sub-{number:02d}/func/{recording}_bold.nii.gz",
                    "n_volumes": VOLUMES,
                    "tr": TR,
                    "shape": "[46, 55, 46]",
                    "eligible": True,
                    "label_age": traits.age,
                }
            )
    pd.DataFrame(splits).to_csv(study.root / "config/splits.tsv", sep="\t", index=False)
    write_recordings(study, pd.DataFrame(rows))


def _trainings() -> Iterator[str]:
    yield from ("cohort", "scale", "write-shard", "index-shards", "pretrain")
    yield from ("finetune --target age", "finetune --task forecast")
    yield "finetune --task forecast-untrained"


def _evaluations(config: Config) -> Iterator[str]:
    """The commands in an order in which each finds what it reads."""
    yield "embed"
    yield "evaluate-reconstruction"
    for target in config.finetune.targets:
        for method in config.networks.methods:
            yield f"predict-label --target {target.name} --method {method}"
        yield f"evaluate-clinical --target {target.name}"
    yield "evaluate-latent"
    for method in config.forecasts.methods:
        yield f"score-forecast --method {method}"
    yield from ("compare-forecasts", "evaluate-networks", "evaluate-attention")
    yield from ("evaluate-perturbation", "evaluation-page")


if __name__ == "__main__":
    main()
