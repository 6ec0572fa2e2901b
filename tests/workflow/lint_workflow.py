"""Run `snakemake --lint` on the workflow, which needs a study to parse."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from brainlm.resources import share_dir

if __name__ == "__main__":
    sys.path.insert(0, str(share_dir()))
    from tests.workflow.empty_study import make_study

    failed = 0
    for kind, settings in (
        (None, []),
        (None, ["resample={output: parcels}"]),
        (None, ["engine=fmriprep", "space={template: MNI152NLin6Asym}"]),
        ("volume", []),
        ("parcels", []),
    ):
        with tempfile.TemporaryDirectory() as folder:
            make_study(Path(folder), 2, kind)
            snakefile = share_dir() / "Snakefile"
            command = [sys.executable, "-m", "snakemake", "--lint", "--snakefile", str(snakefile)]
            config = ["--config", *settings] if settings else []
            failed |= subprocess.run([*command, *config], cwd=folder, check=False).returncode
    sys.exit(failed)
