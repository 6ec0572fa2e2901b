"""Two recordings' files exchanged, before each stage that reads them: every one must be refused."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from brainlm.cli.cohort import cohort
from brainlm.cli.confounds import confounds
from brainlm.cli.coregister_bold import coregister_bold
from brainlm.cli.denoise import denoise
from brainlm.cli.motion import motion
from brainlm.cli.normalize_anat import normalize_anat
from brainlm.cli.normalize_bold import normalize_bold
from brainlm.cli.parcellate import parcellate
from brainlm.cli.qc_figure import qc_figure
from brainlm.cli.resample import resample
from brainlm.cli.resample_to_parcels import resample_to_parcels
from brainlm.config import load_config
from brainlm.errors import DataError, InputError
from brainlm.layout import Study, folder_of
from brainlm.provenance import sidecar_path
from brainlm.recordings import load_recording

#: Stage -> what it reads of a recording that another stage has made.
READS: dict[Callable[..., None], tuple[str, ...]] = {
    coregister_bold: ("boldref", "foreground_mask", "t1w_brain", "t1w_to_mni"),
    normalize_bold: ("boldref", "foreground_mask", "boldref_to_t1w", "t1w_to_mni", "t1w_brain"),
    resample: ("hmc_xfm", "boldref_to_mni"),
    resample_to_parcels: ("hmc_xfm", "boldref_to_mni"),
    confounds: ("preproc_bold", "mni_mask", "motion"),
    denoise: ("preproc_bold", "mni_mask", "confounds"),
    parcellate: ("denoised_bold", "mni_mask"),
    qc_figure: ("boldref", "bold_mask", "motion", "confounds", "carpet", "coverage"),
}


@pytest.fixture(scope="module")
def study(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two recordings of the demo, of two subjects, with all files between."""
    root = shutil.copytree(demo, tmp_path_factory.mktemp("two") / "demo", symlinks=True)
    study = Study(root / "study")
    table = study.path("recordings")
    pd.read_parquet(table).iloc[:2].to_parquet(table, index=False)
    return study


def _names(study: Study) -> list[str]:
    return sorted(pd.read_parquet(study.path("recordings"))["recording_id"])


def _files(study: Study, kind: str) -> list[Path]:
    """That kind of file of both recordings."""
    labels, found = load_config(study.path("config")).labels, []
    for name in _names(study):
        anat = name.partition("_")[0]
        fields = {"recording": name, "folder": folder_of(name)}
        fields |= {"anat": anat, "anat_folder": folder_of(anat)}
        found.append(study.path(kind, **labels, **fields))
    return found


@contextlib.contextmanager
def _exchanged(*pairs: list[Path]) -> Iterator[None]:
    """Each pair of files, one under the other's name within the block."""
    _exchange(*pairs)
    try:
        yield
    finally:
        _exchange(*pairs)


def _exchange(*pairs: list[Path]) -> None:
    for first, second in pairs:
        aside = first.with_name("aside")
        first.rename(aside)
        second.rename(first)
        aside.rename(second)


def _equal(files: list[Path]) -> bool:
    """Nothing is mixed up then: two masks may both be all of the template's brain."""
    return files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        pytest.param(stage, kind, id=f"{stage.__name__}-{kind}")
        for stage, kinds in READS.items()
        for kind in kinds
    ],
)
def test_a_stage_refuses_what_was_made_of_another(
    study: Study, stage: Callable[..., None], kind: str
) -> None:
    """With its sidecar, which names another; and alone, beside a sidecar that knows its data."""
    files = _files(study, kind)
    name = _names(study)[0]
    recordings = [name] if stage is qc_figure else name
    with (
        _exchanged(files, [sidecar_path(path) for path in files]),
        pytest.raises(DataError, match="says that it is of") as caught,
    ):
        stage(recordings, study=study.root)
    assert caught.value.file == str(files[0])
    if _equal(files):
        return
    with _exchanged(files), pytest.raises(DataError, match="not the file that its sidecar"):
        stage(recordings, study=study.root)


@pytest.mark.parametrize("stage", [motion, resample, resample_to_parcels, normalize_anat])
def test_a_stage_refuses_the_raw_files_of_another(study: Study, stage: Callable[..., None]) -> None:
    """Exchanged on the disk, and in the table that says which are whose."""
    of_anat = stage is normalize_anat
    names = _names(study)
    bids = load_config(study.path("config")).resolve_bids_dir(study.root)
    recordings = [load_recording(study.path("recordings"), name, bids) for name in names]
    raw = [one.t1w_path if of_anat else one.bold_path for one in recordings]
    name = names[0].partition("_")[0] if of_anat else names[0]
    with (
        _exchanged([path for path in raw if path]),
        pytest.raises(DataError, match="has changed since it was onboarded"),
    ):
        stage(name, study=study.root)
    table_path = study.path("recordings")
    as_it_was = table_path.read_bytes()
    table = pd.read_parquet(table_path)
    for column in ("t1w", "t1w_sha256") if of_anat else ("bold", "bold_sha256"):
        table[column] = table[column].tolist()[::-1]
    table.to_parquet(table_path, index=False)
    try:
        with pytest.raises(InputError, match="of another recording"):
            stage(name, study=study.root)
    finally:
        table_path.write_bytes(as_it_was)


def test_the_cohort_leaves_out_recordings_whose_files_are_anothers(study: Study) -> None:
    """And says why: the others of a large cohort go on."""
    for kind, alone in itertools.product(("timeseries", "coverage", "motion"), (False, True)):
        files = _files(study, kind)
        pairs = [files] if alone else [files, [sidecar_path(path) for path in files]]
        if alone and _equal(files):
            continue
        with _exchanged(*pairs), pytest.raises(DataError, match="100% of 2 eligible recordings"):
            cohort(study=study.root)
        told = pd.read_csv(study.path("exclusions"), sep="\t")
        assert sorted(told["recording_id"]) == _names(study)
        why = "not the file that its sidecar" if alone else "says that it is of"
        assert told["reason"].str.contains(why).all(), kind
