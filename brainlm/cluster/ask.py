"""Asking one of Slurm's commands, within a time limit.

A command that is missing, fails or does not answer is an answer too: sites differ in what they let
a user ask. Jobs that train ask in this way, so nothing but the standard library is needed.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

#: Slurm's commands themselves give up on a controller that is away after some tens of seconds.
TIMEOUT_S = 60.0
#: How the comment begins of each job that Snakemake's executor submits, by the name of its rule.
OF_A_RULE = "rule_"


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    ok: bool
    text: str
    error: str  # in one line; never empty where it is not ok
    installed: bool = True


def answer(*command: str, timeout: float = TIMEOUT_S) -> Answer:
    """Ask one of Slurm's commands; it may be missing, fail, or hang."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        return Answer(False, "", f"{command[0]} is not installed", installed=False)
    except OSError as error:
        return Answer(False, "", f"{command[0]} cannot be started: {error.strerror}")
    except subprocess.TimeoutExpired:
        return Answer(False, "", f"{command[0]} did not answer within {timeout:g} s")
    said = " ".join(done.stderr.split())
    if done.returncode:
        said = said or " ".join(done.stdout.split())
        said = said or f"{command[0]} ended with exit code {done.returncode}"
    return Answer(done.returncode == 0, done.stdout, said)
