"""Print what brainlm requires, and what the extras named on the command line add.

The images install this before brainlm's own code, so that a changed line of it does not mean
downloading everything anew. Only the standard library: it runs before anything is installed.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def main(extras: list[str]) -> None:
    """One requirement on each line; which version of it, the lock file says."""
    path = Path(__file__).resolve().parents[1] / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    if unknown := sorted(set(extras) - set(optional)):
        sys.exit(f"pyproject.toml has no extra called {', '.join(unknown)}")
    for wanted in (project["dependencies"], *(optional[extra] for extra in extras)):
        print("\n".join(wanted))


if __name__ == "__main__":
    main([extra for extra in sys.argv[1].split(",") if extra])
