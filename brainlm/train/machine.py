"""On what a training ran, kept in a log: it decides no result, but explains one that differs.

Sidecars hold what decides the last bits and nothing else, so that equal inputs give equal bytes; a
host, a driver or a time would break that.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..cluster.ask import answer
from ..cluster.own_job import name_of

#: nvidia-smi answers within a second, or is stuck.
_PATIENCE_S = 20.0


def note_machine(log: Path, **about: Any) -> None:
    """Add a line on this machine to a log; where that cannot be, the training goes on without.

    `about`: what else the line is to say, such as the stage. A training that is resumed elsewhere
    adds another line.
    """
    with contextlib.suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({**about, **describe_machine()}, sort_keys=True) + "\n"
        with log.open("a", encoding="utf-8") as out:
            out.write(line)


def describe_machine() -> dict[str, Any]:
    """What machine runs here, and what PyTorch is set to."""
    told: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": platform.node(),
        "system": platform.platform(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_blas": _torch_blas(),
        "numpy_blas": _numpy_blas(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        "slurm_job": name_of(os.environ),
    }
    if torch.cuda.is_available():
        told |= {
            "gpus": [torch.cuda.get_device_name(one) for one in range(torch.cuda.device_count())],
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "tf32": torch.backends.cuda.matmul.allow_tf32,
            **_driver(),
        }
    return told


def _cpu() -> str:
    """The CPU's name, as Linux tells it."""
    with contextlib.suppress(OSError):
        if match := re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text()):
            return match[1].strip()
    return platform.processor() or platform.machine()


def _driver() -> dict[str, Any]:
    """The driver's version and the power limit of each GPU, where nvidia-smi tells them."""
    asked = "--query-gpu=driver_version,power.limit"
    told = answer("nvidia-smi", asked, "--format=csv,noheader,nounits", timeout=_PATIENCE_S)
    rows = [line.split(", ") for line in told.text.splitlines() if line.count(", ") == 1]
    if not told.ok or not rows:
        return {"driver": None, "gpu_w": []}
    watts = [float(row[1]) for row in rows if re.fullmatch(r"[0-9.]+", row[1])]
    return {"driver": rows[0][0], "gpu_w": watts}


def _torch_blas() -> str | None:
    match = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    return match[1] if match else None


def _numpy_blas() -> str | None:
    try:
        found = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{found['name']} {found['version']}"
    except (KeyError, TypeError):
        return None
