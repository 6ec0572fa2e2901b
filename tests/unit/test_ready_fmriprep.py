"""Runs of fMRIPrep and fMRIPost-AROMA: found, chosen, refused, adopted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainlm.bids.ready.choice import Wanted
from brainlm.bids.ready.detect import detect_layout
from brainlm.bids.ready.fmriprep import find_runs
from brainlm.bids.ready.names import parse_name
from brainlm.cli.adopt import adopt
from brainlm.cli.denoise import denoise
from brainlm.cli.onboard import Engine, onboard
from brainlm.cli.parcellate import parcellate
from brainlm.cli.prepare_atlas import prepare_atlas
from brainlm.config import load_config
from brainlm.errors import DataError, InputError
from brainlm.images import read_image, write_image
from brainlm.layout import Study, folder_of
from brainlm.provenance import read_sidecar
from brainlm.recordings import read_table

from . import synthetic_ready as ready

WANTED = Wanted(ready.SPACE, ready.ZOOM)
RUN = "sub-01_task-rest_run-1"
SETTINGS = [
    f"space={{template: {ready.SPACE}, resolution_mm: {ready.ZOOM}}}",
    "atlas.name=A424approx",
    "eligibility.min_volumes=50",
    "denoise={method: motion24, high_pass_s: 60}",
]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return ready.fmriprep(tmp_path / "prep", {RUN: 1})


def study_of(dataset: Path, *settings: str) -> tuple[Study, pd.DataFrame]:
    root = dataset.parent / "study"
    onboard(dataset, root, settings=[*SETTINGS, *settings], engine=Engine.derivatives)
    study = Study(root)
    return study, read_table(study.path("recordings")).set_index("recording_id")


def path_of(study: Study, kind: str, recording: str = RUN) -> Path:
    labels = load_config(study.path("config")).labels
    return study.path(kind, **labels, recording=recording, folder=folder_of(recording))


# --- finding ---------------------------------------------------------------------------------


def test_a_name_is_taken_apart() -> None:
    found = parse_name("sub-1/func/sub-1_task-rest_dir-AP_space-T1w_res-2_desc-preproc_bold.nii.gz")
    assert found is not None
    assert found.recording_id == "sub-1_task-rest_dir-AP"
    assert found.further == {"space": "T1w", "res": "2", "desc": "preproc"}
    assert found.has("bold", ".nii", ".nii.gz", space="T1w")
    assert not found.has("bold", ".nii.gz", desc=None)
    assert parse_name("sub-1/func/figures") is None
    assert parse_name("sub-1/func/notes_bold.nii.gz") is None


@pytest.mark.parametrize(
    ("description", "layout"),
    [
        ({"GeneratedBy": [{"Name": "fMRIPrep", "Version": "24.1.0"}]}, "fmriprep"),
        ({"PipelineDescription": {"Name": "fMRIPrep", "Version": "20.0.7"}}, "fmriprep"),
        ({"GeneratedBy": [{"Name": "fMRIPost-AROMA"}]}, "fmriprep"),
        ({"GeneratedBy": [{"Name": "xcp_d"}]}, "xcpd"),
        ({"GeneratedBy": [{"Name": "XCP-D: A Robust Pipeline"}]}, "xcpd"),
        ({"GeneratedBy": [{"Name": "heudiconv"}]}, None),
        ({}, None),
    ],
)
def test_the_pipeline_is_known_by_its_own_words(tmp_path, description, layout) -> None:
    (tmp_path / "dataset_description.json").write_text(json.dumps(description))
    assert detect_layout(tmp_path) == layout


def test_space_and_resolution_are_chosen(dataset: Path) -> None:
    brain = ready.template()
    coarse = (ready.series_of(brain)[::2, ::2, ::2], brain.affine @ np.diag([2, 2, 2, 1]))
    ready.write_run(dataset, RUN, res="12", image=coarse)
    ready.write_run(dataset, RUN, space="MNI152NLin2009cAsym", res="2")
    ready.write_run(dataset, RUN, space="T1w")
    (run,) = find_runs(dataset, WANTED)
    assert run.files["series"].endswith(f"_space-{ready.SPACE}_desc-preproc_bold.nii.gz")
    assert run.files["mask"].endswith(f"_space-{ready.SPACE}_desc-brain_mask.nii.gz")
    assert run.by["motion"] == "fMRIPrep 25.1.3"
    assert not run.faults and not run.cleaned
    (run,) = find_runs(dataset, Wanted(ready.SPACE, 12))
    assert "_res-12_" in run.files["series"] and "_res-12_" in run.files["mask"]
    (run,) = find_runs(dataset, Wanted("MNI152NLin6Asym", 2))
    assert run.faults == (
        "no series in MNI152NLin6Asym: it is there in MNI152NLin2009aSym, MNI152NLin2009cAsym",
    )
    (run,) = find_runs(dataset, Wanted("MNI152NLin6Asym", ready.ZOOM, any_space=True))
    assert run.space == ready.SPACE and "some mm" in run.notes[0]


def test_two_files_that_nothing_tells_apart_are_a_fault(dataset: Path) -> None:
    series = next(dataset.glob("sub-01/func/*desc-preproc_bold.nii.gz"))
    series.with_name(series.name.removesuffix(".gz")).write_bytes(
        __import__("gzip").decompress(series.read_bytes())
    )
    (run,) = find_runs(dataset, WANTED)
    assert run.faults[0].startswith("two candidate files for one run: ")


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("*confounds_timeseries.tsv", "no table of confounds (desc-confounds_timeseries.tsv)"),
        ("*brain_mask.nii.gz", "no brain mask (desc-brain_mask) beside sub-01/func/"),
    ],
)
def test_what_is_missing_is_named(dataset: Path, pattern: str, fault: str) -> None:
    next(dataset.glob(f"sub-01/func/{pattern}")).unlink()
    _, table = study_of(dataset)
    assert not table.loc[RUN, "eligible"]
    assert fault in table.loc[RUN, "reason"]


def test_a_run_without_any_series_is_listed_with_its_reason(dataset: Path) -> None:
    """fMRIPrep stopped before it, or was asked for the run's own space alone."""
    series = next(dataset.glob("sub-01/func/*desc-preproc_bold.nii.gz"))
    series.rename(series.with_name(f"{RUN}_desc-preproc_bold.nii.gz"))
    _, table = study_of(dataset)
    assert not table.loc[RUN, "eligible"]
    assert "there is none in any space" in table.loc[RUN, "reason"]
    assert '"cleaned": false' in table.loc[RUN, "ready_about"]


