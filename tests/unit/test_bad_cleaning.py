"""Bad input from the confounds to the parcels, as a user meets it: told, or given up cleanly.

What a damaged series, an empty mask or swapped files would do silently is tried with the commands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainlm import templates
from brainlm.cli.confounds import confounds
from brainlm.cli.denoise import denoise
from brainlm.cli.ica import ica
from brainlm.cli.parcellate import parcellate
from brainlm.cli.prepare_atlas import prepare_atlas
from brainlm.cli.resample import resample
from brainlm.errors import DataError, InputError
from brainlm.files import read_json, write_json
from brainlm.images import load_template, read_image, write_image
from brainlm.layout import Study
from brainlm.provenance import sidecar_path
from brainlm.series import open_series, read_mask, write_series

from .synthetic_head import centered_affine
from .synthetic_registered import fields_of, registered_study

CONFIG = """
bids_dir: ../bids
space: {resolution_mm: 6}
normalize: {resolution_mm: 6, transform: affine}
atlas: {name: A424approx}
ica: {components: 3}
"""
COUNT = 30
#: What the tests damage.
KINDS = ("preproc_bold", "mni_mask", "confounds")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, str]:
    """A run of 30 volumes as `resample` and `confounds` leave it."""
    params = np.random.default_rng(0).normal(0, [0.2] * 3 + [0.003] * 3, (COUNT, 6))
    shape = (31, 37, 31)
    study, identifier = registered_study(
        tmp_path_factory.mktemp("bad"),
        params,
        affine=centered_affine(shape, 6.0),
        shape=shape,
        config=CONFIG.replace("bids_dir: ../bids", ""),
    )
    prepare_atlas(study.root)
    for stage in (resample, confounds):
        stage(identifier, study.root)
    for kind in KINDS:  # else every change would be refused for not being the stage's own
        sidecar = sidecar_path(study.path(kind, **fields_of(study, identifier)))
        about = read_json(sidecar)
        del about["Data"]
        write_json(sidecar, about)
    return study, identifier


@pytest.fixture
def run(prepared: tuple[Study, str]) -> Iterator[tuple[Study, str, Callable[[str], Path]]]:
    """The study, the run and where its files are; what a test does to them is undone."""
    study, identifier = prepared
    study.path("config").write_text(CONFIG + "denoise: {method: motion6}\n")
    fields = fields_of(study, identifier)
    paths = [study.path(kind, **fields) for kind in KINDS]
    paths += [sidecar_path(path) for path in paths]
    contents = [path.read_bytes() for path in paths]
    yield study, identifier, lambda kind: study.path(kind, **fields)
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change every volume of a series."""
    series = open_series(path)
    volumes = [change(volume.copy()) for volume in series.volumes()]
    write_series(path, volumes, series.shape, series.affine, tr=2.0)


@pytest.mark.parametrize("stage", [confounds, ica, denoise], ids=lambda stage: stage.__name__)
def test_nan_in_the_brain_goes_no_further(run, stage) -> None:
    study, identifier, path = run
    mask = read_image(path("mni_mask")).data > 0
    spot = tuple(np.argwhere(mask)[100])

    def spoil(volume: np.ndarray) -> np.ndarray:
        volume[spot] = np.nan
        return volume

    rewrite(path("preproc_bold"), spoil)
    with pytest.raises(DataError, match="Volume 0 holds NaN or inf inside the brain") as told:
        stage(identifier, study.root)
    assert str(path("preproc_bold")) in str(told.value)


@pytest.mark.parametrize("stage", [confounds, ica, denoise], ids=lambda stage: stage.__name__)
def test_a_mask_that_is_empty_or_lies_elsewhere_is_refused(run, stage) -> None:
    study, identifier, path = run
    mask = read_image(path("mni_mask"))
    moved = mask.affine.copy()
    moved[0, 3] += 3
    for data, affine, fault in (
        (np.zeros(mask.data.shape), mask.affine, "mask holds no voxel"),
        (np.ones((5, 5, 5)), mask.affine, "lie on different grids"),
        (mask.data, moved, "lie on different grids"),
    ):
        write_image(path("mni_mask"), data.astype(np.uint8), affine)
        with pytest.raises(DataError, match=fault) as told:
            stage(identifier, study.root)
        assert str(path("mni_mask")) in str(told.value)


