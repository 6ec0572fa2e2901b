"""`brainlm shards`: look at a folder of shards, and check every byte of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..wording import counted
from ._console import progress, say, warn
from ._shards_export import export
from ._stage import ThreadsOption

if TYPE_CHECKING:
    import pandas as pd

    from ..shards.verify import Fault

FolderArg = Annotated[Path, typer.Argument(help="the folder that holds index.parquet")]
DEFAULT = Path("shards")
#: Faults told by name; one damaged disk can make thousands.
_MOST_TOLD = 50

shards_app = typer.Typer(
    help="Look at shards, check and export them.\n\n"
    "Each verb takes a folder of shards (default, but for export: ./shards) and needs nothing else "
    "of the study: the folder may have been copied to another machine.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    app.add_typer(shards_app, name="shards")
    shards_app.command("export")(export)


@shards_app.command("info")
def info(
    folder: FolderArg = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="the same as JSON")] = False,
) -> None:
    """Count shards, recordings, subjects, hours and volumes by split, and the labels.

    Also how values are scaled and stored, and what storing them changed. Reads the index alone.
    """
    from ..shards.reader import NORMALIZATION_NAME, PARCELS_NAME
    from ..shards.scaler import load_scaler
    from ..shards.summary import summarise
    from ..shards.tensorfile import about_of, open_tensors

    index = _read_index(folder)
    first = folder / str(index["shard"].iloc[0])
    header = about_of(open_tensors(first), first)
    names = (folder / PARCELS_NAME).read_text(encoding="utf-8").splitlines()[1:]
    content = {
        "schema_version": header["schema_version"],
        "method": header["method"],
        "parcels": len(names),
        "usable_parcels": int(load_scaler(folder / NORMALIZATION_NAME).usable.sum()),
        "scaler_sha256": header["scaler_sha256"],
        "atlas_sha256": header["atlas_sha256"],
        **summarise(index, parcels=len(names), dtype=header["dtype"]),
    }
    if as_json:
        say(json.dumps(content, indent=2, sort_keys=True))
        return
    for line in _told(content):
        say(line)


@shards_app.command("head")
def head(
    recording: Annotated[str, typer.Argument(help="recording_id")],
    folder: FolderArg = DEFAULT,
    volumes: Annotated[int, typer.Option(help="volumes to show", min=1)] = 5,
    parcels: Annotated[int, typer.Option(help="parcels to show", min=1)] = 8,
) -> None:
    """Show the first values of a recording, and what the index says of it."""
    import numpy as np

    from ..shards.reader import ShardReader

    _read_index(folder)
    reader = ShardReader(folder)
    if recording not in reader.table.index:
        raise _unknown(recording, [str(name) for name in reader.table.index], folder)
    for name, value in reader.table.loc[recording].items():
        say(f"{name!s:<16} {value}")
    values = reader.series(recording)[:volumes, :parcels]
    names = [str(name) for name in reader.parcels["name"][: values.shape[1]]]
    width = max(10, *(len(name) + 2 for name in names))
    say("\n" + "volume".ljust(8) + "".join(name.rjust(width) for name in names))
    for number, row in enumerate(np.asarray(values)):
        say(str(number).ljust(8) + "".join(f"{value:{width}.4f}" for value in row))


@shards_app.command("verify")
def verify(folder: FolderArg = DEFAULT, threads: ThreadsOption = 1) -> None:
    """Read every byte of the shards and compare it with what the folder says about itself.

    Hashes, shapes and types of all tensors; counts; NaN only as whole parcels, nothing infinite;
    index, headers, scaler and parcels of one another; no subject or family in two splits; no
    file that does not belong. Ends with 3 and every fault if there is any.
    """
    from ..errors import DataError
    from ..shards.datasheet import CROISSANT_NAME
    from ..shards.verify import verify_all

    _check_is_whole(folder)
    index, faults = verify_all(folder, _on_threads(threads))
    for fault in faults[:_MOST_TOLD]:
        say(f"{fault.file.name}: {fault.what}\n  fix:  {fault.fix}")
    if faults:
        raise DataError(
            f"{len(faults)} fault{'s' * (len(faults) != 1)} in the shards"
            + (f", the first {_MOST_TOLD} above" if len(faults) > _MOST_TOLD else ", see above"),
            file=folder,
        )
    if not (folder / CROISSANT_NAME).exists():
        warn(
            f"{CROISSANT_NAME} is not there, which has the hashes of the index and the other small "
            "files: a change in labels, say, would not have been noticed"
        )
    volumes = int(index["n_timepoints"].sum())
    say(
        f"{counted(index['shard'].nunique(), 'shard')}, {counted(len(index), 'recording')}, "
        f"{counted(index['subject'].nunique(), 'subject')}, {volumes:,} volumes: all is as it "
        "was written, and no subject is in two splits"
    )


def _on_threads(
    threads: int,
) -> Callable[[Callable[[str], list[Fault]], list[str]], Iterator[list[Fault]]]:
    """A map that works on several shards at once and shows how far it is."""

    def each(function: Callable[[str], list[Fault]], names: list[str]) -> Iterator[list[Fault]]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(threads) as pool:
            yield from progress(pool.map(function, names), "verifying", len(names))

    return each


def _check_is_whole(folder: Path) -> None:
    """Every small file that a folder of shards must have is there."""
    from ..errors import InputError
    from ..shards.reader import INDEX_NAME, NORMALIZATION_NAME, PARCELS_NAME

    for name in (INDEX_NAME, NORMALIZATION_NAME, PARCELS_NAME):
        if not (folder / name).is_file():
            raise InputError(
                f"This folder holds no whole set of shards: {name} is not there",
                file=folder,
                fix="name the folder that holds index.parquet; if it was interrupted while it was "
                "made, run the workflow again",
            )


def _read_index(folder: Path) -> pd.DataFrame:
    """The index of a folder of shards."""
    import pandas as pd

    from ..errors import InputError
    from ..shards.index import check_columns
    from ..shards.reader import INDEX_NAME

    _check_is_whole(folder)
    try:
        index = pd.read_parquet(folder / INDEX_NAME)
    except (OSError, ValueError) as error:
        raise InputError(
            f"The index cannot be read: {error}",
            file=folder / INDEX_NAME,
            fix="run `brainlm index-shards` in the study, or copy the folder anew",
        ) from None
    check_columns(index, folder / INDEX_NAME)
    return index


def _unknown(recording: str, names: list[str], folder: Path) -> Exception:
    from difflib import get_close_matches

    from ..errors import InputError

    near = get_close_matches(recording, names, n=3) or names[:3]
    return InputError(
        f"{recording} is not in the shards",
        file=folder / "index.parquet",
        fix=f"names look like {', '.join(near)}",
    )


def _told(content: dict[str, Any]) -> Iterator[str]:
    """What `info` says."""
    splits, storage = content["splits"], content["storage"]
    columns = ("shards", "recordings", "subjects", "hours", "volumes", "megabytes")
    yield "split   " + "".join(name.rjust(12) for name in (*columns[:-1], "MB")) + "   TR, s"
    for split, numbers in splits.items():
        cells = [
            f"{numbers[name]:,.1f}" if isinstance(numbers[name], float) else f"{numbers[name]:,}"
            for name in columns
        ]
        trs = ", ".join(f"{tr} ({count:,})" for tr, count in numbers["tr"].items())
        yield split.ljust(8) + "".join(cell.rjust(12) for cell in cells) + f"   {trs}"
    yield ""
    usable = f"{content['usable_parcels']} of {content['parcels']} parcels"
    yield f"scaled   {content['method']}; {usable}"
    yield (
        f"stored   {storage['dtype']}, error {storage['error_rms']:g} rms, "
        f"{storage['error_max']:g} at most; {storage['clipped_values']:,} values clipped in "
        f"{storage['clipped_recordings']:,} recordings"
    )
    labels = ", ".join(f"{name} ({count:,})" for name, count in content["labels"].items())
    yield f"labels   {labels or 'none'}"
