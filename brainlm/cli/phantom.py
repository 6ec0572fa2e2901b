"""`brainlm phantom`: make a BIDS dataset of which everything is known."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._console import progress, say
from ._single_thread import pin_libraries
from ._stage import ThreadsOption

if TYPE_CHECKING:
    import pandas as pd

    from ..images import Image
    from ..phantom.dataset import Markers


class FieldMaps(StrEnum):
    """Which field maps a distorted phantom has."""

    alternate = "alternate"
    phasediff = "phasediff"
    pepolar = "pepolar"
    none = "none"


class Corruption(StrEnum):
    """The kinds of bad data; what each does stands in `brainlm.phantom.parameters`."""

    missing_tr = "missing-tr"
    tr_in_ms = "tr-in-ms"
    truncated_gz = "truncated-gz"
    nan_volumes = "nan-volumes"
    wrong_affine = "wrong-affine"
    flipped_left_right = "flipped-left-right"
    too_short = "too-short"
    duplicate_id = "duplicate-id"
    empty_t1w = "empty-t1w"
    uneven_runs = "uneven-runs"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("phantom")(phantom)


def phantom(
    out: Annotated[Path, typer.Argument(help="new folder of the dataset")],
    subjects: Annotated[int, typer.Option(help="healthy subjects")] = 8,
    seed: Annotated[int, typer.Option(help="another seed gives other people and scans")] = 1,
    volumes: Annotated[int, typer.Option(help="length of a run")] = 220,
    tr: Annotated[float, typer.Option(help="repetition time, s")] = 2.0,
    voxel_mm: Annotated[float, typer.Option(help="BOLD voxel, mm")] = 4.0,
    t1w_mm: Annotated[float, typer.Option(help="T1w voxel, mm")] = 2.0,
    sites: Annotated[
        int, typer.Option(help="scanner sites, which differ in grid, slice order and gain")
    ] = 2,
    two_runs: Annotated[
        int, typer.Option(help="so many subjects have two runs: sub-02, sub-05, ...")
    ] = 1,
    two_sessions: Annotated[
        int, typer.Option(help="so many subjects have two sessions: sub-03, sub-06, ...")
    ] = 1,
    motion_mm: Annotated[
        float, typer.Option(help="scale of head motion; 1 gives a mean FD of about 0.2 mm")
    ] = 1.0,
    deform_mm: Annotated[
        float, typer.Option(help="RMS of the nonlinear deformation of the brain, mm")
    ] = 2.5,
    signal_percent: Annotated[
        float, typer.Option(help="SD of the parcel signals, % of the baseline")
    ] = 2.0,
    noise: Annotated[
        float, typer.Option(help="scale of thermal, coloured, drift and physiological noise")
    ] = 1.0,
    artefacts: Annotated[
        bool, typer.Option(help="spikes, slice dropouts and a head-edge component")
    ] = True,
    skull: Annotated[bool, typer.Option(help="a simple skull and scalp")] = False,
    distortion_mm: Annotated[
        float,
        typer.Option(help="largest shift in the brain by susceptibility distortion, mm; 0: none"),
    ] = 0.0,
    fieldmaps: Annotated[
        FieldMaps,
        typer.Option(help="of distorted subjects: phasediff and pepolar in turn, or one, or none"),
    ] = FieldMaps.alternate,
    atlas: Annotated[
        str,
        typer.Option(
            help="where the parcels lie: A424approx, or a name of `brainlm atlas list` "
            "that has been fetched"
        ),
    ] = "A424approx",
    corrupt: Annotated[
        list[Corruption] | None,
        typer.Option(help="add one subject with this fault (may be repeated)"),
    ] = None,
    threads: ThreadsOption = 2,
    force: Annotated[bool, typer.Option(help="replace another phantom that stands there")] = False,
) -> None:
    """Make a BIDS dataset of which everything is known.

    Each subject is the MNI template under its own smooth deformation, with age, sex and a
    clinical score that shape how its 424 parcels fluctuate. The scans hold motion, drift,
    heartbeat, breathing, signal loss, artefacts and noise. The truth stands in
    OUT/derivatives/phantom-truth: per run the head's pose and FD, the parcel signals and the
    artefacts; per T1w the deformation; and traits.tsv and phantom.json with every parameter.
    `brainlm phantom-check` compares a study with it.

    Equal options and seed give equal bytes, whatever --threads is. A complete dataset made
    with the same options is left alone; one that was interrupted is made anew.

    --corrupt adds one further subject per kind, listed in phantom.json, and leaves the
    healthy ones as they are:

    \b
    missing-tr          no RepetitionTime in the JSON, 0 in the header
    tr-in-ms            RepetitionTime in ms in the JSON; the header is right
    truncated-gz        the BOLD file ends at 60% of its bytes
    nan-volumes         three volumes are NaN
    wrong-affine        the BOLD lies 200 mm to the right of the T1w
    flipped-left-right  the BOLD data are mirrored, the affine is not
    too-short           20 volumes
    duplicate-id        two rows in participants.tsv; BOLD as .nii and .nii.gz
    empty-t1w           the T1w has 0 bytes
    uneven-runs         the second run is longer, with another TR
    """
    pin_libraries()
    from ..phantom.dataset import generate, is_complete
    from ..phantom.parameters import Parameters

    table, labels, atlas_name = load_atlas(atlas)
    parameters = Parameters(
        subjects=subjects,
        seed=seed,
        volumes=volumes,
        tr=tr,
        voxel_mm=voxel_mm,
        t1w_mm=t1w_mm,
        sites=sites,
        two_runs=two_runs,
        two_sessions=two_sessions,
        motion_mm=motion_mm,
        deform_mm=deform_mm,
        signal_percent=signal_percent,
        noise=noise,
        artefacts=artefacts,
        skull=skull,
        distortion_mm=distortion_mm,
        fieldmaps=fieldmaps.value,
        atlas=atlas_name,
        corrupt=tuple(kind.value for kind in corrupt or ()),
    )
    if is_complete(out, parameters, force=force):
        say(f"{out} already holds this phantom")
        return

    def shown(scans: Iterator[Markers], total: int) -> Iterator[Markers]:
        return progress(scans, "Scanning the phantom", total=total)

    generate(out, parameters, table, labels, workers=threads, progress=shown)
    say(f"Phantom with known truth: {out}")


def load_atlas(name: str) -> tuple[pd.DataFrame, Image, str]:
    """Table and label image of a registered atlas, and its proper name."""
    from ..atlas.build import approximate_labels
    from ..atlas.fetch import locate
    from ..atlas.labels import read_labels
    from ..atlas.registry import find_atlas
    from ..atlas.table import read_table
    from ..errors import InputError
    from ..phantom.parameters import SPACE

    atlas = find_atlas(name)
    table = read_table(atlas.table)
    if not {"structure", "yeo7_network"} <= set(table.columns):
        raise InputError(
            f"The table of {atlas.name} does not say to which network each parcel belongs",
            file=atlas.table,
            fix="add the columns structure (cortex, subcortex, cerebellum) and yeo7_network",
        )
    if atlas.built:
        return table, approximate_labels(table, SPACE, 2.0), atlas.name
    return table, read_labels(locate(atlas)), atlas.name
