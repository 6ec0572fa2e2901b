"""Reading a whole dataset of another pipeline into the recordings table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ...config import Config, Derivatives
from ...errors import InputError
from ..dataset import dataset_name
from ..participants import read_participants
from ..table import Limits
from .choice import Wanted
from .detect import chosen_layout
from .run import Kind, ReadyRun
from .table import Measure, Progress, check_found, ready_table

if TYPE_CHECKING:
    import pandas as pd

#: What can be read of each layout; the first is what `auto` takes.
READABLE: dict[str, tuple[Kind, ...]] = {
    "fmriprep": ("volume",),
    "xcpd": ("volume", "dense", "parcels"),
    "hcp": ("volume", "dense"),
    "ukb": ("volume",),
    "tables": ("parcels",),
}


def read_ready(
    root: Path,
    config: Config,
    study: Path,
    *,
    participants: Path | None,
    measure: Measure,
    full: bool,
    threads: int,
    progress: Progress,
) -> tuple[pd.DataFrame, list[str]]:
    """The recordings table of the dataset at `root`, and notes about the dataset as a whole.

    `participants` is a table of labels that lies elsewhere than in the dataset; `measure` reads
    what is no 4-D image; relative paths of the config start at `study`.
    """
    layout = chosen_layout(root, config.derivatives.layout)
    kind = chosen_kind(layout, config.derivatives.read, root)
    runs = find_runs(root, config, study, layout, kind)
    check_found(runs, root, layout, kind)
    if participants is not None and not participants.is_file():
        raise InputError("The table of participants does not exist", file=participants)
    ids = (run.recording_id for run in runs)
    people = read_participants(
        participants or root / "participants.tsv",
        {name.partition("_")[0].removeprefix("sub-") for name in ids},
    )
    name, notes = dataset_name(root)
    notes = notes if layout in ("fmriprep", "xcpd") else []  # BIDS asks it of these
    table = ready_table(
        runs,
        root,
        people,
        Limits(**config.eligibility.model_dump()),
        name,
        measure=measure,
        default_tr=config.derivatives.tr,
        full=full,
        threads=threads,
        progress=progress,
    )
    return table, [*notes, *people.notes]


def chosen_kind(layout: str, asked: str, root: Path) -> Kind:
    """What to read of a layout: what the config asks for, if it can be read."""
    can = READABLE[layout]
    if asked != "auto" and asked not in can:
        raise InputError(
            f"Of layout {layout}, {' or '.join(can)} can be read, not {asked}",
            file=root,
            fix="set derivatives.read accordingly. fMRIPrep's CIFTI series are not denoised: "
            "give XCP-D's, or read volumes",
        )
    return can[0] if asked == "auto" else cast(Kind, asked)


def has_space(root: Path, options: Derivatives, space: str) -> bool:
    """Whether the dataset's series lie in that template space, as far as their names tell."""
    layout = chosen_layout(root, options.layout)
    if chosen_kind(layout, options.read, root) != "volume":
        return True  # parcels and grayordinates are the atlas' own
    if layout in ("hcp", "ukb"):
        return space == "MNI152NLin6Asym"
    return any(root.glob(f"sub-*/**/*_space-{space}_*bold.nii*"))


def find_runs(root: Path, config: Config, study: Path, layout: str, kind: Kind) -> list[ReadyRun]:
    """All runs of the dataset."""
    space, options = config.space, config.derivatives
    wanted = Wanted(space.template, space.resolution_mm, any_space=options.space_ok)
    if layout == "fmriprep":
        from . import fmriprep

        aroma = study / options.aroma_dir if options.aroma_dir else None
        if aroma is not None and not aroma.is_dir():
            raise InputError(
                "The folder that derivatives.aroma_dir names does not exist",
                file=aroma,
                fix="relative paths start at the study folder; leave it empty to seek components",
            )
        return fmriprep.find_runs(root, wanted, aroma=aroma)
    if layout == "xcpd":
        from . import xcpd

        return xcpd.find_runs(root, wanted, kind, config.atlas.name)
    if layout == "hcp":
        from . import hcp

        if kind == "dense":
            return hcp.find_runs(root, "dense")
        return [_in_space(run, hcp.SPACE, wanted) for run in hcp.find_runs(root, "volume")]
    if layout == "ukb":
        from . import ukb

        return [_in_space(run, ukb.SPACE, wanted) for run in ukb.find_runs(root)]
    from . import tables

    return tables.find_runs(root, atlas=config.atlas.name, default_tr=options.tr)


def _in_space(run: ReadyRun, space: str, wanted: Wanted) -> ReadyRun:
    """The run, with a fault where it lies (or its warp leads) elsewhere than the study reads."""
    if space == wanted.space:
        return run
    if wanted.any_space:
        note = f"read in {space} as if it were {wanted.space}: they differ by some mm"
        return replace(run, notes=(*run.notes, note))
    return replace(run, faults=(*run.faults, f"no series in {wanted.space}: it is in {space}"))
