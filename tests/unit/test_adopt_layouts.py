"""The whole way from what XCP-D, HCP, UK Biobank or a table left to parcel series."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from nibabel.cifti2 import BrainModelAxis, Cifti2Header, Cifti2Image, LabelAxis, SeriesAxis

from brainlm.atlas.table import load_table
from brainlm.bids.ready.choice import Wanted
from brainlm.bids.ready.xcpd import find_runs as xcpd_runs
from brainlm.cli.adopt import adopt
from brainlm.cli.adopt_parcels import adopt_parcels
from brainlm.cli.adopt_to_parcels import adopt_to_parcels
from brainlm.cli.denoise import denoise
from brainlm.cli.ica import ica
from brainlm.cli.onboard import Engine, onboard
from brainlm.cli.parcellate import parcellate
from brainlm.cli.prepare_atlas import prepare_atlas
from brainlm.cli.qc_figure import qc_figure
from brainlm.config import load_config
from brainlm.denoise.scrub import in_the_raw_run
from brainlm.errors import DataError, InputError
from brainlm.images import write_image
from brainlm.layout import Study, folder_of
from brainlm.provenance import read_sidecar
from brainlm.recordings import read_table

from . import synthetic_ready as ready

BASE = [
    f"space.resolution_mm={ready.ZOOM}",
    "eligibility.min_volumes=40",
    "denoise.high_pass_s=60",
]
VOLUMES = [*BASE, f"space.template={ready.SPACE}", "atlas.name=A424approx"]
NAMES = load_table()["name"].tolist()


class Taken:
    """A study of derivatives, and its files."""

    def __init__(self, dataset: Path, *settings: str):
        root = dataset.parent / "study"
        onboard(dataset, root, settings=list(settings), engine=Engine.derivatives)
        self.study = Study(root)
        self.table = read_table(self.study.path("recordings")).set_index("recording_id")
        self.config = load_config(self.study.path("config"))

    def path(self, kind: str, recording: str) -> Path:
        names = {"recording": recording, "folder": folder_of(recording)}
        return self.study.path(kind, **self.config.labels, **names)

    def series(self, recording: str) -> pd.DataFrame:
        return pd.read_parquet(self.path("timeseries", recording))

    def about(self, kind: str, recording: str) -> dict:
        return read_sidecar(self.path(kind, recording))

    def motion(self, recording: str) -> pd.DataFrame:
        return pd.read_csv(self.path("motion", recording), sep="\t", na_values="n/a")


# --- XCP-D -----------------------------------------------------------------------------------

XCPD = "sub-01_task-rest"
CENSORED = [3, 4, 30]


def xcpd(root: Path, *, filled: bool, recording: str = XCPD) -> Path:
    """XCP-D's output of one run: three volumes censored, or filled."""
    ready.describe(root, "XCP-D", "0.10.7")
    brain = ready.template()
    data = ready.series_of(brain) * brain.data[..., None]
    kept = [n for n in range(ready.COUNT) if filled or n not in CENSORED]
    path = ready.write_run(root, recording, image=(data[..., kept], brain.affine), desc="denoised")
    path.with_name(path.name.replace("denoised", "denoisedSmoothed")).touch()
    folder = path.parent
    for mask in folder.glob("*desc-brain_mask*"):
        mask.unlink()  # XCP-D writes none
    ready.write_table(folder / f"{recording}_motion.tsv", ready.motion())
    outliers = np.isin(np.arange(ready.COUNT), CENSORED).astype(int)
    ready.write_table(
        folder / f"{recording}_outliers.tsv", pd.DataFrame({"framewise_displacement": outliers})
    )
    return root


