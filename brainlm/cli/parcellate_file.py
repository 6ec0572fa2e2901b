"""`brainlm parcellate-file`: the parcel series of a file that another pipeline made."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._console import progress, say, warn
from ._single_thread import pin_libraries
from .parcellate import TsvOption

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from ..atlas.registry import Atlas
    from ..images import Image
    from ..parcellate.extract import ParcelSeries
    from ..parcellate.stream import VolumeStream

_DENSE = ".dtseries.nii"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("parcellate-file")(parcellate_file)


@dataclass(frozen=True)
class _Job:
    series: Path
    atlas: str
    table: Path | None
    mask: Path | None
    weights: Path | None
    space: str | None
    space_ok: bool
    options: dict[str, Any]


def parcellate_file(
    series: Annotated[Path, typer.Argument(help="a 4-D .nii, .nii.gz or .dtseries.nii")],
    atlas: Annotated[
        str, typer.Option(help="a name from `brainlm atlas list`, a label image, or a .dlabel.nii")
    ] = "A424",
    out: Annotated[Path, typer.Option(help="folder to write to")] = Path(),
    table: Annotated[
        Path | None, typer.Option(help="table of an atlas image that is not registered")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="brain mask on the series' grid; default: all voxels")
    ] = None,
    estimator: Annotated[
        str | None, typer.Option(help="as parcellate.estimator; default: mean")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="for `weighted`: a map on the series' grid, 0 or more")
    ] = None,
    min_coverage: Annotated[
        float | None, typer.Option(help="as parcellate.min_coverage; default: 0.5", min=0, max=1)
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="space of the series; default: as its name says (space-...)")
    ] = None,
    space_ok: Annotated[
        bool, typer.Option("--space-ok", help="use the atlas whatever the two spaces are called")
    ] = False,
    tsv: TsvOption = False,
) -> None:
    """Reduce a ready, denoised file to parcel series: NIfTI or CIFTI, of any pipeline.

    Writes a table of T rows and one float32 column per parcel, and how much of each parcel the
    file covers, named after the file. NIfTI: grids are compared in world space, and where they
    differ the labels are moved. CIFTI: needs a .dlabel.nii whose grayordinates are the series' own.
    """
    pin_libraries()
    from ..config import Parcellate
    from ..errors import InputError

    given = {"estimator": estimator, "min_coverage": min_coverage}
    try:
        options = Parcellate(**{k: v for k, v in given.items() if v is not None}).model_dump()
    except ValueError:
        raise InputError(
            f"There is no estimator {estimator!r}", fix="mean, median, eigenvariate or weighted"
        ) from None
    if (options["estimator"] == "weighted") != (weights is not None):
        raise InputError("--estimator weighted and --weights go together", fix="give both or none")
    job = _Job(series, atlas, table, mask, weights, space, space_ok, options)
    parcels, result, about = _dense(job) if series.name.endswith(_DENSE) else _volume(job)
    _write(job, out, parcels, result, about, tsv)


def _dense(job: _Job) -> tuple[pd.DataFrame, ParcelSeries, dict[str, Any]]:
    """Parcels (index, name), their series and sidecar fields, from CIFTI."""
    import numpy as np
    import pandas as pd

    from ..errors import InputError
    from ..parcellate.cifti import check_models, dense_parcels, open_dtseries, read_dlabel

    if not job.atlas.endswith(".dlabel.nii"):
        raise InputError(
            f"Atlas {job.atlas} has no labels for grayordinates", fix="give --atlas X.dlabel.nii"
        )
    if job.mask or job.table or job.space:
        raise InputError("--mask, --table and --space are for NIfTI; CIFTI files hold their own")
    atlas, series = read_dlabel(job.atlas), open_dtseries(job.series)
    check_models(series, atlas)
    parcels = pd.DataFrame(sorted(atlas.names.items()), columns=["index", "name"])
    blocks = progress(series, "grayordinates", series.n_blocks)
    numbers = parcels["index"].to_numpy()
    options = job.options
    result = dense_parcels(
        blocks, atlas.numbers, numbers, options["min_coverage"], options["estimator"]
    )
    _report_tiny(parcels, dict(enumerate(np.bincount(atlas.numbers).tolist())))
    return parcels, result, {"SamplingFrequency": 1 / series.tr}


def _volume(job: _Job) -> tuple[pd.DataFrame, ParcelSeries, dict[str, Any]]:
    """Parcels (index, name), their series and sidecar fields, from NIfTI."""
    from ..atlas.labels import label_sizes
    from ..atlas.moved import labels_on_grid
    from ..parcellate.extract import parcel_series
    from ..parcellate.stream import open_series

    labels, parcels = _label_image(job)
    volumes = open_series(job.series)
    on_grid, moved = labels_on_grid(labels, volumes.affine, volumes.shape)
    _report_tiny(parcels, label_sizes(on_grid))
    result = parcel_series(
        volumes,
        on_grid,
        _on_grid_of(volumes, job.mask) if job.mask else _seen(volumes),
        parcels["index"].to_numpy(),
        job.options["min_coverage"],
        estimator=job.options["estimator"],
        weights=_on_grid_of(volumes, job.weights) if job.weights else None,
    )
    return parcels, result, {"AtlasMovedToDataGrid": moved}


def _label_image(job: _Job) -> tuple[Image, pd.DataFrame]:
    """The atlas image and its table, checked against each other and the series' space."""
    from ..atlas.check import check_numbers, check_places
    from ..atlas.labels import label_sizes, read_labels
    from ..atlas.table import read_table
    from ..errors import InputError

    known, image = _find_atlas(job.atlas)
    if not job.space_ok:
        _check_space(job, known.space if known else None)
    table = job.table or (known.table if known else None)
    if table is None:
        raise InputError("This atlas image is not registered", file=image, fix="give its --table")
    parcels, labels = read_table(table), read_labels(image)
    n_labels = known.n_labels if known and not job.table else len(parcels)
    check_numbers(label_sizes(labels.data), parcels, n_labels, image)
    check_places(labels, parcels, image)
    return labels, parcels


