"""`brainlm parcellate-file`: the parcel series of a file that another pipeline made."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._console import progress, say
from ._given_atlas import atlas_file, label_image, label_of, warn_of_tiny
from ._single_thread import pin_libraries
from .parcellate import TsvOption

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

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
    from ..errors import InputError, about_file

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
    with about_file(series):
        parcels, result, about = _dense(job) if series.name.endswith(_DENSE) else _volume(job)
    _write(job, out, parcels, result, about, tsv)


def _dense(job: _Job) -> tuple[pd.DataFrame, ParcelSeries, dict[str, Any]]:
    """Parcels (index, name), their series and sidecar fields, from CIFTI."""
    import numpy as np
    import pandas as pd

    from ..errors import InputError
    from ..parcellate.cifti import check_models, dense_parcels, open_dtseries, read_dlabel

    if job.mask or job.table or job.space:
        raise InputError("--mask, --table and --space are for NIfTI; CIFTI files hold their own")
    atlas, series = read_dlabel(atlas_file(job.atlas, dense=True)), open_dtseries(job.series)
    check_models(series, atlas)
    parcels = pd.DataFrame(sorted(atlas.names.items()), columns=["index", "name"])
    blocks = progress(series, "grayordinates", series.n_blocks)
    numbers = parcels["index"].to_numpy()
    options = job.options
    result = dense_parcels(
        blocks, atlas.numbers, numbers, options["min_coverage"], options["estimator"]
    )
    warn_of_tiny(parcels, dict(enumerate(np.bincount(atlas.numbers).tolist())))
    return parcels, result, {"SamplingFrequency": 1 / series.tr}


def _volume(job: _Job) -> tuple[pd.DataFrame, ParcelSeries, dict[str, Any]]:
    """Parcels (index, name), their series and sidecar fields, from NIfTI."""
    from ..atlas.labels import beyond_grid, label_sizes
    from ..atlas.moved import labels_on_grid
    from ..parcellate.extract import parcel_series
    from ..parcellate.stream import open_series

    labels, parcels = label_image(
        job.atlas, job.table, job.series, space=job.space, space_ok=job.space_ok
    )
    volumes = open_series(job.series)
    on_grid, moved = labels_on_grid(labels, volumes.affine, volumes.shape)
    warn_of_tiny(parcels, label_sizes(on_grid))
    numbers = parcels["index"].to_numpy()
    result = parcel_series(
        replace(volumes, watch=partial(progress, what="volumes", total=volumes.n_volumes)),
        on_grid,
        _mask(volumes, job.mask) if job.mask else _seen(volumes),
        numbers,
        job.options["min_coverage"],
        estimator=job.options["estimator"],
        weights=_weights(volumes, job.weights) if job.weights else None,
        beyond=beyond_grid(labels, volumes.affine, volumes.shape, numbers) if moved else None,
    )
    return parcels, result, {"AtlasMovedToDataGrid": moved}


def _on_grid_of(volumes: VolumeStream, path: Path) -> NDArray:
    from ..errors import InputError
    from ..geometry import same_grid
    from ..images import read_image

    image = read_image(path)
    if not same_grid(image.affine, image.data.shape, volumes.affine, volumes.shape):
        raise InputError("This map and the series lie on different grids", file=path)
    return image.data


def _mask(volumes: VolumeStream, path: Path) -> NDArray:
    from ..errors import DataError

    mask = _on_grid_of(volumes, path)
    if not (mask > 0).any():
        raise DataError(
            "The brain mask holds no voxel",
            file=path,
            fix="give the mask of this run, or leave --mask away",
        )
    return mask


def _weights(volumes: VolumeStream, path: Path) -> NDArray:
    import numpy as np

    from ..errors import InputError

    weights = _on_grid_of(volumes, path)
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise InputError(
            "Weights are numbers of 0 or more; the map holds others too",
            file=path,
            fix="set its NaN and negative voxels to 0",
        )
    return weights


def _seen(volumes: VolumeStream) -> NDArray:
    """The voxels that the first volume holds a number for: some pipelines put NaN outside."""
    import numpy as np

    first = next(iter(volumes))
    return np.isfinite(first).reshape(volumes.shape, order="F")


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
    about |= {"Atlas": label_of(job.atlas), "ParcelsBelowMinCoverage": dropped}
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


@contextlib.contextmanager
def _output(job: _Job, final: Path, about: dict[str, Any]) -> Iterator[Path]:
    """Yield a temporary path; then the sidecar and the file get their names."""
    from ..files import atomic_path
    from ..provenance import sha256_file, software_versions, write_sidecar
    from ..stages import module_digest

    given = {"series": job.series, "mask": job.mask, "weights": job.weights, "table": job.table}
    given["atlas"] = atlas_file(job.atlas, dense=job.series.name.endswith(_DENSE))
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
