"""The phantom as a dataset: valid BIDS, reproducible, complete or not there, broken on demand."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from brainlm.cli.phantom import Corruption
from brainlm.errors import DataError
from brainlm.geometry import params_from_pose, read_itk_affines
from brainlm.images import read_image
from brainlm.phantom.anatomy import BRAIN_CENTER
from brainlm.phantom.parameters import CORRUPTIONS, TRUTH
from brainlm.series import read_bold

SMALL = ("--subjects", 3, "--volumes", 24, "--voxel-mm", 12, "--t1w-mm", 8)
SOLO = ("--subjects", 1, "--volumes", 12, "--voxel-mm", 12, "--t1w-mm", 12, "--threads", 1)


def phantom(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "brainlm", "phantom", *(str(part) for part in arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def digests(folder: Path, pattern: str = "**/*") -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "clean"
    done = phantom(folder, *SMALL, "--threads", 1)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every corruption at once, made by two processes."""
    folder = tmp_path_factory.mktemp("phantom") / "broken"
    kinds = [part for kind in CORRUPTIONS for part in ("--corrupt", kind)]
    done = phantom(folder, *SMALL, *kinds, "--threads", 2)
    assert done.returncode == 0, done.stderr
    return folder


def bold_of(folder: Path, kind: str, number: int = -1) -> Path:
    """The BOLD file that `kind` broke."""
    fault = json.loads((folder / TRUTH / "phantom.json").read_text())["corrupted"][kind]
    return folder / fault["subject"] / "func" / f"{fault['recordings'][number]}_bold.nii.gz"


def sidecar(bold: Path) -> dict:
    return json.loads(bold.with_name(bold.name.replace(".nii.gz", ".json")).read_text())