@pytest.mark.parametrize("filled", [False, True], ids=["linc", "abcd"])
def test_denoised_volumes_of_xcpd_are_passed_on(tmp_path: Path, filled: bool) -> None:
    taken = Taken(xcpd(tmp_path / "xcpd", filled=filled), *VOLUMES, "motion.fd_radius_mm=80")
    assert taken.config.denoise.method == "fix"
    assert taken.table.loc[XCPD, "eligible"], taken.table.loc[XCPD, "reason"]
    root, count = taken.study.root, ready.COUNT - (0 if filled else len(CENSORED))
    assert taken.table.loc[XCPD, "n_volumes"] == count
    prepare_atlas(root)
    for stage in (adopt, denoise, parcellate):
        stage(XCPD, root)
    assert len(taken.series(XCPD)) == count
    assert len(taken.motion(XCPD)) == ready.COUNT
    moved = np.abs(np.diff(ready.motion().iloc[:, :6], axis=0)) @ [1, 1, 1, 80, 80, 80]
    np.testing.assert_allclose(taken.motion(XCPD)["framewise_displacement"][1:], moved, atol=1e-6)
    table = pd.read_csv(taken.path("confounds", XCPD), sep="\t", na_values="n/a")
    rows = [n for n in range(ready.COUNT) if filled or n not in CENSORED]
    change = ready.motion()["trans_x"].diff()[rows]
    np.testing.assert_allclose(table["trans_x_derivative1"], change, atol=1e-6)
    np.testing.assert_allclose(table["trans_x_derivative1_power2"], change**2, atol=1e-6)
    about = taken.about("timeseries", XCPD)
    assert about["CensoredVolumes"] == CENSORED
    assert about["Scrubbing"] == ("mark" if filled else "censor")
    assert ("KeptVolumes" in about) is not filled
    assert taken.about("denoised_bold", XCPD)["Denoising"] == "fix: passed on as given"
    assert taken.about("preproc_bold", XCPD)["ProcessedBy"]["denoising"] == "XCP-D 0.10.7"
    before = nib.load(taken.path("preproc_bold", XCPD)).get_fdata()
    np.testing.assert_array_equal(nib.load(taken.path("denoised_bold", XCPD)).get_fdata(), before)
    qc_figure([XCPD], root)
    assert taken.about("qc_figure", XCPD)["MeanFramewiseDisplacement"] > 0


def test_motion_as_estimated_goes_before_filtered(tmp_path: Path) -> None:
    """Of the filtered parameters FD is smaller, and the rule on mean FD would let more pass."""
    root = xcpd(tmp_path / "xcpd", filled=True)
    plain = root / f"sub-01/func/{XCPD}_motion.tsv"
    filtered = plain.with_name(f"{XCPD}_desc-filtered_motion.tsv")
    filtered.write_text(plain.read_text())
    wanted = Wanted(ready.SPACE, ready.ZOOM)
    (run,) = xcpd_runs(root, wanted, "volume", "A424")
    assert run.files["motion"].endswith(plain.name) and not run.notes
    plain.unlink()
    (run,) = xcpd_runs(root, wanted, "volume", "A424")
    assert run.files["motion"].endswith(filtered.name)
    assert run.notes == ("motion parameters are filtered: the head's true FD is larger",)


# --- fMRIPost-AROMA --------------------------------------------------------------------------


def test_what_fmripost_aroma_denoised_is_passed_on_without_mask_and_confounds(
    tmp_path: Path,
) -> None:
    """The names are those of its own list of outputs; masks and motion stay with fMRIPrep's."""
    root = tmp_path / "aroma"
    ready.describe(root, "fMRIPost-AROMA", "0.0.12")
    brain = ready.template()
    data = ready.series_of(brain) * brain.data[..., None]
    for desc in ("aggrDenoised", "nonaggrDenoised", "orthaggrDenoised"):
        kept = ready.write_run(root, XCPD, image=(data, brain.affine), desc=desc)
    next(kept.parent.glob("*desc-brain_mask*")).unlink()
    for name in ("desc-aroma_metrics", "desc-aroma_timeseries", "desc-melodic_mixing"):
        (kept.parent / f"{XCPD}_{name}.tsv").write_text("0\n")
    taken = Taken(root, *VOLUMES)
    assert taken.table.loc[XCPD, "eligible"], taken.table.loc[XCPD, "reason"]
    assert taken.config.denoise.method == "fix"
    prepare_atlas(taken.study.root)
    for stage in (adopt, denoise, parcellate):
        stage(XCPD, taken.study.root)
    found = nib.load(taken.path("denoised_bold", XCPD)).get_fdata()
    np.testing.assert_array_equal(found, data)
    assert taken.series(XCPD).notna().to_numpy().all()
    about = taken.about("preproc_bold", XCPD)["ProcessedBy"]
    assert about["denoising"] == "fMRIPost-AROMA 0.0.12"