def test_old_names_of_confounds_and_components_are_known(dataset: Path) -> None:
    folder = dataset / "sub-01" / "func"
    (folder / f"{RUN}_desc-confounds_timeseries.tsv").rename(
        folder / f"{RUN}_desc-confounds_regressors.tsv"
    )
    (folder / f"{RUN}_desc-MELODIC_mixing.tsv").write_text("0.1\t0.2\n")
    (run,) = find_runs(dataset, WANTED)
    assert run.files["confounds"].endswith("_regressors.tsv")
    assert "mixing" not in run.files  # nobody says which components are noise
    (folder / f"{RUN}_AROMAnoiseICs.csv").write_text("1\n")
    (run,) = find_runs(dataset, WANTED)
    assert run.files["components"].endswith("AROMAnoiseICs.csv")


def test_components_of_another_dataset_belong_to_the_run(dataset: Path, tmp_path: Path) -> None:
    aroma = tmp_path / "aroma"
    ready.describe(aroma, "fMRIPost-AROMA", "0.0.10")
    folder = aroma / "sub-01" / "func"
    folder.mkdir(parents=True)
    mixing = folder / f"{RUN}_space-MNI152NLin6Asym_res-2_desc-melodic_mixing.tsv"
    mixing.write_text("0.1\n")
    (folder / f"{RUN}_desc-aroma_metrics.tsv").write_text("component\n")
    (run,) = find_runs(dataset, WANTED, aroma=aroma)
    assert run.files["mixing"] == str(mixing)
    assert run.by["components"] == "fMRIPost-AROMA 0.0.10"


def test_a_folder_of_components_that_is_not_there_is_told(dataset: Path) -> None:
    """Else components would be sought anew, as if there were none."""
    with pytest.raises(InputError, match=r"derivatives.aroma_dir names does not exist"):
        study_of(dataset, "derivatives.aroma_dir=../aorma")


def test_a_denoised_series_alone_is_taken_as_denoised(tmp_path: Path) -> None:
    root = tmp_path / "aroma"
    ready.describe(root, "fMRIPost-AROMA", "0.0.10")
    ready.write_run(root, RUN, desc="nonaggrDenoised")
    ready.write_run(root, RUN, desc="aggrDenoised")
    (run,) = find_runs(root, WANTED)
    assert "mask" in run.files and not run.notes
    for mask in root.glob("sub-01/func/*desc-brain_mask*"):
        mask.unlink()  # fMRIPost-AROMA leaves it to the dataset that it was given
    (run,) = find_runs(root, WANTED)
    assert run.cleaned and not run.faults and "mask" not in run.files
    assert run.notes == ("no brain mask: voxels count that vary within the template's brain",)
    assert "nonaggr" in run.files["series"]
    assert run.by["denoising"] == "fMRIPost-AROMA 0.0.10"


# --- onboarding ------------------------------------------------------------------------------