def test_the_dataset_is_valid_bids(clean: Path) -> None:
    validator = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    done = subprocess.run(
        [validator, str(clean), "--format", "json"], capture_output=True, text=True, check=False
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert done.returncode == 0
    assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_every_scan_and_its_truth_are_there(clean: Path) -> None:
    bolds = sorted(clean.glob("sub-*/**/*_bold.nii.gz"))
    assert [path.name for path in bolds] == [
        "sub-01_task-rest_bold.nii.gz",
        "sub-02_task-rest_run-1_bold.nii.gz",
        "sub-02_task-rest_run-2_bold.nii.gz",
        "sub-03_ses-1_task-rest_bold.nii.gz",
        "sub-03_ses-2_task-rest_bold.nii.gz",
    ]
    assert len(list(clean.glob("sub-*/**/*_T1w.nii.gz"))) == 4
    names = list(pd.read_csv(Path("atlases") / "A424" / "parcels.tsv", sep="\t")["name"])
    for bold in bolds:
        image = nib.load(bold)
        assert image.get_data_dtype() == np.int16
        assert image.header.get_zooms()[3] == 2.0
        assert sidecar(bold)["RepetitionTime"] == 2.0
        assert len(sidecar(bold)["SliceTiming"]) == image.shape[2]
        truth = clean / TRUTH / bold.parent.relative_to(clean) / bold.name.split("_bold")[0]
        motion = pd.read_csv(f"{truth}_desc-truth_motion.tsv", sep="\t", na_values="n/a")
        series = pd.read_parquet(f"{truth}_desc-truth_timeseries.parquet")
        artefacts = pd.read_csv(f"{truth}_desc-truth_artefacts.tsv", sep="\t")
        assert len(motion) == len(series) == len(artefacts) == image.shape[3] == 24
        assert not motion.iloc[0, :6].any()
        assert list(series.columns) == names
        assert (series.dtypes == np.float32).all()
        [since_t1w] = read_itk_affines(f"{truth}_from-boldref_to-T1w_mode-image_desc-truth_xfm.txt")
        moved = params_from_pose(since_t1w, BRAIN_CENTER)
        assert 0 < np.abs(moved[:3]).max() <= 1
        assert 0 < np.rad2deg(np.abs(moved[3:])).max() <= 1


def test_sites_store_their_grids_differently(clean: Path) -> None:
    affines = [nib.load(path).affine for path in sorted(clean.glob("sub-0[12]/**/*bold.nii.gz"))]
    assert nib.aff2axcodes(affines[0]) == ("R", "A", "S")
    assert nib.aff2axcodes(affines[1]) == ("L", "A", "S")


def test_sessions_of_a_subject_share_the_brain_but_not_its_place(clean: Path) -> None:
    fields = [
        read_image(path).data for path in sorted(clean.glob(f"{TRUTH}/sub-03/**/*_xfm.nii.gz"))
    ]
    assert fields[0].shape == (50, 59, 48, 3)
    between = fields[1] - fields[0]
    # A rigid movement of the scanner's world: affine in the place, unlike the deformation.
    where = np.stack([*(g.ravel() for g in np.indices(fields[0].shape[:3])), np.ones(141600)], 1)
    for field, rigid in ((between, True), (fields[0], False)):
        values = field.reshape(-1, 3)
        fit = where @ np.linalg.lstsq(where, values, rcond=None)[0]
        residual = np.abs(values - fit).max()
        assert (residual < 1.0) == rigid
    assert np.abs(between).max() > 0.5


def test_bytes_depend_on_neither_workers_nor_the_broken_subjects(clean: Path, broken: Path) -> None:
    """`clean` was made by one process, `broken` by two, with ten subjects more."""
    healthy, beside = digests(clean), digests(broken)
    scans = [name for name in healthy if "sub-0" in name]
    assert len(scans) > 40
    assert {name: beside[name] for name in scans} == {name: healthy[name] for name in scans}


def test_another_seed_gives_another_dataset_and_a_killed_one_is_made_anew(
    tmp_path: Path,
) -> None:
    whole, copy = tmp_path / "whole", tmp_path / "copy"
    assert phantom(whole, *SOLO).returncode == 0
    shutil.copytree(whole, copy)
    # As if killed: no mark of completeness, a scan missing, a half-written one left.
    (copy / TRUTH / "phantom.json").unlink()
    (copy / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz").unlink()
    (copy / "sub-01" / "func" / ".tmp-node-999999-sub-01_task-rest_bold.nii.gz").write_bytes(b"x")
    assert phantom(copy, *SOLO).returncode == 0
    assert digests(copy) == digests(whole)
    refused = phantom(copy, *SOLO, "--seed", 2)
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert digests(copy) == digests(whole)
    assert phantom(copy, *SOLO, "--seed", 2, "--force").returncode == 0
    images = "sub-*/**/*.nii.gz"
    assert digests(copy, images).keys() == digests(whole, images).keys()
    assert not set(digests(copy, images).values()) & set(digests(whole, images).values())


def test_a_complete_dataset_is_left_alone(clean: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in clean.glob("**/*")}
    done = phantom(clean, *SMALL)
    assert done.returncode == 0
    assert "already" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in clean.glob("**/*")} == before


def test_other_data_are_never_touched(tmp_path: Path) -> None:
    (tmp_path / "sub-01").mkdir()
    (tmp_path / "sub-01" / "precious.txt").write_text("ours")
    done = phantom(tmp_path, *SMALL, "--force")
    assert done.returncode == 2
    assert digests(tmp_path).keys() == {"sub-01/precious.txt"}


# --- the known kinds of bad data ----------------------------------------------------------------


def test_the_command_offers_every_corruption_and_tells_of_it() -> None:
    assert [kind.value for kind in Corruption] == list(CORRUPTIONS)
    told = phantom("--help").stdout
    assert all(told.count(kind) >= 2 for kind in CORRUPTIONS)


def test_missing_tr(broken: Path) -> None:
    bold = bold_of(broken, "missing-tr")
    assert "RepetitionTime" not in sidecar(bold)
    assert nib.load(bold).header["pixdim"][4] == 0


def test_tr_in_ms(broken: Path) -> None:
    bold = bold_of(broken, "tr-in-ms")
    assert sidecar(bold)["RepetitionTime"] == 2000
    assert nib.load(bold).header.get_zooms()[3] == 2


def test_truncated_gz(broken: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_bold(bold_of(broken, "truncated-gz"))


def test_nan_volumes(broken: Path) -> None:
    with pytest.raises(DataError, match="3 of 24 volumes hold NaN"):
        read_bold(bold_of(broken, "nan-volumes"))


def test_wrong_affine(broken: Path) -> None:
    header = nib.load(bold_of(broken, "wrong-affine")).header
    assert header.get_sform()[0, 3] > 100
    assert header.get_sform() == pytest.approx(header.get_qform())


def laterality(root: Path, bold: Path) -> float:
    """How well right minus left in the image follows right minus left in the truth."""
    name = bold.name.split("_bold")[0]
    truth = root / TRUTH / bold.parent.relative_to(root) / f"{name}_desc-truth_timeseries.parquet"
    series = pd.read_parquet(truth).to_numpy()
    place = pd.read_csv(Path("atlases") / "A424" / "parcels.tsv", sep="\t")["x"].to_numpy()
    image = read_bold(bold)
    x = image.affine[0, 0] * np.arange(image.data.shape[0]) + image.affine[0, 3]
    seen = {side: image.data[side * x > 25].mean(axis=(0, 1, 2)) for side in (1, -1)}
    difference = seen[1] / seen[1].mean() - seen[-1] / seen[-1].mean()
    true = series[:, place > 35].mean(axis=1) - series[:, place < -35].mean(axis=1)
    return float(np.corrcoef(difference, true)[0, 1])


def test_flipped_left_right(tmp_path: Path) -> None:
    """In a quiet scan, the right side of the image follows the left parcels."""
    quiet = ("--noise", 0, "--motion-mm", 0, "--no-artefacts", "--corrupt", "flipped-left-right")
    small = ("--subjects", 1, "--volumes", 30, "--voxel-mm", 9, "--t1w-mm", 12, "--threads", 1)
    assert phantom(tmp_path, *small, *quiet).returncode == 0
    assert laterality(tmp_path, tmp_path / "sub-01/func/sub-01_task-rest_bold.nii.gz") > 0.6
    assert laterality(tmp_path, bold_of(tmp_path, "flipped-left-right")) < -0.6


def test_too_short(broken: Path) -> None:
    assert nib.load(bold_of(broken, "too-short")).shape[3] == 20


def test_duplicate_id(broken: Path) -> None:
    bold = bold_of(broken, "duplicate-id")
    table = pd.read_csv(broken / "participants.tsv", sep="\t")
    rows = table[table["participant_id"] == bold.name.split("_")[0]]
    assert len(rows) == 2
    assert rows["age"].diff().iloc[1] == pytest.approx(10)
    assert table["participant_id"].duplicated().sum() == 1
    assert (read_bold(bold.with_suffix("")).data == read_bold(bold).data).all()


def test_empty_t1w(broken: Path) -> None:
    func = bold_of(broken, "empty-t1w").parent
    [t1w] = func.with_name("anat").glob("*_T1w.nii.gz")
    assert t1w.stat().st_size == 0


def test_uneven_runs(broken: Path) -> None:
    first, second = (nib.load(bold_of(broken, "uneven-runs", k)) for k in (0, 1))
    assert (first.shape[3], second.shape[3]) == (24, 36)
    assert (first.header.get_zooms()[3], second.header.get_zooms()[3]) == (2.0, 2.5)


def test_whatever_is_not_named_is_whole(broken: Path) -> None:
    """Each fault breaks its own subject, and in it only what it says."""
    kinds = json.loads((broken / TRUTH / "phantom.json").read_text())["corrupted"]
    assert len({fault["subject"] for fault in kinds.values()}) == len(CORRUPTIONS)
    unreadable = []
    for path in sorted(broken.glob("sub-*/**/*.nii.gz")):
        try:
            read_image(path)
        except DataError:
            unreadable.append(path.name)
    assert unreadable == sorted(
        [
            bold_of(broken, "truncated-gz").name,
            f"{kinds['empty-t1w']['subject']}_T1w.nii.gz",
        ]
    )