# --- chains of XCP-D -------------------------------------------------------------------------


def test_a_chain_of_runs_is_left_out(tmp_path: Path) -> None:
    """XCP-D's --combine-runs writes the volumes of all runs once more."""
    root = tmp_path / "xcpd"
    for name in ("task-rest_dir-AP_run-1", "task-rest_dir-PA_run-2", "task-rest", "task-nback"):
        xcpd(root, filled=True, recording=f"sub-01_{name}")
    table = Taken(root, *VOLUMES).table
    assert list(table.index[~table["eligible"]]) == [XCPD]
    parts = [f"{XCPD}_dir-AP_run-1", f"{XCPD}_dir-PA_run-2"]
    assert table.loc[XCPD, "reason"] == f"a chain of {parts[0]} and {parts[1]}"


@pytest.mark.parametrize("scrub", ["censor", "mark"])
def test_scrubbing_of_a_censored_series_counts_in_the_raw_run(tmp_path: Path, scrub: str) -> None:
    root = xcpd(tmp_path / "xcpd", filled=False)
    motion = ready.motion()
    motion.loc[10:, "trans_x"] += 3  # volume 10 of the raw run is the eighth of the series
    ready.write_table(root / f"sub-01/func/{XCPD}_motion.tsv", motion)
    taken = Taken(root, *VOLUMES, f"denoise={{scrub: {scrub}, scrub_fd_mm: 1}}")
    study = taken.study.root
    prepare_atlas(study)
    for stage in (adopt, denoise, parcellate):
        stage(XCPD, study)
    gone = sorted([*CENSORED, 10])
    rows = [n for n in range(ready.COUNT) if n not in (gone if scrub == "censor" else CENSORED)]
    for kind in ("denoised_bold", "carpet", "timeseries", "coverage"):
        about = taken.about(kind, XCPD)
        assert about["CensoredVolumes"] == gone, kind
        assert about["KeptVolumes"] == rows, kind
    assert len(taken.series(XCPD)) == len(rows)
    adopt_to_parcels(XCPD, study)
    assert taken.about("timeseries", XCPD)["KeptVolumes"] == rows
    assert taken.about("carpet", XCPD)["CensoredVolumes"] == gone


def test_volumes_that_were_filled_in_stay_marked() -> None:
    filled = {"Scrubbing": "mark", "CensoredVolumes": CENSORED}
    assert in_the_raw_run({}, filled) == filled
    done = {"Scrubbing": "censor", "CensoredVolumes": [10], "KeptVolumes": [1, 2]}
    assert in_the_raw_run(done, filled) == {**done, "CensoredVolumes": [3, 4, 10, 30]}
    assert in_the_raw_run(done, {}) == done


STRAIGHT = ("mni_mask", "mni_boldref", "motion", "confounds", "carpet", "timeseries", "coverage")


@pytest.mark.parametrize("method", ["fix", "aroma"])
def test_straight_to_parcels_gives_the_same(tmp_path: Path, method: str) -> None:
    root = xcpd(tmp_path / "xcpd", filled=False)
    taken = Taken(root, *VOLUMES, f"denoise.method={method}", "ica.components=4")
    study = taken.study.root
    prepare_atlas(study)
    for stage in (adopt, *((ica,) if method == "aroma" else ()), denoise, parcellate):
        stage(XCPD, study)
    kinds = (*STRAIGHT, *(("ica_mixing", "aroma_metrics") if method == "aroma" else ()))
    before = {kind: taken.path(kind, XCPD).read_bytes() for kind in kinds}
    kept = taken.about("timeseries", XCPD)["CensoredVolumes"]
    for kind in (*kinds, "preproc_bold", "denoised_bold"):
        taken.path(kind, XCPD).unlink()
    adopt_to_parcels(XCPD, study)
    assert {kind: taken.path(kind, XCPD).read_bytes() for kind in kinds} == before
    assert taken.about("timeseries", XCPD)["CensoredVolumes"] == kept == CENSORED
    assert not taken.path("preproc_bold", XCPD).exists()


