"""How a training is started from a rule: its command line, and what its job asks Slurm for.

One process is the command itself; several of one node are torchrun's; those of several nodes are
tasks of a step that `srun` starts from within the job. For these the Slurm plugin wants the
resource `mpi`: the rule's command then runs in the batch script and not in a step of one task.
"""

from __future__ import annotations

from dataclasses import dataclass

#: CPUs beside each GPU: threads that make batches, and room for the rest.
CPUS_PER_GPU = 8
_MB_PER_PROCESS = 16000
#: What makes a training save and stop; torchrun hands on no other signals by itself.
_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
_NO_JOB = "a training on several nodes runs in a Slurm job: snakemake --profile slurm"


@dataclass(frozen=True)
class Launch:
    """Processes that share a training (or one that has a GPU for an evaluation)."""

    processes: int = 1  # of each node
    nodes: int = 1
    gpus: int = 1  # of each process: 0 or 1
    gres: str | None = None  # how the cluster calls its GPUs, as gpu:a100; None: by number alone

    @property
    def command(self) -> str:
        """What the command line begins with."""
        if self.nodes > 1:
            tasks = self.nodes * self.processes
            options = (
                f"--jobid ${{SLURM_JOB_ID:?{_NO_JOB}}}",
                f"--nodes={self.nodes} --ntasks={tasks} --ntasks-per-node={self.processes}",
                f"--cpus-per-task={CPUS_PER_GPU if self.gpus else 1}",
                # Who has lost another process may wait for it for minutes.
                "--kill-on-bad-exit=1",
            )
            return " ".join(("srun", *options, "brainlm"))
        if self.processes > 1:
            return (
                f"torchrun --standalone --nproc-per-node {self.processes} "
                f"--signals-to-handle {_SIGNALS} -m brainlm"
            )
        return "brainlm"

    @property
    def mem_mb(self) -> int:
        """Memory of a node: processes share no more of it than the files they read."""
        return _MB_PER_PROCESS * self.processes

    @property
    def resources(self) -> dict[str, int | str]:
        """Of the rule, but for memory and time."""
        wanted = self._tasks()
        if not self.gpus:
            return wanted
        if self.gres is None and self.nodes == 1:
            wanted |= {"gpu": self.processes, "cpus_per_gpu": CPUS_PER_GPU}
        else:
            # By `gres` Slurm counts GPUs of each node, by `gpu` those of the whole job. The step of
            # a job without `gpu` does not take its CPUs from `cpus_per_gpu`.
            wanted["gres"] = f"{self.gres or 'gpu'}:{self.processes}"
            of_a_task = 1 if self.nodes > 1 else self.processes
            wanted["cpus_per_task"] = CPUS_PER_GPU * of_a_task
        return wanted

    def _tasks(self) -> dict[str, int | str]:
        if self.nodes == 1:
            return {}
        wanted: dict[str, int | str] = {"mpi": "srun", "nodes": self.nodes}
        if self.processes > 1:  # the plugin refuses 1 here, and takes the sum
            return {**wanted, "tasks_per_node": self.processes}
        # Not so many of each GPU, which is what the plugin makes of `tasks` where there are some.
        return {**wanted, "tasks": self.nodes, "tasks_per_gpu": 0}
