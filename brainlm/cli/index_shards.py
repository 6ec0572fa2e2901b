"""`brainlm index-shards`: what the shards hold, and all that is needed to use them beside them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import typer

from ..wording import counted
from ._console import say, warn
from ._parcel_series import planned_shards
from ._stage import HERE, ParamsOption, StageRun, StudyOption

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from ..shards.datasheet import Source


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("index-shards")(index_shards)


def index_shards(study: StudyOption = HERE, params: ParamsOption = None) -> None:
    """Make the shards' folder whole: its index, the scaler, the parcels' table, a datasheet.

    shards/index.parquet says which shard holds which recording, with its split, TR, motion,
    coverage, hash and labels. README.md and croissant.json (Croissant 1.0) describe the folder
    in numbers, without naming anybody. Shards that were made of something else than is there
    now are refused; those of an earlier cohort are removed.
    """
    import pandas as pd

    from ..files import atomic_path
    from ..provenance import sha256_file
    from ..shards.datasheet import describe, write_datasheet
    from ..shards.index import index_table
    from ..shards.keeping import forget_others
    from ..shards.reader import NORMALIZATION_NAME, PARCELS_NAME
    from ..shards.splits import check_leakage

    run = StageRun("index-shards", study, params, software=("numpy", "pyarrow"))
    cohort_path, exclusions_path = run.input("cohort"), run.input("exclusions")
    cohort = pd.read_parquet(cohort_path)
    check_leakage(cohort, cohort_path)
    copies = {
        NORMALIZATION_NAME: run.input("scaler"),
        PARCELS_NAME: run.source(run.path("atlas_table")),
    }
    index_path, shards = run.path("shards_index"), planned_shards(run)
    folder = index_path.parent
    index_path.unlink(missing_ok=True)
    parts, files = _checked_parts(run, shards)
    index = index_table(cohort, parts, cohort_path)
    for name, source in copies.items():
        with atomic_path(folder / name) as path:
            shutil.copyfile(source, path)
        files[name] = sha256_file(source)
    _remove_stale(folder, set(shards))
    forget_others(folder, set(shards))
    dtype = run.params["shards"]["dtype"]
    about = {
        "atlas_sha256": files[PARCELS_NAME],
        "scaler_sha256": files[NORMALIZATION_NAME],
        "dtype": dtype,
    }
    with run.output("shards_index", about=about) as path:
        index.to_parquet(path, index=False)
        exclusions = pd.read_csv(exclusions_path, sep="\t", dtype="string")
        sheet = describe(folder, index, exclusions, _source(run), dtype=dtype)
        write_datasheet(folder, sheet, files | {index_path.name: sha256_file(path)}, path)
    if clipped := int((index["n_clipped"] > 0).sum()):
        worst = index.sort_values("n_clipped")["recording_id"].iloc[-1]
        warn(f"values too large for {dtype} in {counted(clipped, 'recording')}, most in {worst}")
    say(
        f"{counted(len(shards), 'shard')}, {counted(len(index), 'recording')}, "
        f"{int(index['n_timepoints'].sum()):,} volumes"
    )


def _checked_parts(run: StageRun, shards: list[str]) -> tuple[pd.DataFrame, dict[str, str]]:
    """The rows of all shards, and each file's hash; every shard is of this cohort and scaler."""
    import pandas as pd

    from ..errors import DataError
    from ..provenance import read_sidecar, sha256_file
    from ..shards.index import check_part
    from ..shards.plan import split_of
    from ..shards.scaler import load_scaler
    from ..shards.tensorfile import about_of, open_tensors
    from ..shards.writer import SCHEMA_VERSION

    plans = {name: sha256_file(run.path("shard_plan", shard=name)) for name in shards}
    scaler = load_scaler(run.path("scaler")).about
    fitted_on = {name: plan for name, plan in plans.items() if split_of(name) == "train"}
    elsewhere = read_sidecar(run.path("scaler")).get("fitted_elsewhere", False)
    if not elsewhere and scaler["plans"] != fitted_on:
        raise DataError(
            "The scaler was fitted on another cohort than the present one",
            file=run.path("scaler"),
            fix="run `brainlm scale` and `brainlm write-shard` again, then this",
        )
    expected: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "dtype": run.params["shards"]["dtype"],
        "atlas_sha256": sha256_file(run.path("atlas_table")),
        "scaler_sha256": sha256_file(run.path("scaler")),
    }
    tables, hashes = [], {}
    for name in shards:
        part_path, shard = run.input("shard_part", shard=name), run.path("shard", shard=name)
        part = pd.read_parquet(part_path)
        of_shard: Mapping[str, Any] = {
            **expected,
            "split": split_of(name),
            "plan_sha256": plans[name],
        }
        check_part(part, about_of(open_tensors(shard), shard), of_shard, shard)
        tables.append(part)
        hashes[shard.name] = str(read_sidecar(part_path)["ShardSha256"])
    return pd.concat(tables, ignore_index=True), hashes


def _source(run: StageRun) -> Source:
    """What the dataset says of itself: its licence and how to cite it."""
    from ..files import read_json
    from ..shards.datasheet import Source

    path = run.bids_dir / "dataset_description.json"
    try:
        content = read_json(path)
    except (OSError, ValueError):
        content = {}
    return Source.of(content if isinstance(content, dict) else {}, name=run.config.name)


def _remove_stale(folder: Path, current: set[str]) -> None:
    """Drop what an earlier cohort left: shards and parts that the plan does not name any more.

    And what killed jobs left: on a cluster they are run again on other machines, which do not know
    whether the writer of a temporary file still lives. That of one which is older than its finished
    shard does not.
    """
    import re

    from ..shards.plan import SHARD_REGEX
    from ..shards.splits import SPLITS

    temporary = re.compile(rf"\.tmp-.+-[0-9]+-({SHARD_REGEX}\.(?:safetensors|parquet|json))")
    for path in sorted([*folder.glob(".tmp-*"), *(folder / "parts").glob(".tmp-*")]):
        final = path.with_name(found[1]) if (found := temporary.fullmatch(path.name)) else path
        if final != path and final.exists() and final.stat().st_mtime > path.stat().st_mtime:
            path.unlink()

    for split in SPLITS:
        for path in sorted(folder.glob(f"{split}-*.safetensors")):
            if path.stem not in current:
                path.unlink()
    for path in sorted((folder / "parts").iterdir()):
        if path.stem not in current and not path.name.startswith("."):
            path.unlink()