@pytest.mark.parametrize("rows", [COUNT - 1, COUNT + 1])
@pytest.mark.parametrize("stage", [ica, denoise], ids=lambda stage: stage.__name__)
@pytest.mark.parametrize("method", ["motion6", "fix"])
def test_confounds_of_another_length_are_refused(run, stage, method, rows) -> None:
    """A row less used to be a volume that nobody cleaned."""
    study, identifier, path = run
    study.path("config").write_text(CONFIG + f"denoise: {{method: {method}}}\n")
    table = pd.read_csv(path("confounds"), sep="\t", dtype=str, keep_default_na=False)
    table = pd.concat([table, table.tail(1)])[:rows]
    table.to_csv(path("confounds"), sep="\t", index=False)
    with pytest.raises(DataError, match=f"{rows} rows, the series {COUNT} volumes"):
        stage(identifier, study.root)


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ("{method: none}", True),
        ("{method: motion6}", True),
        ("{method: fix}", True),
        ("{method: motion24}", False),
        ("{method: 36p}", False),
        ("{method: acompcor}", False),
        ("{method: motion6, low_pass_s: 12}", False),
    ],
)
def test_thirty_volumes_are_cleaned_or_refused_by_the_freedom_left(run, options, fits) -> None:
    study, identifier, path = run
    study.path("config").write_text(f"{CONFIG}denoise: {options}\n")
    if fits:
        denoise(identifier, study.root)
        assert open_series(path("denoised_bold")).shape[3] == COUNT
        return
    with pytest.raises(DataError, match="30 volumes are too few for this denoising") as told:
        denoise(identifier, study.root)
    assert "denoise.method: motion6" in str(told.value)


def test_a_run_without_signal_is_given_up_by_name(run) -> None:
    """Constant in every voxel: nothing to decompose, nothing clean, no parcel."""
    study, identifier, path = run
    rewrite(path("preproc_bold"), lambda volume: np.full_like(volume, 7))
    confounds(identifier, study.root)
    with pytest.raises(DataError, match="nothing to decompose"):
        ica(identifier, study.root)
    study.path("config").write_text(CONFIG + "denoise: {method: fix}\n")
    with pytest.raises(DataError, match="does not change in time anywhere"):
        denoise(identifier, study.root)
    study.path("config").write_text(CONFIG + "denoise: {method: motion6}\n")
    denoise(identifier, study.root)
    with pytest.raises(DataError, match="No parcel has 50%"):
        parcellate(identifier, study.root)


def test_voxels_without_signal_stay_as_they_are_and_lower_the_coverage(run) -> None:
    study, identifier, path = run
    study.path("config").write_text(CONFIG + "denoise: {method: motion6}\n")
    mask = read_mask(path("mni_mask"), *_grid(path("preproc_bold"))).data

    def flatten(volume: np.ndarray) -> np.ndarray:
        volume[:16] = 5.0
        return volume

    rewrite(path("preproc_bold"), flatten)
    confounds(identifier, study.root)
    denoise(identifier, study.root)
    left = next(iter(open_series(path("denoised_bold")).volumes()))
    assert (left[:16][mask[:16]] == 5).all() and mask[:16].any()
    parcellate(identifier, study.root)
    coverage = pd.read_csv(path("coverage"), sep="\t")["coverage"]
    assert 0.3 < (coverage < 0.5).mean() < 0.7


def _grid(series: Path) -> tuple[np.ndarray, tuple[int, ...]]:
    found = open_series(series)
    return found.affine, found.shape


def test_a_template_of_no_bytes_is_the_machines_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a DataError it would have every recording given up."""
    folder = tmp_path / "nilearn"
    (folder / "datasets" / "data").mkdir(parents=True)
    origin = type("Spec", (), {"origin": str(folder / "__init__.py")})()
    monkeypatch.setattr(templates, "find_spec", lambda name: origin)
    with pytest.raises(InputError, match="its template is gone"):
        load_template(templates.BUNDLED, "T1w", 6.0)
    for name in templates.find_template(templates.BUNDLED).files.values():
        (folder / "datasets" / "data" / name).touch()
    with pytest.raises(InputError, match="its template is empty"):
        load_template(templates.BUNDLED, "T1w", 6.0)