def _find_atlas(name: str) -> tuple[Atlas | None, Path]:
    """The registered atlas of that name, or of that image, if it is one; and the image."""
    from ..atlas.fetch import locate
    from ..atlas.registry import find_atlas, load_registry
    from ..errors import InputError
    from ..provenance import sha256_file

    path = Path(name)
    if path.is_file():
        digest = sha256_file(path)
        return next((a for a in load_registry().values() if a.sha256 == digest), None), path
    if name.endswith((".nii", ".nii.gz")):
        raise InputError("The atlas image does not exist", file=path)
    atlas = find_atlas(name)
    if atlas.built:
        raise InputError(
            f"{atlas.name} is built for a study, not for a file",
            fix="`brainlm atlas build`, then --atlas with its image and --table",
        )
    return atlas, locate(atlas)


def _check_space(job: _Job, drawn_in: str | None) -> None:
    """Refuse a series that lies in another space than the atlas, or nobody knows in which."""
    from ..errors import InputError

    said = re.search(r"_space-([A-Za-z0-9]+)", job.series.name)
    space = job.space or (said[1] if said else None)
    if drawn_in is None or space is None:
        raise InputError(
            f"In which space the {'atlas' if drawn_in is None else 'series'} lies is not known",
            file=job.atlas if drawn_in is None else job.series,
            fix="--space-ok if both lie in the same" + (", or say --space" if drawn_in else ""),
        )
    if space != drawn_in:
        raise InputError(
            f"The atlas is drawn in {drawn_in}, the series lies in {space}: the two differ by "
            "some mm at places",
            file=job.series,
            fix="--space-ok to accept that",
        )


