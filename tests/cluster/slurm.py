"""A real Slurm cluster on the loopback of this machine, for as long as a `with` block.

munged, slurmctld and one slurmd for each pretended node run as children of this process, on ports
that were free, with all their files in one folder. Nothing of the machine's own Slurm is touched,
and no right of root is needed: without it, jobs run as the user who started the cluster.

    python -m tests.cluster.slurm /tmp/lab                starts one and waits for Ctrl-C
    python -m tests.cluster.slurm /tmp/lab accounting     with slurmdbd and MariaDB besides
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from . import accounting

_DAEMONS = ("munged", "slurmctld", "slurmd")
_CLIENTS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo", "sacct", "sacctmgr")
#: Character devices that stand for GPUs: Slurm wants some, and gives out no more than their names.
_DEVICES = ("/dev/null", "/dev/zero")
_CPU_NODES = ("cpu1", "cpu2")
_GPU_NODE = "gpu1"
_START_S = 60.0


class ClusterError(RuntimeError):
    """The cluster did not come up, or did something that nobody asked for."""


def why_not(with_accounting: bool = False) -> str | None:
    """The reason why no cluster can be started here; None when one can."""
    wanted = (*_DAEMONS, *_CLIENTS, *(accounting.PROGRAMS if with_accounting else ()))
    missing = [name for name in wanted if _find(name) is None]
    if not missing:
        return None
    return f"{', '.join(missing)} not installed (`make slurm` installs Debian's packages)"


def _find(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclass
class Cluster:
    """The processes of a cluster, and what to ask of it."""

    folder: Path
    #: A database of jobs and accounts, and no job without an account.
    with_accounting: bool = False
    #: Lines that slurm.conf gets besides; a key given here wins over the one in slurm.conf.in.
    settings: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    # --- asking --------------------------------------------------------------------------

    @property
    def user(self) -> str:
        """Who started this cluster, and may do everything on it."""
        return pwd.getpwuid(os.getuid()).pw_name

    @property
    def environment(self) -> dict[str, str]:
        """What a user of this cluster has set: its commands come first on PATH."""
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith("SLURM")},
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
        }

    def run(self, *command: str | Path, check: bool = True, timeout: float = 60.0) -> str:
        """The output of one of Slurm's commands."""
        done = subprocess.run(
            [str(part) for part in command],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise ClusterError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
        return done.stdout

    def jobs(self, states: str = "all") -> list[dict[str, str]]:
        """Jobs that the controller remembers: id, name, state, node, comment, folder."""
        fields = ("%A", "%j", "%T", "%N", "%k", "%Z")
        text = self.run("squeue", "--noheader", f"--states={states}", "--format", "|".join(fields))
        keys = ("id", "name", "state", "node", "comment", "folder")
        return [dict(zip(keys, line.split("|"), strict=True)) for line in text.splitlines() if line]

    def wait_for(self, wanted: str, seconds: float, condition: object) -> None:
        """Wait until `condition()` is true; an error that says what was waited for, else."""
        assert callable(condition)
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise ClusterError(f"waited {seconds:g} s in vain: {wanted}\n{self.logs()}")
            time.sleep(0.1)

    def logs(self) -> str:
        """The last lines of each daemon's log."""
        parts = []
        for path in sorted((self.folder / "log").glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-15:]
            parts.append("\n".join([f"--- {path.name}", *lines]))
        return "\n".join(parts)

    # --- starting and stopping -----------------------------------------------------------

    def start(self) -> None:
        """Bring everything up; `ClusterError` with the logs when it does not come."""
        for name in ("bin", "etc", "log", "run", "state", "spool", "munge"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            (self.folder / name).chmod(0o755)
        nodes = (*_CPU_NODES, _GPU_NODE)
        listening = ("controller", *nodes, *accounting.DAEMONS)
        self.ports = dict(zip(listening, _free_ports(len(listening)), strict=True))
        self._write_configuration()
        self._start_munge()
        if self.with_accounting:
            accounting.start(self)
        self.start_controller()
        for node in nodes:
            self.start_node(node)
        self.wait_for(
            "all nodes idle",
            _START_S,
            lambda: set(self.run("sinfo", "-hN", "-t", "idle", "-o", "%N").split()) >= set(nodes),
        )

    def start_controller(self) -> None:
        """slurmctld; it takes up the state of an earlier one."""
        self.spawn("slurmctld", "-D", "-f", self._conf)
        self.wait_for(
            "slurmctld answers",
            _START_S,
            lambda: "UP" in self.run("scontrol", "ping", check=False),
        )

    def start_node(self, node: str) -> None:
        """The slurmd of a node."""
        (self.folder / "spool" / node).mkdir(exist_ok=True)
        self.spawn("slurmd", "-D", "-N", node, "-f", self._conf, name=node)

    def kill(self, name: str, signal_number: int = signal.SIGKILL) -> None:
        """End one daemon: slurmctld, or a node by its name, with all that runs there."""
        process = self.processes.pop(name)
        if name in (*_CPU_NODES, _GPU_NODE):
            self._kill_jobs_of(name)
        process.send_signal(signal_number)
        process.wait(timeout=30)

    def _kill_jobs_of(self, node: str) -> None:
        """First what watches over each job, lest it tells that the job has failed."""
        pids = []
        for job in [job["id"] for job in self.jobs("running") if job["node"] == node]:
            for line in self.run("scontrol", "listpids", job, node, check=False).splitlines()[1:]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    pids.append(psutil.Process(int(line.split()[0])))
        parents = [pid.parent() for pid in pids]
        for one in (*filter(None, parents), *pids):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()

    def stop(self) -> None:
        """Cancel all jobs, end all daemons: nothing of this cluster is left running."""
        if "slurmctld" in self.processes:
            self.run("scancel", f"--user={self.user}", check=False)
            with contextlib.suppress(ClusterError):
                self.wait_for("no job left", 20, lambda: not self.jobs("running,completing"))
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    @property
    def _conf(self) -> str:
        return str(self.folder / "etc" / "slurm.conf")

    def spawn(self, program: str, *arguments: str, name: str | None = None) -> None:
        """Start a daemon as a child of this process."""
        executable = _find(program)
        assert executable is not None
        name = name or program
        with (self.folder / "log" / f"{name}.out").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                # Nobody is left behind when this process is killed.
                ["setpriv", "--pdeathsig", "TERM", executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "SLURM_CONF": self._conf},
            )

    def _start_munge(self) -> None:
        key = self.folder / "munge" / "munge.key"
        key.touch(mode=0o400)
        key.chmod(0o600)
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        places = {
            "--key-file": key,
            "--socket": self.munge_socket,
            "--pid-file": self.folder / "munge" / "munged.pid",
            "--seed-file": self.folder / "munge" / "munged.seed",
            "--log-file": self.folder / "log" / "munged.log",
        }
        options = [f"{option}={path}" for option, path in places.items()]
        self.spawn("munged", "--foreground", "--force", *options)
        self.wait_for("munged answers", _START_S, self.munge_socket.exists)

    @property
    def munge_socket(self) -> Path:
        """Where munged listens."""
        return self.folder / "munge" / "munge.sock"

    def _write_configuration(self) -> None:
        etc, user = self.folder / "etc", self.user
        text = (Path(__file__).with_name("slurm.conf.in")).read_text()
        nodes = "\n".join(
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={self.ports[node]} "
            f"CPUs=8 RealMemory=16000 State=UNKNOWN" + (" Gres=gpu:2" if node == _GPU_NODE else "")
            for node in (*_CPU_NODES, _GPU_NODE)
        )
        fields = {
            "folder": self.folder,
            "user": user,
            "port": self.ports["controller"],
            "munge_socket": self.munge_socket,
            "nodes": nodes,
        }
        settings = dict(self.settings)
        if self.with_accounting:
            settings = {
                **accounting.settings(self.ports["slurmdbd"], self.munge_socket),
                **settings,
            }
        lines = [
            line
            for line in text.format(**fields).splitlines()
            if line.split("=")[0] not in settings
        ]
        # Nodes and partitions come last: Slurm reads their lines in the light of those before.
        lines[1:1] = [f"{key}={value}" for key, value in settings.items()]
        (etc / "slurm.conf").write_text("\n".join(lines) + "\n")
        gres = [f"NodeName={_GPU_NODE} Name=gpu File={device}" for device in _DEVICES]
        (etc / "gres.conf").write_text("\n".join(gres) + "\n")
        (etc / "cgroup.conf").write_text("CgroupAutomount=no\n")
        for name in _CLIENTS:
            # A job's own srun finds the cluster too: Snakemake drops SLURM_* from its jobs.
            wrapper = self.folder / "bin" / name
            wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self._conf} exec {_find(name)} "$@"\n')
            wrapper.chmod(0o755)


@contextlib.contextmanager
def cluster(
    folder: Path, with_accounting: bool = False, settings: dict[str, str] | None = None
) -> Iterator[Cluster]:
    """A cluster in `folder`, up for as long as the block."""
    reason = why_not(with_accounting)
    if reason is not None:
        raise ClusterError(reason)
    lab = Cluster(folder.resolve(), with_accounting, settings or {})
    try:
        lab.start()
        yield lab
    finally:
        lab.stop()


def main(folder: str, *options: str) -> None:
    """Run a cluster until Ctrl-C."""
    with cluster(Path(folder), with_accounting="accounting" in options) as lab:
        print(f'export PATH={lab.folder / "bin"}:"$PATH"', flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main(*sys.argv[1:])
