"""`brainlm atlas`: get, list, check and build parcellations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._console import say

if TYPE_CHECKING:
    from ..atlas.registry import Atlas

NameArg = Annotated[str, typer.Argument(help="a name from `brainlm atlas list`")]

atlas_app = typer.Typer(
    help="Get, list, check and build parcellations.\n\n"
    "BrainLM reads the 424 parcels of A424. Its image is fetched once, checked against a "
    "checksum and kept in a cache (BRAINLM_CACHE, else ~/.cache/brainlm). Without a network "
    "the stand-in A424approx serves: same parcels, approximate borders. Your own atlases go "
    "into a YAML file of the form of atlases/registry.yaml, at BRAINLM_REGISTRY.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    app.add_typer(atlas_app, name="atlas")


@atlas_app.command("get")
def get(
    name: NameArg = "A424",
    source: Annotated[
        str | None,
        typer.Option("--from", help="a file or URL to take instead of the registered address"),
    ] = None,
) -> None:
    """Fetch an atlas into the cache, unless it is there; its checksum must be right.

    On a machine without a network: fetch the file elsewhere, then `--from FILE`.
    """
    from ..atlas.fetch import get_atlas
    from ..atlas.registry import find_atlas

    atlas = find_atlas(name)
    path = get_atlas(atlas, source)
    say(f"{atlas.name} ({atlas.licence}; cite {atlas.citation})\n{path}")


@atlas_app.command("list")
def list_atlases() -> None:
    """List the known atlases, and whether each is on this machine."""
    from ..atlas.fetch import cached_path
    from ..atlas.registry import load_registry

    rows = [("name", "labels", "space", "here", "description")]
    for atlas in load_registry().values():
        here = "built" if atlas.built else "yes" if cached_path(atlas).exists() else "no"
        names = " = ".join(atlas.answers_to)
        description = " ".join(atlas.description.split())
        rows.append((names, str(atlas.n_labels), atlas.space or "the study's", here, description))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        say("  ".join([*cells, row[4]]))


@atlas_app.command("check")
def check(
    what: Annotated[str, typer.Argument(help="an atlas name, or a label image on this disk")],
) -> None:
    """Check an atlas: checksum, number of labels, grid, and its table against its image.

    Given a file, it tells which registered atlas the file is. Ends with an error when
    anything does not fit.
    """
    from ..atlas import read_table
    from ..atlas.check import check_numbers, check_places
    from ..atlas.fetch import locate
    from ..atlas.labels import label_sizes, read_labels
    from ..atlas.registry import DENSE, find_atlas, load_registry
    from ..errors import InputError
    from ..provenance import sha256_file

    if Path(what).is_file():
        path = Path(what)
        digest = sha256_file(path)
        atlas = next((a for a in load_registry().values() if a.sha256 == digest), None)
        say(f"registered as  {atlas.name if atlas else 'nothing: these bytes are not known'}")
    else:
        atlas = find_atlas(what)
        if atlas.built:
            raise InputError(f"{atlas.name} has no image to check", fix="`brainlm atlas build`")
        path = locate(atlas)
        digest = sha256_file(path)
    if path.name.endswith(DENSE):
        _check_dense(path, digest, atlas)
        return
    labels = read_labels(path)
    sizes = label_sizes(labels.data)
    say(f"file           {path}")
    say(f"sha256         {digest}")
    zooms = " x ".join(f"{zoom:g}" for zoom in labels.zooms)
    say(f"grid           {' x '.join(map(str, labels.data.shape))} voxels of {zooms} mm")
    smallest = min(sizes, key=lambda label: sizes[label], default=0)
    say(f"labels         {len(sizes)}; the smallest is {smallest}: {sizes.get(smallest, 0)} voxels")
    if atlas is None:
        return
    table = read_table(atlas.table)
    check_numbers(sizes, table, atlas.n_labels, path)
    found = check_places(labels, table, path)
    say(
        f"places         {found.n_elsewhere} of {found.n_present} parcels far from the table's "
        f"coordinates, {found.n_wrong_side} on the other side"
    )
    absent = table["name"][~table["index"].isin(sizes)].tolist()
    say(f"table          {len(table)} parcels; without a voxel: {', '.join(absent) or 'none'}")
    say(f"{atlas.name} is as it should be")


def _check_dense(path: Path, digest: str, atlas: Atlas | None) -> None:
    """Print what is on record about labels of grayordinates."""
    import numpy as np

    from ..atlas.check import check_numbers
    from ..atlas.table import read_table
    from ..parcellate.cifti import read_dlabel

    labels = read_dlabel(path)
    numbers, counts = np.unique(labels.numbers[labels.numbers > 0], return_counts=True)
    sizes = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    outside = int((labels.numbers == 0).sum())
    say(f"file           {path}")
    say(f"sha256         {digest}")
    say(f"grayordinates  {len(labels.numbers):,}, {outside:,} of them in no parcel")
    say(f"labels         {len(sizes)}; the smallest has {min(sizes.values(), default=0)}")
    if atlas is not None:
        check_numbers(sizes, read_table(atlas.table), atlas.n_labels, path)
        say(f"{atlas.name} is as it should be")


@atlas_app.command("build")
def build(
    resolution_mm: Annotated[float, typer.Option(help="voxel size, mm", min=1, max=8)] = 2.0,
    output: Annotated[
        Path | None, typer.Option(help="label image to write; default: here, in BIDS names")
    ] = None,
    space: Annotated[str, typer.Option(help="template")] = "MNI152NLin2009aSym",
) -> None:
    """Build A424approx, the offline stand-in for A424.

    Each voxel of the template's grey matter takes the nearest of the 424 centres of A424.
    The workflow does this by itself when atlas.name is A424approx.
    """
    from ..atlas import load_table
    from ..atlas.build import approximate_labels
    from ..atlas.registry import APPROXIMATE
    from ..errors import InputError
    from ..images import write_image

    if output is None:
        res = f"{resolution_mm:g}".replace(".", "p")
        output = Path(f"atlas-{APPROXIMATE}_space-{space}_res-{res}_dseg.nii.gz")
    elif APPROXIMATE not in output.name or not output.name.endswith(".nii.gz"):
        raise InputError(
            f"The name must hold {APPROXIMATE} and end in .nii.gz, so that nobody takes the "
            "stand-in for the real A424",
            file=output,
        )
    labels = approximate_labels(load_table(), space, resolution_mm)
    write_image(output, labels.data, labels.affine, in_mni=True)
    say(str(output))
