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
    pins = []
    for line in sys.stdin:
        match = re.match(r"^([A-Za-z0-9._-]+)==([^+\s]+)", line)
        if match:
            pins.append(f"{match[1].lower().replace('_', '-')}=={match[2]}")
    pins.sort()
    (ROOT / "requirements.lock").write_text(LOCK_HEADER + "\n".join(pins) + "\n")
    environment = ENVIRONMENT_HEADER + "".join(f"      - {pin}\n" for pin in pins)
    (ROOT / "environment.yml").write_text(environment)
    print(f"{len(pins)} packages pinned")


if __name__ == "__main__":
    main()