def test_censored_volumes_that_do_not_add_up_are_refused(tmp_path: Path) -> None:
    root = xcpd(tmp_path / "xcpd", filled=False)
    table = next(root.glob("sub-01/func/*outliers.tsv"))
    table.write_text(table.read_text().replace("1", "0", 1))
    taken = Taken(root, *VOLUMES)
    with pytest.raises(DataError, match=r"57 volumes, but 58 of the 60"):
        adopt(XCPD, taken.study.root)


def parcels(count: int = ready.COUNT) -> pd.DataFrame:
    random = np.random.default_rng(2)
    table = pd.DataFrame(random.normal(100, 5, (count, len(NAMES))), columns=NAMES)
    table[NAMES[7]] = np.nan
    return table


def test_parcels_of_xcpd_keep_its_coverage(tmp_path: Path) -> None:
    root = xcpd(tmp_path / "xcpd", filled=False)
    folder, stem = root / "sub-01/func", f"{XCPD}_space-{ready.SPACE}_seg-A424"
    theirs = parcels(ready.COUNT - len(CENSORED))
    ready.write_table(folder / f"{stem}_stat-mean_timeseries.tsv", theirs[NAMES[::-1]])
    other = folder / f"{stem}_stat-mean_timeseries.tsv".replace("A424", "4S456Parcels")
    ready.write_table(other, theirs)
    share = pd.DataFrame({"Node": NAMES, "coverage": 1.0})
    share.loc[7, "coverage"], share.loc[9, "coverage"] = 0.6, 0.4  # 7 has no series all the same
    share.loc[11, "coverage"] = 0.4996
    ready.write_table(folder / f"{stem}_stat-coverage_bold.tsv", share)
    (folder / f"{stem}_stat-mean_timeseries.json").write_text('{"RepetitionTime": 2.0}')
    taken = Taken(root, *BASE, "derivatives.read=parcels")
    prepare_atlas(taken.study.root, table_only=True)
    adopt_parcels(XCPD, taken.study.root)
    series = taken.series(XCPD)
    assert list(series) == NAMES
    np.testing.assert_allclose(series[NAMES[0]], theirs[NAMES[0]], rtol=1e-6)
    assert series[NAMES[7]].isna().all() and series[NAMES[9]].isna().all()
    assert taken.about("timeseries", XCPD)["CensoredVolumes"] == CENSORED
    coverage = pd.read_csv(taken.path("coverage", XCPD), sep="\t")["coverage"]
    assert coverage[9] == pytest.approx(0.4) and coverage[0] == 1 and coverage[7] == 0
    assert coverage[11] == 0.4996 and series[NAMES[11]].isna().all()
    assert taken.about("coverage", XCPD)["ParcelsBelowMinCoverage"] == 3


# --- tables ----------------------------------------------------------------------------------


def test_ready_tables_need_nothing_but_a_tr(tmp_path: Path) -> None:
    """What a machine-learning researcher has: one file per subject, no names, no motion."""
    root = tmp_path / "tables"
    root.mkdir()
    values = parcels().to_numpy().astype(np.float32)
    np.save(root / "1001.npy", values)
    np.save(root / "1002.npy", values.T)
    parcels().iloc[:, :400].to_csv(root / "1003.csv", index=False)
    (tmp_path / "people.tsv").write_text("participant_id\tage\n1001\t60\n1002\t70\n1003\t65\n")
    root_study = tmp_path / "study"
    with pytest.raises(InputError, match="table of participants does not exist"):
        onboard(root, root_study, engine=Engine.derivatives, participants=tmp_path / "none.tsv")
    onboard(
        root,
        root_study,
        settings=[*BASE, "derivatives.tr=0.735"],
        engine=Engine.derivatives,
        participants=tmp_path / "people.tsv",
    )
    table = read_table(root_study / "onboarding/recordings.parquet").set_index("recording_id")
    assert list(table["eligible"]) == [True, True, False]
    assert "lacks 24 parcels of the atlas" in table["reason"].iloc[2]
    assert list(table["label_age"]) == [60, 70, 65]
    prepare_atlas(root_study, table_only=True)
    labels = load_config(root_study / "config/config.yaml").labels
    for name in ("sub-1001_task-rest", "sub-1002_task-rest"):
        adopt_parcels(name, root_study)
        study = Study(root_study)
        path = study.path("timeseries", **labels, recording=name, folder=folder_of(name))
        np.testing.assert_array_equal(pd.read_parquet(path).to_numpy(), values)
        motion = study.path("motion", **labels, recording=name, folder=folder_of(name))
        assert read_sidecar(motion)["MotionKnown"] is False
        qc_figure([name], root_study)
    assert any("transposed" in note for note in read_sidecar(path)["TableNotes"])


