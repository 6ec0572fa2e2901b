"""A database of jobs and accounts for the cluster of the tests: MariaDB, and slurmdbd before it.

Both run in the cluster's own folder and listen on the loopback alone.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .slurm import Cluster

#: What accounting needs besides the cluster's own daemons.
PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db")
DAEMONS = ("mariadbd", "slurmdbd")
#: The accounts of the user who started the cluster; the first is the default one.
ACCOUNTS = ("neuro", "stats")
_START_S = 60.0


def settings(port: int, munge_socket: Path) -> dict[str, str]:
    """Lines of slurm.conf of a cluster that demands an account of every job."""
    return {
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageHost": "127.0.0.1",
        "AccountingStoragePort": str(port),
        "AccountingStoragePass": str(munge_socket),  # where slurmdbd's callers find munged
        "AccountingStorageEnforce": "associations",
        "AccountingStorageTRES": "gres/gpu",
        "AccountingStoreFlags": "job_comment",
        "JobAcctGatherFrequency": "1",
    }


def start(lab: Cluster) -> None:
    """Bring up MariaDB and slurmdbd, and register the cluster and its user's accounts."""
    password = secrets.token_hex(16)
    _start_database(lab, password)
    _start_slurmdbd(lab, password)
    user = lab.user
    for words in (
        ("cluster", "lab"),
        *(("account", name, f"Description={name}", "Organization=lab") for name in ACCOUNTS),
        # One after the other: the account of a user's first line is the default one.
        *(("user", user, f"Account={name}") for name in ACCOUNTS),
    ):
        # slurmdbd has made the administrator's own user; saying it again is no error.
        lab.run("sacctmgr", "--immediate", "add", *words, check=False)
    lab.run(
        "sacctmgr", "--immediate", "modify", "user", user, "set", f"DefaultAccount={ACCOUNTS[0]}"
    )


def _start_database(lab: Cluster, password: str) -> None:
    data, port = lab.folder / "mariadb", lab.ports["mariadbd"]
    install = shutil.which("mariadb-install-db")
    assert install is not None
    subprocess.run(
        [
            *(install, "--no-defaults", f"--datadir={data}", f"--user={lab.user}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db"),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    first = lab.folder / "etc" / "first.sql"
    first.touch(mode=0o600)
    first.write_text(
        f"CREATE USER slurm@'%' IDENTIFIED BY '{password}';\nGRANT ALL ON *.* TO slurm@'%';\n"
    )
    lab.spawn(
        "mariadbd",
        *("--no-defaults", f"--datadir={data}", f"--user={lab.user}", f"--port={port}"),
        *("--bind-address=127.0.0.1", f"--socket={data}/mariadb.sock", "--skip-name-resolve"),
        *(f"--pid-file={data}/mariadb.pid", f"--init-file={first}"),
        *("--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=0"),
    )
    lab.wait_for("MariaDB listens", _START_S, lambda: _listens(port))


def _start_slurmdbd(lab: Cluster, password: str) -> None:
    conf, port = lab.folder / "etc" / "slurmdbd.conf", lab.ports["slurmdbd"]
    lines = {
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={lab.munge_socket}",
        "DbdHost": "localhost",
        "DbdAddr": "127.0.0.1",
        "DbdPort": port,
        "SlurmUser": lab.user,
        "LogFile": lab.folder / "log" / "slurmdbd.log",
        "PidFile": lab.folder / "run" / "slurmdbd.pid",
        "StorageType": "accounting_storage/mysql",
        "StorageHost": "127.0.0.1",
        "StoragePort": lab.ports["mariadbd"],
        "StorageUser": "slurm",
        "StoragePass": password,
        "StorageLoc": "lab",
    }
    conf.touch(mode=0o600)
    conf.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
    lab.spawn("slurmdbd", "-D")
    lab.wait_for("slurmdbd listens", _START_S, lambda: _listens(port))


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
