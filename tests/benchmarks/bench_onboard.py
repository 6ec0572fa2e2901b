"""Indexing and checking a BIDS dataset: `python -m tests.benchmarks.bench_onboard [RUNS]`.

The tree is generated: subjects with a T1w and four runs of 200 KB each, every image with a sidecar
of its own below one for the whole task. Onboarding (`--hash fast`) finds the runs, reads headers,
sidecars and both ends of each file, checks them and writes the recordings table. Beside it, on a
smaller tree, pybids (`make pybids-env`): its index and the metadata of each run, without and with
the header of each run by nibabel. CPU seconds that each process counts from after its imports on.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

from .used import measure

ROOT = Path(__file__).parents[2]
PYBIDS = ROOT / ".venv-pybids"
RUNS, RUNS_BESIDE_PYBIDS = 20_000, 1_000
RUNS_OF_A_SUBJECT, LINKS = 4, 5_000
TR, VOLUMES = 0.8, 100

OURS = """
import sys, time
from pathlib import Path
import pandas, pyarrow.parquet, nibabel
from brainlm.bids.dataset import read_dataset, table_bytes
from brainlm.bids.table import Limits
start = time.process_time()
if len(sys.argv) > 1:
    table, _ = read_dataset(
        Path(sys.argv[1]),
        Limits(min_volumes=50, tr_min=0.3, tr_max=5),
        full=False,
        threads=2,
        progress=lambda items, what, total: iter(items),
    )
    assert table["eligible"].all() and table["tr"].eq(0.8).all()
    table_bytes(table)
    assert len(table)
print("CPU", time.process_time() - start)
"""
THEIRS = """
import sys, time
import bids, nibabel
from bids import BIDSLayout
start = time.process_time()
if len(sys.argv) > 1:
    layout = BIDSLayout(sys.argv[1])
    runs = layout.get(suffix="bold", extension=".nii.gz")
    for run in runs:
        assert run.get_metadata()["RepetitionTime"] == 0.8
        if len(sys.argv) > 2:
            header = nibabel.load(run.path).header
            assert header.get_zooms()[3] and header.get_data_shape()[3]
    assert runs
print("CPU", time.process_time() - start)
"""


def main(runs: int = RUNS) -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        print(f"onboarding {runs:,} runs, --hash fast")
        write_tree(place / "large", runs)
        cpu, peak = _run(place, OURS, str(place / "large"))
        print(f"  {cpu:.1f} CPU s; memory: {peak:.0f} MB, {_run(place, OURS)[1]:.0f} of imports")
        if not PYBIDS.is_dir():
            print("pybids is not here: make pybids-env")
            return
        write_tree(place / "small", RUNS_BESIDE_PYBIDS)
        print(f"beside pybids, {RUNS_BESIDE_PYBIDS:,} runs     CPU s   beside ours")
        small = str(place / "small")
        ours = _run(place, OURS, small)[0]
        print(f"  brainlm, index and checks    {ours:6.2f}")
        for what, more in (("index and metadata", ()), ("and headers", ("facts",))):
            theirs = _run(place, THEIRS, small, *more)[0]
            print(f"  pybids, {what:20s} {theirs:6.2f}   {theirs / ours:.1f}")


def _run(folder: Path, code: str, *arguments: str) -> tuple[float, float]:
    """CPU seconds after the imports, and the peak of memory in MB."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(PYBIDS)])
    used = measure([sys.executable, "-c", code, *arguments], folder)
    return float(used.text.rpartition("CPU ")[2]), used.peak_mb


def write_tree(root: Path, runs: int) -> None:
    """A BIDS dataset of so many runs; the images are links to a few files."""
    pool = root.parent / "images"
    pool.mkdir(exist_ok=True)
    root.mkdir()
    (root / "dataset_description.json").write_text('{"Name": "Tree", "BIDSVersion": "1.10.0"}')
    (root / "task-rest_bold.json").write_text(json.dumps({"RepetitionTime": TR, "EchoTime": 0.03}))
    subjects = -(-runs // RUNS_OF_A_SUBJECT)
    rows = "".join(f"sub-{number:05d}\t{20 + number % 60}\n" for number in range(subjects))
    (root / "participants.tsv").write_text("participant_id\tage\n" + rows)
    for number in range(subjects):
        subject = root / f"sub-{number:05d}"
        (subject / "anat").mkdir(parents=True)
        (subject / "func").mkdir()
        name = f"{subject.name}_T1w"
        os.link(_image(pool, "T1w", number), subject / "anat" / f"{name}.nii.gz")
        (subject / "anat" / f"{name}.json").write_text('{"EchoTime": 0.003}')
        for run in range(min(RUNS_OF_A_SUBJECT, runs - number * RUNS_OF_A_SUBJECT)):
            name = f"{subject.name}_task-rest_run-{run + 1}_bold"
            os.link(_image(pool, "bold", 4 * number + run), subject / "func" / f"{name}.nii.gz")
            (subject / "func" / f"{name}.json").write_text(json.dumps(SIDECAR))


#: About what a converter writes.
SIDECAR = {
    "Manufacturer": "Siemens",
    "MagneticFieldStrength": 3,
    "FlipAngle": 52,
    "EffectiveEchoSpacing": 0.00058,
    "TotalReadoutTime": 0.05,
    "PhaseEncodingDirection": "j-",
    "SliceTiming": [round(TR / 10 * number, 4) for number in range(10)],
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "MB", "ND", "MOSAIC"],
    "ProtocolName": "rest",
}


def _image(pool: Path, kind: str, number: int) -> Path:
    """An image of 200 KB; file systems limit how many names one file may have."""
    path = pool / f"{kind}-{number // LINKS}.nii.gz"
    if not path.exists():
        shape = (12, 10, 10, VOLUMES) if kind == "bold" else (50, 50, 50)
        data = np.random.default_rng(0).integers(0, 4000, shape).astype(np.int16)
        image = nib.Nifti1Image(data, np.diag([3.0, 3, 3, 1]))
        image.header.set_xyzt_units("mm", "sec")
        if kind == "bold":
            image.header.set_zooms((3, 3, 3, TR))
        nib.save(image, path)
    return path


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
