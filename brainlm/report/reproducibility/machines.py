"""On what trainings and evaluations ran, by the logs that they keep of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .base import About

#: What makes two machines one to the reader.
_SAME = (
    *("stage", "device", "gpus", "driver", "cuda", "cudnn", "tf32", "cpu", "cores", "memory_gb"),
    *("torch", "torch_blas", "numpy_blas", "threads", "processes", "deterministic", "host"),
)


def read_machines(about: About) -> list[dict[str, Any]]:
    """Each line of the logs, in order; half-written ones are left out."""
    folder = about.path("machine_log", job="any").parent
    found = []
    for log in sorted(folder.glob("*.jsonl")):
        try:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            try:
                told = json.loads(line)
            except ValueError:
                continue
            if isinstance(told, dict) and isinstance(told.get("stage"), str):
                found.append({**told, "job": log.stem})
    return found


def grouped(machines: list[dict[str, Any]], *, hosts: bool) -> list[dict[str, Any]]:
    """Equal machines of a stage as one, with the number of starts on each."""
    found: dict[str, dict[str, Any]] = {}
    for told in machines:
        one: dict[str, Any] = {key: "n/a" for key in _SAME if hosts or key != "host"}
        one |= {key: told[key] for key in one if told.get(key) is not None}
        if isinstance(one.get("gpus"), list):
            one["gpus"] = _counted(one["gpus"])
        key = json.dumps(one, sort_keys=True, default=str)
        found.setdefault(key, {**one, "starts": 0})["starts"] += 1
    return list(found.values())


def several(machines: list[dict[str, Any]]) -> list[str]:
    """Jobs that went on with another GPU, driver or PyTorch than they began with."""
    kinds: dict[str, set[str]] = {}
    for told in machines:
        kind = [told.get(key) for key in ("device", "gpus", "driver", "cudnn", "torch", "threads")]
        kinds.setdefault(told["job"], set()).add(json.dumps(kind, default=str))
    return sorted(job for job, found in kinds.items() if len(found) > 1)


def gpu_watts(machines: list[dict[str, Any]]) -> Mapping[str, float]:
    """The power limit of the GPUs of each job, together, where nvidia-smi told it."""
    return {
        told["job"]: sum(told["gpu_w"]) * (told.get("processes") or 1) / len(told["gpu_w"])
        for told in machines
        if told.get("device") == "cuda" and told.get("gpu_w")
    }


def _counted(names: list[Any]) -> str:
    kinds = sorted({str(name) for name in names})
    return ", ".join(f"{names.count(kind)} x {kind}" for kind in kinds)
