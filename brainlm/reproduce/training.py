"""The first steps of a recorded pretraining, again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..model.checkpoint import save_weights
from ..model.config import ModelConfig
from ..provenance import sha256_json
from ..shards.reader import ShardReader
from ..train.checkpointing import Checkpoints
from ..train.pretrain import make_plan, pretrain
from ..train.runtime import InterruptedTrainingError, StopRequest, describe, set_up
from ..train.settings import PretrainSettings, read_settings
from .compare import Compared, Distance, Verdict, compare_files, judge
from .tolerances import tolerance_of

#: Columns of the log of a training.
_MEASURED = ("loss", "lr", "grad_norm", "val_loss", "val_r2")


@dataclass(frozen=True)
class Done:
    """What was trained."""

    rows: list[dict[str, Any]]  # of the log, complete up to `steps`
    steps: int
    total: int
    machine: Mapping[str, Any]
    recorded_machine: Mapping[str, Any]

    @property
    def ended(self) -> bool:
        """Whether the whole training was done."""
        return self.steps == self.total


def first_steps(
    index: Path, sidecar: Mapping[str, Any], weights: Path, steps: int, now: Mapping[str, Any]
) -> Done:
    """Train with the options, seed and shards that the sidecar of a model tells of.

    Options that there were not yet have their values of `now`.

    The rate's course is that of the whole training, of which `steps` steps are done. Checkpoints
    lie beside `weights`: a training that was killed goes on. `weights` are written if it ends.
    """
    params = {name: {**now[name], **sidecar["Parameters"][name]} for name in ("model", "pretrain")}
    reader = ShardReader(index)
    config = ModelConfig.from_dict(params["model"])
    settings = read_settings(PretrainSettings, "pretrain", params["pretrain"])
    # How work is shared out changes no more than the rounding of sums, and one process is here.
    settings = replace(settings, processes=1, nodes=1, parallel="ddp", stop_before_end_s=0.0)
    known = {name: sidecar[name] for name in ("Device", "Threads", "Torch") if name in sidecar}
    wanted = "cpu" if known.get("Device") == "cpu" else "auto"  # a GPU where it is of one
    device = set_up(wanted, int(known.get("Threads", 1)), deterministic=settings.deterministic)
    machine = describe(device, int(known.get("Threads", 1)))
    total = make_plan(reader, config, settings).total_steps
    stop = StopRequest()
    about = sha256_json({"of": dict(sidecar), "machine": machine})[:16]
    checkpoints = Checkpoints.below(weights.parent / "checkpoints", about, lambda line: None)

    def report(row: Mapping[str, Any]) -> None:
        if "loss" in row and row["step"] >= steps < total:
            stop.signal = "the number of steps asked for"

    try:
        model = pretrain(
            reader,
            config,
            settings,
            seed=sidecar["Parameters"]["seed"],
            device=device,
            checkpoints=checkpoints,
            report=report,
            stop=stop,
        )
        save_weights(weights, model)
        done = total
    except InterruptedTrainingError:
        done = steps
    rows = [row for row in checkpoints.log.rows() if row["step"] <= done]
    return Done(rows, done, total, machine, known)


def compare_log(what: str, log: Path, done: Done) -> list[Compared]:
    """The curves of the recorded log and of the steps done now, one after the other."""
    if not log.exists():
        raise InputError(
            "The log of the pretraining is gone, so there is no curve to compare with",
            file=log,
            fix="restore it, or leave the training out: --training-steps 0",
        )
    lines = log.read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["step"] <= done.steps]
    note = ""
    if dict(done.machine) != dict(done.recorded_machine):
        note = f"trained on {_told(done.recorded_machine)}, now on {_told(done.machine)}"
    tolerance, found = tolerance_of("pretrain"), []
    for name in _MEASURED:
        before, after = _curve(rows, name), _curve(done.rows, name)
        if not len(before) and not len(after):
            continue
        part = f"{what}#{name}"
        if np.array_equal(before, after):
            found.append(Compared("pretrain", part, Verdict.bitwise, note=note))
            continue
        distance = Distance.between({name: before}, {name: after})
        found.append(judge("pretrain", part, distance, tolerance, note))
    return found


def compare_weights(what: str, recorded: Path, again: Path) -> Compared:
    """The weights that the whole training ends with."""
    return compare_files("pretrain", what, recorded, again, tolerance_of("pretrain"))


def _curve(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([row[name] for row in rows if row.get(name) is not None], dtype=np.float64)


def _told(machine: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in machine.items())
