"""Write requirements.lock and environment.yml from `pip freeze` on standard input.

Local version labels (`torch==2.13.0+cpu`) are dropped: who has a GPU installs the CUDA build
of the same version.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

LOCK_HEADER = """\
# Every package of the tests and the demo, pinned. Made by `make lock`; do not edit by hand.
"""
ENVIRONMENT_HEADER = """\
# The same pins for conda users: `conda env create -f environment.yml`.
# Made by `make lock`; a test keeps it equal to requirements.lock.
name: brainlm
channels:
  - conda-forge
dependencies:
  - python >=3.11,<3.13
  - pip
  - pip:
"""


def main() -> None:
    """Read the frozen list and write both files."""
    lines = [line.strip() for line in sys.stdin if line.strip()]
    matches = [re.fullmatch(r"([A-Za-z0-9._-]+)==([^+\s]+)(\+\S+)?", line) for line in lines]
    if not lines or None in matches:
        # As a package installed from a file or a folder: nobody else could install this lock.
        odd = lines[matches.index(None)] if lines else "nothing"
        sys.exit(f"Nothing was written: `pip freeze` said {odd!r}, which is no NAME==VERSION")
    pins = sorted(f"{match[1].lower().replace('_', '-')}=={match[2]}" for match in matches if match)
    (ROOT / "requirements.lock").write_text(LOCK_HEADER + "\n".join(pins) + "\n")
    environment = ENVIRONMENT_HEADER + "".join(f"      - {pin}\n" for pin in pins)
    (ROOT / "environment.yml").write_text(environment)
    print(f"{len(pins)} packages pinned")


if __name__ == "__main__":
    main()