def _on_grid_of(volumes: VolumeStream, path: Path) -> NDArray:
    from ..atlas.labels import same_grid
    from ..errors import InputError
    from ..images import read_image

    image = read_image(path)
    if not same_grid(image.affine, image.data.shape, volumes.affine, volumes.shape):
        raise InputError("This map and the series lie on different grids", file=path)
    return image.data


def _seen(volumes: VolumeStream) -> NDArray:
    """The voxels that the first volume holds a number for: some pipelines put NaN outside."""
    import numpy as np

    first = next(iter(volumes))
    return np.isfinite(first).reshape(volumes.shape, order="F")


def _report_tiny(parcels: pd.DataFrame, sizes: dict[int, int]) -> None:
    from ..atlas.check import one_voxel_parcels

    if tiny := one_voxel_parcels(sizes, parcels):
        warn(f"{len(tiny)} parcels are of one voxel: {', '.join(tiny)}")


def _write(
    job: _Job,
    out: Path,
    parcels: pd.DataFrame,
    result: ParcelSeries,
    about: dict[str, Any],
    tsv: bool,
) -> None:
    """Write the tables and their sidecars, named after the series."""
    import numpy as np

    from ..parcellate.tables import (
        write_coverage,
        write_coverage_tsv,
        write_series,
        write_series_tsv,
    )

    kind, names = job.options["estimator"], parcels["name"].tolist()
    dropped = int(np.isnan(result.series[0]).sum())
    about |= {"Atlas": _label_of(job.atlas), "ParcelsBelowMinCoverage": dropped}
    stem = out / re.sub(
        r"(_desc-[A-Za-z0-9]+)?(_bold)?(\.dtseries)?\.nii(\.gz)?$", "", job.series.name
    )
    ours, theirs = f"{stem}_atlas-{about['Atlas']}", f"{stem}_seg-{about['Atlas']}"
    with _output(job, Path(f"{ours}_stat-coverage_timeseries.tsv"), about) as path:
        write_coverage(path, parcels, result)
    if tsv:
        with _output(job, Path(f"{theirs}_stat-coverage_bold.tsv"), about) as path:
            write_coverage_tsv(path, names, result)
        with _output(job, Path(f"{theirs}_stat-{kind}_timeseries.tsv"), about) as path:
            write_series_tsv(path, names, result)
    final = Path(f"{ours}_stat-{kind}_timeseries.parquet")
    with _output(job, final, about) as path:
        write_series(path, names, result)
    say(
        f"{final}: {len(result.series)} volumes, {len(names) - dropped} of {len(names)} parcels, "
        f"mean coverage {result.coverage.mean():.0%}"
    )


def _label_of(atlas: str) -> str:
    """What file names call the atlas: letters and digits."""
    name = Path(atlas).name
    for extension in (".gz", ".nii", ".dlabel"):
        name = name.removesuffix(extension)
    return re.sub(r"[^A-Za-z0-9+]", "", name)


@contextlib.contextmanager
def _output(job: _Job, final: Path, about: dict[str, Any]) -> Iterator[Path]:
    """Yield a temporary path; then the sidecar and the file get their names."""
    from ..files import atomic_path
    from ..provenance import sha256_file, software_versions, write_sidecar
    from ..stages import module_digest

    given = {"series": job.series, "mask": job.mask, "weights": job.weights, "table": job.table}
    given["atlas"] = Path(job.atlas) if Path(job.atlas).is_file() else _find_atlas(job.atlas)[1]
    with atomic_path(final) as temporary:
        yield temporary
        write_sidecar(
            final,
            stage="parcellate-file",
            code_digest=module_digest(__name__),
            entities=dict(
                re.findall(r"(sub|ses|task|acq|dir|run|echo)-([A-Za-z0-9]+)", final.name)
            ),
            sources={f"{k}::{v.name}": sha256_file(v) for k, v in given.items() if v},
            parameters={"parcellate": job.options},
            software=software_versions(("isal", "nibabel", "numpy", "pyarrow", "scipy")),
            fields=about,
        )