def test_onboarding_lists_what_there_is(dataset: Path) -> None:
    study, table = study_of(dataset)
    row = table.loc[RUN]
    assert row["eligible"] and row["layout"] == "fmriprep" and row["kind"] == "volume"
    assert (row["n_volumes"], row["tr"]) == (ready.COUNT, 2.0)
    assert set(json.loads(row["ready"])) == {"series", "mask", "confounds"}
    assert all(len(digest) == 64 for digest in json.loads(row["ready_sha256"]).values())
    assert load_config(study.path("config")).engine == "derivatives"


def test_a_truncated_series_is_not_eligible(dataset: Path) -> None:
    series = next(dataset.glob("sub-01/func/*desc-preproc_bold.nii.gz"))
    series.write_bytes(series.read_bytes()[:-2000])
    _, table = study_of(dataset)
    assert "truncated or corrupt" in table.loc[RUN, "reason"]


def test_raw_onboarding_of_derivatives_is_refused(dataset: Path) -> None:
    with pytest.raises(InputError, match="no raw BIDS runs, but files of layout fmriprep"):
        onboard(dataset, dataset.parent / "study", engine=Engine.native)


def test_an_unknown_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="Which pipeline wrote these files cannot be told"):
        onboard(tmp_path / "data", tmp_path / "study", engine=Engine.derivatives)


# --- adopting --------------------------------------------------------------------------------


def test_voxels_on_the_lattice_are_copied_whatever_their_order(dataset: Path) -> None:
    brain = ready.template()
    data = ready.series_of(brain, 1) * brain.data[..., None]
    ready.write_run(dataset, RUN, image=ready.las(data, brain.affine))
    study, _ = study_of(dataset)
    adopt(RUN, study.root)
    found = read_image(path_of(study, "preproc_bold"))
    np.testing.assert_allclose(found.affine, brain.affine)
    np.testing.assert_array_equal(found.data, data)
    about = read_sidecar(path_of(study, "preproc_bold"))
    assert about["Interpolated"] is False
    assert about["ProcessedBy"]["motion"] == "fMRIPrep 25.1.3"
    assert any(source.startswith("bids::sub-01/func/") for source in about["Sources"])


def test_another_grid_is_interpolated_where_it_lies(dataset: Path) -> None:
    """A smooth pattern of the world, on a shifted grid of other voxels."""
    brain = ready.template()
    affine = brain.affine @ np.diag([0.75, 0.75, 0.75, 1])
    affine[:3, 3] += [1.3, -0.7, 2.1]
    shape = tuple(int(n / 0.75) for n in brain.data.shape)

    def pattern(place: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        x, y, z = place[:3, :3] @ np.indices(size).reshape(3, -1) + place[:3, 3:]
        wave = np.sin(x / 15) + np.cos(y / 18) + np.sin(z / 12)
        return (500 + 100 * wave).reshape(size)

    times = 1 + np.arange(ready.COUNT) / 100
    image = (pattern(affine, shape)[..., None] * times).astype(np.float32)
    ready.write_run(dataset, RUN, image=(image, affine))
    study, _ = study_of(dataset)
    adopt(RUN, study.root)
    found = read_image(path_of(study, "preproc_bold"))
    mask = read_image(path_of(study, "mni_mask")).data > 0
    inner = mask & (brain.data > 0)
    inner[[0, 1, -1, -2]] = inner[:, [0, 1, -1, -2]] = inner[:, :, [0, 1, -1, -2]] = False
    expected = pattern(brain.affine, brain.data.shape)[..., None] * times
    np.testing.assert_allclose(found.data[inner], expected[inner], rtol=5e-3)
    assert read_sidecar(path_of(study, "preproc_bold"))["Interpolated"] is True


def test_the_whole_way_to_parcels(dataset: Path) -> None:
    study, _ = study_of(dataset)
    prepare_atlas(study.root)
    adopt(RUN, study.root)
    theirs = pd.read_csv(dataset / f"sub-01/func/{RUN}_desc-confounds_timeseries.tsv", sep="\t")
    ours = pd.read_csv(path_of(study, "confounds"), sep="\t")
    assert list(ours) == list(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    motion = pd.read_csv(path_of(study, "motion"), sep="\t")
    np.testing.assert_allclose(
        motion["framewise_displacement"], theirs["framewise_displacement"], atol=1e-7
    )
    denoise(RUN, study.root)
    parcellate(RUN, study.root)
    series = pd.read_parquet(path_of(study, "timeseries"))
    assert series.shape == (ready.COUNT, 424)
    assert series.notna().to_numpy().mean() > 0.8
    first = path_of(study, "timeseries").read_bytes()
    for stage in (adopt, denoise, parcellate):
        stage(RUN, study.root)
    assert path_of(study, "timeseries").read_bytes() == first


def test_nan_outside_the_brain_does_no_harm_and_inside_is_told(dataset: Path) -> None:
    brain = ready.template()
    data = ready.series_of(brain, 1)
    data[brain.data == 0] = np.nan
    ready.write_run(dataset, RUN, image=(data, brain.affine))
    mask = next(dataset.glob("sub-01/func/*brain_mask.nii.gz"))
    write_image(mask, brain.data.astype(np.uint8), brain.affine)
    study, table = study_of(dataset)
    assert table.loc[RUN, "eligible"]
    adopt(RUN, study.root)
    found = read_image(path_of(study, "preproc_bold")).data
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[brain.data > 0], data[brain.data > 0])
    data[brain.data > 0, 7] = np.where(np.arange((brain.data > 0).sum()) % 10 == 0, np.nan, 5)
    ready.write_run(dataset, RUN, image=(data, brain.affine))
    write_image(mask, brain.data.astype(np.uint8), brain.affine)
    onboard(dataset, study.root)
    with pytest.raises(DataError, match=r"10% of the voxels in its brain mask are NaN"):
        adopt(RUN, study.root)


def test_a_changed_file_is_refused_until_it_is_onboarded_again(dataset: Path) -> None:
    study, _ = study_of(dataset)
    table = dataset / f"sub-01/func/{RUN}_desc-confounds_timeseries.tsv"
    table.write_text(table.read_text().replace("n/a", "0"))
    with pytest.raises(DataError, match="has changed since it was onboarded"):
        adopt(RUN, study.root)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.iloc[:-1], "59 rows, the series has 60 volumes"),
        (lambda t: t.drop(columns="rot_z"), "lack the columns rot_z"),
        (lambda t: t.assign(csf="high"), "Column csf of the confounds is not numbers"),
        (lambda t: t.assign(trans_x=np.nan), "motion parameters hold missing values"),
    ],
)
def test_confounds_that_do_not_fit_are_refused(dataset: Path, spoil, message: str) -> None:
    ready.write_table(
        dataset / f"sub-01/func/{RUN}_desc-confounds_timeseries.tsv", spoil(ready.confounds())
    )
    study, _ = study_of(dataset)
    with pytest.raises(DataError, match=message):
        adopt(RUN, study.root)


