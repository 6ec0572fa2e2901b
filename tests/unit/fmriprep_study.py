"""A study for the fMRIPrep engine: empty raw files, a stand-in engine, full caches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

from brainlm.fmriprep.caches import files_of, templates_of
from brainlm.provenance import sha256_file
from brainlm.recordings import COLUMNS, anat_id_of

LICENSE = "someone@example.org\n12345\n *Cabcdefghijkl\n FSabcdefghijkl\n"
ENGINE = Path(__file__).with_name("fake_engine.py")
RECORDINGS = ("sub-01_task-rest_run-1", "sub-01_task-rest_run-2", "sub-02_task-rest")


def make_study(
    root: Path,
    recordings: tuple[str, ...] = RECORDINGS,
    *,
    config: str = "",
    ineligible: tuple[str, ...] = (),
    t1w: bool = True,
) -> Path:
    """The study folder; its raw data lie in `root/bids data`, with a blank in the name."""
    bids, study = root / "bids data", root / "study one"
    rows = []
    for name in (*recordings, *ineligible):
        parts = dict(part.split("-", 1) for part in name.split("_"))
        folder = f"sub-{parts['sub']}" + (f"/ses-{parts['ses']}" if "ses" in parts else "")
        image = f"{folder}/anat/{folder.replace('/', '_')}_T1w.nii.gz"
        row: dict[str, object] = dict.fromkeys(COLUMNS)
        row |= {
            "recording_id": name,
            "subject": parts["sub"],
            "session": parts.get("ses"),
            "task": parts["task"],
            "bold": f"{folder}/func/{name}_bold.nii.gz",
            "n_volumes": 300,
            "tr": 2.0,
            "eligible": name not in ineligible,
        }
        for path in (row["bold"], image):
            (bids / str(path)).parent.mkdir(parents=True, exist_ok=True)
            (bids / str(path)).write_text(str(path))
        row["bold_sha256"] = sha256_file(bids / str(row["bold"]))
        if t1w:
            row |= {"t1w": image, "anat_id": anat_id_of(image)}
            row["t1w_sha256"] = sha256_file(bids / image)
        rows.append(row)
    (study / "config").mkdir(parents=True)
    (study / "onboarding").mkdir()
    text = f"bids_dir: ../bids data\ncontainers: {{work_dir: ../tmp}}\n{config}"
    (study / "config/config.yaml").write_text(text)
    table = pd.DataFrame(rows)[list(COLUMNS)].astype(COLUMNS)
    table.to_parquet(study / "onboarding/recordings.parquet")
    return study


def install_engine(root: Path, *names: str) -> Path:
    """A folder with the stand-in under these names, to be put on PATH."""
    folder = root / "bin"
    folder.mkdir(exist_ok=True)
    for name in names:
        script = folder / name
        # -S: without site-packages it starts in a fifth of the time.
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{ENGINE}" {name} "$@"\n')
        script.chmod(0o755)
    return folder


def fill_templates(home: Path, spaces: tuple[str, ...] = (), freesurfer: bool = False) -> Path:
    """A cache of templates that looks full."""
    for template in templates_of(spaces, freesurfer):
        for name in files_of(template):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text("x")
    return home


def make_machine(root: Path, *engines: str) -> dict[str, str]:
    """An environment in which a job finds all that it needs, and no engine but these."""
    license_file = root / "license.txt"
    license_file.write_text(LICENSE)
    (root / "image.sif").write_text("image")
    for name in ("tmp", "cache"):
        (root / name).mkdir(exist_ok=True)
    return {
        "PATH": f"{install_engine(root, *engines)}:/usr/bin:/bin",
        "HOME": str(root),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "FS_LICENSE": str(license_file),
        "TEMPLATEFLOW_HOME": str(fill_templates(root / "templateflow")),
        "BRAINLM_CACHE": str(root / "cache"),
        "FAKE_RECORD": str(root / "record.jsonl"),
    }


def start(study: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """Start the verb in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "brainlm", "fmriprep", *arguments, "--study", str(study)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def recorded(environment: dict[str, str]) -> list[list[str]]:
    """The commands that the stand-ins were given, the program's name first."""
    path = Path(environment["FAKE_RECORD"])
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
