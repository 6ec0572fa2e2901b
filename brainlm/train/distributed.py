"""Several processes that train one model: who they are, and what they tell each other.

torchrun says it by RANK, WORLD_SIZE and LOCAL_RANK, `srun` with several tasks by Slurm's own
variables. Each process holds the whole model (DDP) or a part of each matrix (FSDP2); either way
the gradients are averaged over the processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from ..errors import BrainLMError, ResourceError

#: A process that waits for so long for another one gives up. Writing a checkpoint takes less.
_PATIENCE = timedelta(minutes=10)
#: Seconds that whoever has lost another process gives it to tell why, before it tells of the loss.
_HEAD_START = 2.0
#: What gloo and NCCL say when another process is not there any more.
_LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed out", re.I)


@dataclass(frozen=True)
class Ranks:
    """One process among `world` ones."""

    rank: int = 0
    world: int = 1
    local: int = 0  # number on its node: the GPU it takes

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and talks."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """`values`, which become their sum over the processes."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def from_first(self, number: int) -> int:
        """What the first process says."""
        if self.world == 1:
            return number
        told = torch.tensor(number)
        dist.broadcast(told, src=0)
        return int(told)


#: One process.
ALONE = Ranks()


def ranks_of(environment: Mapping[str, str]) -> Ranks:
    """Who this process is, as torchrun or `srun` tell it.

    In a batch script without `srun`, Slurm promises tasks that do not run: only a step's number of
    tasks (SLURM_STEP_NUM_TASKS) counts.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    else:
        return ALONE
    return Ranks(*(int(environment.get(name, 0)) for name in names))


def meeting_point(environment: Mapping[str, str]) -> str:
    """Where the processes find each other, as `init_process_group` wants it.

    Under Slurm: the first node of the step, at a port that follows from the job's number.
    """
    if "MASTER_ADDR" in environment and "MASTER_PORT" in environment and "RANK" in environment:
        return "env://"
    host = environment.get("MASTER_ADDR") or first_host(environment["SLURM_STEP_NODELIST"])
    job = int(environment.get("SLURM_JOB_ID", 0))
    return f"tcp://{host}:{environment.get('MASTER_PORT') or 20000 + job % 20000}"


def first_host(nodes: str) -> str:
    """The first of Slurm's node list: `gpu[03-05,9],other` -> `gpu03`."""
    head = re.match(r"[^,\[]+(\[[^\]]+\])?[^,]*", nodes)
    assert head is not None
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", head.group())


@contextlib.contextmanager
def joined(environment: Mapping[str, str] = os.environ) -> Iterator[Ranks]:
    """Be one of the processes within the block. Tensors on CPUs go by gloo, on GPUs by NCCL."""
    ranks = ranks_of(environment)
    if ranks.world == 1:
        yield ranks
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(ranks.local % torch.cuda.device_count())
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        init_method=meeting_point(environment),
        rank=ranks.rank,
        world_size=ranks.world,
        timeout=_PATIENCE,
    )
    try:
        yield ranks
    except Exception as error:
        lost = isinstance(error, RuntimeError) and _LOST.search(str(error))
        if lost:
            time.sleep(_HEAD_START)
            error = ResourceError(
                "Another process of the training has ended, and this one with it",
                fix="look for what that one said: above, or in its own log; without a word it was "
                "killed, as for lack of memory",
            )
        _tell_torchrun(error, environment)
        if lost:
            raise error from None
        raise
    # Not after an error: the others may be waiting for us, and would wait for each other here.
    dist.destroy_process_group()


def _tell_torchrun(error: Exception, environment: Mapping[str, str]) -> None:
    """Leave the error where torchrun looks for it: the first of all is its "Root Cause"."""
    path = environment.get("TORCHELASTIC_ERROR_FILE")
    if path is None:
        return
    known = isinstance(error, BrainLMError)
    text = str(error) if known else "".join(traceback.format_exception(error))
    with contextlib.suppress(OSError):
        Path(path).write_text(json.dumps({"message": text, "timestamp": int(time.time())}))


def shard(model: nn.Module, ranks: Ranks, device: torch.device) -> None:
    """Give each process its part of every parameter (FSDP2), block by block."""
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (ranks.world,))
    for blocks in [module for module in model.modules() if isinstance(module, nn.ModuleList)]:
        for block in blocks:
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def averaging_gradients(model: nn.Module, ranks: Ranks) -> nn.Module:
    """A model whose backward pass leaves gradients averaged over the processes."""
    if ranks.world == 1 or _sharded(model):
        return model
    # Of the CLS token, whose axes of length 1 have strides of their own: it costs nothing.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    return DistributedDataParallel(model)


@contextlib.contextmanager
def gradients_stay_here(model: nn.Module, stay: bool) -> Iterator[None]:
    """Within the block, backward passes need not tell the others: a later one of the step does."""
    if _sharded(model):
        model.set_requires_gradient_sync(not stay)  # type: ignore[operator]
        yield
    elif isinstance(model, DistributedDataParallel) and stay:
        with model.no_sync():
            yield
    else:
        yield


def is_part(value: Tensor) -> bool:
    """Whether each process holds only a part of a tensor.

    FSDP and its tensors take half as long to import as all of torch: a process that trains or
    evaluates by itself, as nearly all do, never imports them.
    """
    if not dist.is_initialized():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def _sharded(model: nn.Module) -> bool:
    """Whether `shard` has been here."""
    if not dist.is_initialized():
        return False
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


def whole(value: Tensor) -> Tensor:
    """All of a tensor of which each process may hold a part; all must call it."""
    return value.full_tensor() if is_part(value) else value  # type: ignore[attr-defined]


def parted_like(value: Tensor, example: Tensor) -> Tensor:
    """A whole tensor, on the device and shared out among the processes as `example` is."""
    value = value.to(example.device)
    if is_part(example):
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(example, DTensor)
        return distribute_tensor(value, example.device_mesh, example.placements, src_data_rank=None)
    return value
