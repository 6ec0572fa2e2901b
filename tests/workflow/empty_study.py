"""A recordings table of any size with empty raw files: for dry runs at scale, nothing else."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from brainlm.config import Config, Target, to_commented_yaml
from brainlm.recordings import COLUMNS


def make_study(folder: Path, n_recordings: int, kind: str | None = None) -> None:
    """Write a study of `n_recordings` one-run subjects whose raw files are empty.

    With a `kind` (volume, dense, parcels) another pipeline has preprocessed them.
    """
    rows = []
    for number in range(n_recordings):
        subject = f"{number:06d}"
        bold = f"sub-{subject}/func/sub-{subject}_task-rest_bold.nii.gz"
        t1w = f"sub-{subject}/anat/sub-{subject}_T1w.nii.gz"
        for name in (bold, t1w):
            path = folder / "bids" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        rows.append(
            {
                "recording_id": f"sub-{subject}_task-rest",
                "subject": subject,
                "task": "rest",
                "dataset": "scale",
                "bold": bold,
                "bold_sha256": f"{number:064x}",
                "t1w": t1w,
                "anat_id": f"sub-{subject}",
                "t1w_sha256": f"{number:064x}",
                "n_volumes": 490,
                "tr": 0.735,
                "shape": "[88, 88, 64]",
                "zooms": "[2.4, 2.4, 2.4]",
                "eligible": True,
            }
        )
        if kind is not None:
            rows[-1] |= {
                "layout": "xcpd",
                "kind": kind,
                "ready": json.dumps({"series": bold, "motion": t1w}),
                "ready_sha256": json.dumps({"series": "0", "motion": "1"}),
                "ready_about": json.dumps({"by": {}, "cleaned": True, "space": None}),
                "t1w": None,
                "anat_id": None,
            }
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS)).astype(COLUMNS)
    table = table.assign(label_age=40.0, label_bdi_total=9.0, label_sex="F")
    (folder / "onboarding").mkdir(parents=True, exist_ok=True)
    table.to_parquet(folder / "onboarding" / "recordings.parquet", index=False)
    (folder / "config").mkdir(exist_ok=True)
    engine = "native" if kind is None else "derivatives"
    config = Config(finetune={"targets": (Target(name="age"),)}, engine=engine)
    (folder / "config" / "config.yaml").write_text(to_commented_yaml(config))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("n_recordings", type=int)
    arguments = parser.parse_args()
    make_study(arguments.folder, arguments.n_recordings)