# --- grayordinates ---------------------------------------------------------------------------


@pytest.fixture
def dense_atlas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BrainModelAxis:
    """A registered atlas of three parcels on 30 grayordinates."""
    models = BrainModelAxis.from_surface(list(range(30)), 40, name="CORTEX_LEFT")
    labels = {n: (f"p{n}" if n else "???", (0.0, 0.0, 0.0, 1.0)) for n in range(4)}
    numbers = np.repeat([1, 2, 3, 0], [10, 10, 6, 4])
    header = Cifti2Header.from_axes((LabelAxis(["map"], [labels]), models))
    Cifti2Image(numbers.astype(np.float32)[None], header).to_filename(tmp_path / "tiny.dlabel.nii")
    pd.DataFrame(
        {"index": [1, 2, 3], "name": ["p1", "p2", "p3"], "x": 0.0, "y": 0.0, "z": 0.0}
    ).to_csv(tmp_path / "tiny.tsv", sep="\t", index=False)
    entry = {
        "name": "tiny",
        "description": "a test's",
        "space": "fsLR",
        "path": "tiny.dlabel.nii",
        "table": "tiny.tsv",
        "n_labels": 3,
        "licence": "none",
        "citation": "none",
    }
    (tmp_path / "registry.yaml").write_text(yaml.safe_dump({"atlases": [entry]}))
    monkeypatch.setenv("BRAINLM_REGISTRY", str(tmp_path / "registry.yaml"))
    return models


