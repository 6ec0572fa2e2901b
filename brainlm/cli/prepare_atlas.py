"""`brainlm prepare-atlas`: the study's label image, on the grid of its normalised series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._console import say, warn
from ._stage import HERE, ParamsOption, StageRun, StudyOption

if TYPE_CHECKING:
    import pandas as pd

    from ..atlas.registry import Atlas
    from ..images import Image


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("prepare-atlas")(prepare_atlas)


TableOnlyOption = Annotated[
    bool,
    typer.Option("--table-only", help="write the table alone: for data that come as parcels"),
]


def prepare_atlas(
    study: StudyOption = HERE, params: ParamsOption = None, table_only: TableOnlyOption = False
) -> None:
    """Put the atlas of the config on the grid of the study's normalised series.

    Writes atlas/atlas-NAME_space-SPACE_res-MM_dseg.nii.gz (whole numbers, 0 is outside)
    and the table of its parcels. A424approx is built; every other atlas must have been
    fetched (`brainlm atlas get`) and is moved by nearest neighbour in world space. An atlas
    drawn in another MNI space is refused unless atlas.space_ok is true, and so is one whose labels
    are not those of its table or lie elsewhere than it says (left and right swapped, say).
    """
    from ..atlas.check import one_voxel_parcels
    from ..atlas.fetch import atlas_problems
    from ..atlas.labels import label_sizes
    from ..atlas.registry import find_atlas
    from ..atlas.table import read_table
    from ..images import write_image

    run = StageRun("prepare-atlas", study, params, software=("nibabel", "numpy", "scipy"))
    space, zoom = run.params["space"]["template"], run.params["space"]["resolution_mm"]
    atlas = find_atlas(run.params["atlas"]["name"])
    if table_only:
        _write_table(run, read_table(atlas.table), _about(atlas, [], []))
        return
    for problem in atlas_problems(atlas, space, run.params["atlas"]["space_ok"]):
        raise problem
    run.template()
    table = read_table(atlas.table)
    labels = _build(atlas, space, zoom) if atlas.built else _move(atlas, space, zoom, run)
    sizes = label_sizes(labels.data)
    if tiny := one_voxel_parcels(sizes, table):
        say(f"{len(tiny)} parcels have one voxel only: {', '.join(tiny)}")
    lost = table["name"][~table["index"].isin(sizes)].tolist()
    if lost:
        warn(f"{len(lost)} parcels have no voxel on this grid: {', '.join(lost)}")
    about = _about(atlas, lost, tiny)
    _write_table(run, table, about)
    with run.output("atlas_image", about=about) as path:
        write_image(path, labels.data, labels.affine, in_mni=True, atomic=False)
    say(f"{atlas.name}: {len(table) - len(lost)} parcels on {labels.data.shape} at {zoom:g} mm")


def _write_table(run: StageRun, table: pd.DataFrame, about: dict[str, Any]) -> None:
    with run.output("atlas_table", about=about) as path:
        table.to_csv(path, sep="\t", index=False, na_rep="n/a", lineterminator="\n")


def _build(atlas: Atlas, space: str, zoom: float) -> Image:
    from ..atlas.build import approximate_labels
    from ..atlas.table import read_table

    return approximate_labels(read_table(atlas.table), space, zoom)


def _move(atlas: Atlas, space: str, zoom: float, run: StageRun) -> Image:
    from ..atlas.check import check_numbers, check_places
    from ..atlas.fetch import locate
    from ..atlas.labels import label_sizes, read_labels, resample_labels
    from ..atlas.table import read_table
    from ..images import Image, load_template
    from ..provenance import sha256_file

    path = locate(atlas)
    drawn, table = read_labels(path), read_table(atlas.table)
    check_numbers(label_sizes(drawn.data), table, atlas.n_labels, path)
    check_places(drawn, table, path)
    run.sources[f"atlas::{path.name}"] = sha256_file(path)
    grid = load_template(space, "GM", zoom)
    moved = resample_labels(drawn, grid.affine, grid.data.shape)
    return Image(moved, grid.affine)


def _about(atlas: Atlas, lost: list[str], tiny: list[str]) -> dict[str, Any]:
    return {
        "Atlas": atlas.name,
        "Approximate": atlas.built,
        "DrawnInSpace": atlas.space,
        "SourceURL": atlas.url,
        "License": atlas.licence,
        "ReferencesAndLinks": [atlas.citation],
        "ParcelsWithoutVoxel": lost,
        "ParcelsOfOneVoxel": tiny,
    }