def test_a_mask_elsewhere_than_the_brain_is_refused(dataset: Path) -> None:
    brain = ready.template()
    affine = brain.affine.copy()
    affine[:3, 3] += [0, 0, 150]
    ready.write_run(dataset, RUN, image=(ready.series_of(brain), affine))
    study, _ = study_of(dataset)
    with pytest.raises(DataError, match="of the template's brain holds data that vary"):
        adopt(RUN, study.root)


def test_compcor_of_old_versions_gets_the_names_of_its_tissue(dataset: Path) -> None:
    table = ready.confounds().drop(columns=["c_comp_cor_00", "w_comp_cor_00"])
    table["a_comp_cor_01"], table["a_comp_cor_02"] = table["csf"], table["white_matter"]
    path = dataset / f"sub-01/func/{RUN}_desc-confounds_timeseries.tsv"
    ready.write_table(path, table)
    about = {"00": "combined", "01": "CSF", "02": "WM"}
    path.with_suffix(".json").write_text(
        json.dumps({f"a_comp_cor_{n}": {"Mask": mask} for n, mask in about.items()})
    )
    study, _ = study_of(dataset)
    adopt(RUN, study.root)
    ours = pd.read_csv(path_of(study, "confounds"), sep="\t")
    assert "a_comp_cor_00" in ours
    np.testing.assert_allclose(ours["c_comp_cor_00"], table["csf"], rtol=1e-6)
    np.testing.assert_allclose(ours["w_comp_cor_00"], table["white_matter"], rtol=1e-6)


def test_fd_is_made_where_the_confounds_have_none(dataset: Path) -> None:
    table = ready.confounds().drop(columns="framewise_displacement")
    ready.write_table(dataset / f"sub-01/func/{RUN}_desc-confounds_timeseries.tsv", table)
    study, _ = study_of(dataset, "motion.fd_radius_mm=80")
    adopt(RUN, study.root)
    found = pd.read_csv(path_of(study, "motion"), sep="\t", na_values="n/a")
    moved = np.abs(np.diff(ready.motion().iloc[:, :6], axis=0)) @ [1, 1, 1, 80, 80, 80]
    np.testing.assert_allclose(found["framewise_displacement"][1:], moved, atol=1e-6)
    table = pd.read_csv(path_of(study, "confounds"), sep="\t", na_values="n/a")
    np.testing.assert_allclose(table["framewise_displacement"][1:], moved, atol=1e-6)