def test_dense_series_of_hcp_become_parcels(tmp_path: Path, dense_atlas: BrainModelAxis) -> None:
    run = tmp_path / "hcp/100307/MNINonLinear/Results/rfMRI_REST1_LR"
    run.mkdir(parents=True)
    data = np.random.default_rng(0).normal(1e4, 30, (ready.COUNT, 30)).astype(np.float32)
    header = Cifti2Header.from_axes((SeriesAxis(0, 0.72, ready.COUNT), dense_atlas))
    name = "rfMRI_REST1_LR_Atlas_MSMAll_hp2000_clean.dtseries.nii"
    Cifti2Image(data, header).to_filename(run / name)
    columns = ready.motion().iloc[:, :6].to_numpy().copy()
    columns[:, 3:] = np.rad2deg(columns[:, 3:])
    np.savetxt(run / "Movement_Regressors.txt", np.hstack([columns, columns * 0]))
    settings = [*BASE, "derivatives.read=dense", "atlas.name=tiny"]
    taken = Taken(tmp_path / "hcp", *settings)
    recording = "sub-100307_task-REST1_dir-LR"
    assert taken.table.loc[recording, "eligible"], taken.table.loc[recording, "reason"]
    assert taken.table.loc[recording, "tr"] == pytest.approx(0.72)
    prepare_atlas(taken.study.root, table_only=True)
    adopt_parcels(recording, taken.study.root)
    np.testing.assert_allclose(taken.series(recording)["p1"], data[:, :10].mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(
        taken.series(recording)["p3"], data[:, 20:26].mean(axis=1), rtol=1e-6
    )
    np.testing.assert_allclose(
        taken.motion(recording)["framewise_displacement"],
        ready.motion()["framewise_displacement"],
        atol=1e-6,
    )
    assert taken.about("timeseries", recording)["ProcessedBy"]["denoising"].startswith("FSL FIX")


# --- volumes of HCP and UK Biobank -----------------------------------------------------------


def test_volumes_of_hcp_are_on_the_lattice_of_their_space(tmp_path: Path) -> None:
    brain = ready.template()
    run = tmp_path / "hcp/100307/MNINonLinear/Results/rfMRI_REST2_RL"
    run.mkdir(parents=True)
    data, affine = ready.las(ready.series_of(brain), brain.affine)
    write_image(run / "rfMRI_REST2_RL_hp2000_clean.nii.gz", data, affine, tr=0.72)
    write_image(run / "brainmask_fs.2.nii.gz", np.flip(brain.data, 0).astype(np.uint8), affine)
    recording = "sub-100307_task-REST2_dir-RL"
    taken = Taken(tmp_path / "hcp", *VOLUMES)
    assert (
        "no series in MNI152NLin2009aSym: it is in MNI152NLin6Asym"
        in (taken.table.loc[recording, "reason"])
    )
    path = taken.study.path("config")
    path.write_text(path.read_text().replace("space_ok: false", "space_ok: true"))
    onboard(tmp_path / "hcp", taken.study.root)
    adopt(recording, taken.study.root)
    about = taken.about("preproc_bold", recording)
    assert about["Interpolated"] is False and about["AlreadyDenoised"] is True
    assert taken.about("motion", recording)["MotionKnown"] is False
    config = path.read_text().replace("method: fix", "method: motion24")
    path.write_text(config.replace("method: aroma", "method: motion24"))
    with pytest.raises(DataError, match="do not know trans_x"):
        denoise(recording, taken.study.root)


def test_runs_of_uk_biobank_go_through_their_warp(tmp_path: Path) -> None:
    """A run in its own space, a warp that shifts it; the pattern must stand where it belongs."""
    brain = ready.template()
    shift = np.array([4.0, -6.0, 8.0])  # template point x lies at x + shift in the run

    def pattern(affine: np.ndarray, shape: tuple[int, ...], moved: np.ndarray) -> np.ndarray:
        places = affine[:3, :3] @ np.indices(shape).reshape(3, -1) + affine[:3, 3:] + moved[:, None]
        x, y, z = places
        wave = np.sin(x / 15) + np.cos(y / 18) + np.sin(z / 12)
        return (500 + 100 * wave).reshape(shape)

    affine = np.diag([-5.0, 5.0, 5.0, 1.0])
    affine[:3, 3] = [100, -140, -90]
    shape = (42, 50, 44)
    times = 1 + np.random.default_rng(0).normal(0, 0.01, ready.COUNT)
    run = tmp_path / "ukb/1234567_20227_2_0/fMRI/rfMRI.ica"
    (run / "reg").mkdir(parents=True)
    (run / "mc").mkdir()
    data = pattern(affine, shape, np.zeros(3))[..., None] * times
    write_image(run / "filtered_func_data_clean.nii.gz", data.astype(np.float32), affine, tr=0.735)
    write_image(run / "mask.nii.gz", np.ones(shape, np.uint8), affine)
    # FSL's millimetres: voxel times size, x from the end where the image is stored from the left.
    grid, size = brain.affine, brain.data.shape
    own = np.indices(size).reshape(3, -1).astype(float)
    world = grid[:3, :3] @ own + grid[:3, 3:]
    target = np.linalg.inv(affine)[:3, :3] @ (world + shift[:, None] - affine[:3, 3:]) * 5.0
    own[0] = size[0] - 1 - own[0]
    field = (target - own * ready.ZOOM).reshape(3, *size)
    image = nib.Nifti1Image(np.moveaxis(field, 0, -1).astype(np.float32), grid)
    image.header["intent_code"] = 2006
    image.to_filename(run / "reg/example_func2standard_warp.nii.gz")
    motion = ready.motion().iloc[:, :6].to_numpy()
    np.savetxt(run / "mc/prefiltered_func_data_mcf.par", motion[:, [3, 4, 5, 0, 1, 2]])
    recording = "sub-1234567_ses-2_task-rest"
    taken = Taken(tmp_path / "ukb", *VOLUMES, "derivatives.space_ok=true")
    assert taken.config.denoise.method == "fix"
    prepare_atlas(taken.study.root)
    for stage in (adopt, denoise, parcellate):
        stage(recording, taken.study.root)
    found = nib.load(taken.path("preproc_bold", recording)).get_fdata()
    expected = pattern(grid, size, shift)[..., None] * times
    inner = (brain.data > 0) & (found[..., 0] != 0)
    assert inner.sum() > 0.9 * (brain.data > 0).sum()
    np.testing.assert_allclose(found[inner], expected[inner], rtol=5e-3)
    np.testing.assert_allclose(taken.motion(recording).iloc[:, :6], motion, atol=1e-7)
    assert len(taken.series(recording)) == ready.COUNT


# --- components of another pipeline ----------------------------------------------------------


def test_components_of_fmripost_aroma_are_reused(tmp_path: Path) -> None:
    """Their courses and verdict, our maps: a planted course is taken out, a kept one stays."""
    brain = ready.template()
    random = np.random.default_rng(4)
    courses = random.normal(size=(ready.COUNT, 3))
    where = np.where(brain.data > 0, random.normal(size=brain.data.shape), 0)
    data = ready.series_of(brain) + 200 * where[..., None] * courses[:, 0]
    root = ready.fmriprep(tmp_path / "prep", {XCPD: 0})
    ready.write_run(root, XCPD, image=((data * brain.data[..., None]).astype("f4"), brain.affine))
    folder = root / "sub-01/func"
    mixing = folder / f"{XCPD}_space-MNI152NLin6Asym_res-2_desc-melodic_mixing.tsv"
    np.savetxt(mixing, courses, delimiter="\t", header="a\tb\tc", comments="")
    verdict = folder / f"{XCPD}_desc-aroma_metrics.tsv"
    pd.DataFrame({"classification": ["rejected", "accepted", "accepted"]}).to_csv(
        verdict, sep="\t", index=False
    )
    taken = Taken(root, *VOLUMES, "denoise.method=aroma")
    for stage in (adopt, ica, denoise):
        stage(XCPD, taken.study.root)
    metrics = pd.read_csv(taken.path("aroma_metrics", XCPD), sep="\t")
    assert list(metrics["classification"]) == ["rejected", "accepted", "accepted"]
    about = taken.about("aroma_metrics", XCPD)
    assert about["Reused"] == f"{mixing.name}, {verdict.name}"
    assert about["ProcessedBy"] == {"components": "fMRIPrep 25.1.3"}
    assert "components" not in taken.about("preproc_bold", XCPD)["ProcessedBy"]
    before = nib.load(taken.path("preproc_bold", XCPD)).get_fdata()[brain.data > 0]
    after = nib.load(taken.path("denoised_bold", XCPD)).get_fdata()[brain.data > 0]
    course = courses[:, 0] - courses[:, 0].mean()
    left = np.abs(after @ course).mean() / np.abs(before @ course).mean()
    assert left < 0.02
    config = taken.study.path("config")
    theirs = config.read_text()
    config.write_text(theirs.replace("rule: ''", "rule: HFC > 0.4"))
    ica(XCPD, taken.study.root)  # another judge, of the same courses
    about = taken.about("aroma_metrics", XCPD)
    assert about["Rule"] == "HFC > 0.4" and "Reused" in about
    config.write_text(theirs)
    mixing.write_text(mixing.read_text().replace("\n", "\nnan\tnan\tnan\n", 1))
    onboard(root, taken.study.root)
    with pytest.raises(DataError, match=r"NaN or inf"):
        ica(XCPD, taken.study.root)


def test_maps_of_reused_courses_do_not_see_unsteady_volumes() -> None:
    """Bright first volumes, which MELODIC did not see, would pass for noise in every map."""
    from brainlm.denoise.reused import maps_of

    random = np.random.default_rng(0)
    courses = random.normal(size=(80, 2))
    unsteady = np.arange(80) < 2
    courses[unsteady] = 0
    series = (courses[:, :1] * 3 + random.normal(1000, 1, (80, 50))).astype(np.float32)
    bright = series.copy()
    bright[unsteady] += 500
    expected, share, kept = maps_of(series[2:], courses[2:], unsteady[2:])
    found = maps_of(bright, courses, unsteady)
    np.testing.assert_allclose(found[0], expected, rtol=0.05, atol=0.05)
    np.testing.assert_allclose(found[1], share, rtol=0.02)
    assert found[2] == pytest.approx(kept, rel=0.02)


def test_two_pipelines_and_numbers_from_one(tmp_path: Path) -> None:
    from brainlm.denoise.reused import read_their_noise

    numbers = tmp_path / "noise.csv"
    numbers.write_text("1,3\n")
    np.testing.assert_array_equal(read_their_noise(numbers, 3), [True, False, True])
    numbers.write_text("")
    assert not read_their_noise(numbers, 3).any()
    numbers.write_text("4")
    with pytest.raises(DataError, match="component 4 of 3"):
        read_their_noise(numbers, 3)
