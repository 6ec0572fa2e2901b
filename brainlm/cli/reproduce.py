"""`brainlm reproduce`: do a sample of a study again, and tell how far it is from what stands."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DataError, NotMadeError
from ..wording import counted
from ._console import say, warn
from ._stage import HERE, StudyOption, ThreadsOption

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..config import Config
    from ..layout import Study
    from ..recordings import Recording
    from ..reproduce.compare import Compared
    from ..reproduce.recorded import Recorded

_SAMPLE = 3

SampleOption = Annotated[
    int | None,
    typer.Option(
        help=f"recordings to draw, evenly over the splits; default: {_SAMPLE}, or none besides "
        "those of --recording",
        min=0,
    ),
]
SeedOption = Annotated[int, typer.Option(help="of the draw: another seed, other recordings")]
RecordingOption = Annotated[
    list[str] | None, typer.Option("--recording", help="a recording to do again; may be repeated")
]
StepsOption = Annotated[
    int,
    typer.Option(
        help="steps of the pretraining to do again; as many as it has or more: all of it, and the "
        "weights are compared; 0: none",
        min=0,
    ),
]
KeepOption = Annotated[
    Path | None,
    typer.Option(help="where to make the scratch study, and keep it; default: in $TMPDIR"),
]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("reproduce")(reproduce)


def reproduce(
    study: StudyOption = HERE,
    sample: SampleOption = None,
    seed: SeedOption = 1,
    recording: RecordingOption = None,
    training_steps: StepsOption = 5,
    keep: KeepOption = None,
    threads: ThreadsOption = 1,
) -> None:
    """Do a sample of a finished study again, and compare every file with what stands there.

    In a scratch study that shares the raw data and the recorded options alone: recordings from raw
    data to parcels by the same workflow, their tensors in the shards, the first steps of the
    pretraining, and the scores of the recorded predictions. Files are the same byte for byte, or
    their distance is set against their stage's tolerance (docs/reproduce.md). Where code or
    libraries are others than those recorded, it says so, and goes on: that is a comparison, no
    reproduction. Interrupted, the same command goes on where it was. Writes nothing into the study
    but reports/reproduce.json; exits 3 when anything is beyond its tolerance.
    """
    from ..config import load_config
    from ..files import exclusive, write_json
    from ..layout import Study
    from ..reproduce.recorded import Recorded
    from ..reproduce.result import summary_of
    from ._reproduce_models import circumstances, compare_scores, compare_shards, compare_training
    from ._reproduce_recordings import prepare_scratch, remove_scratch

    folder = Study(study.resolve())
    config = load_config(folder.path("config"))
    count = (0 if recording else _SAMPLE) if sample is None else sample
    splits, drawn = _draw(folder, config, count, seed, recording or [])
    scratch = prepare_scratch(folder, (keep or _default_place(folder)).resolve())
    seen = Recorded(config)
    with exclusive(scratch.root / ".lock", what="Another `brainlm reproduce` works here"):
        compared, shown = _do_again(folder, scratch, config, drawn, seen, threads)
        compared += compare_shards(folder, scratch, drawn, shown, seen)
        rows, training = compare_training(folder, scratch, config, seen, training_steps)
        compared += [*rows, *compare_scores(folder, config, seen)]
    content = summary_of(
        compared,
        sample=[{"recording": one.id, "split": splits[one.id]} for one in drawn],
        seed=seed,
        training=training,
        circumstances={**circumstances(seen), "of": _state(folder, config)},
    )
    write_json(folder.path("reproduced"), content)
    if keep is None:
        remove_scratch(scratch)
    _tell(content, folder.path("reproduced"))


def _default_place(study: Study) -> Path:
    """The same for the same study, so that a rerun that was interrupted is found again."""
    name = hashlib.sha256(str(study.root).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"brainlm-reproduce-{name}"


def _draw(
    study: Study, config: Config, count: int, seed: int, named: Sequence[str]
) -> tuple[dict[str, str], list[Recording]]:
    """Who is in which split, and the recordings to do again."""
    from ..layout import folder_of
    from ..provenance import is_tombstone
    from ..recordings import load_recording, read_table
    from ..reproduce.sample import check_known, draw

    path = study.path("recordings")
    table, splits = read_table(path), _splits(study)
    finished = []
    for name in table.loc[table["eligible"].fillna(False).astype(bool), "recording_id"].astype(str):
        place = {"recording": name, "folder": folder_of(name)}
        series = study.path("timeseries", **config.labels, **place)
        if series.exists() and not is_tombstone(series):
            finished.append(name)
    check_known(named, finished, path)
    of_each = {name: splits.get(name, "") for name in finished}
    if not finished:
        raise NotMadeError(
            "No recording of this study has become parcels yet, so there is nothing to do again",
            file=study.root,
            fix="run the workflow first: snakemake --profile local parcellations",
        )
    rest = {name: split for name, split in of_each.items() if name not in named}
    chosen = [*dict.fromkeys(named), *draw(rest, count, seed)]
    bids_dir = config.resolve_bids_dir(study.root)
    return of_each, [load_recording(path, name, bids_dir) for name in chosen]


def _state(study: Study, config: Config) -> dict[str, str]:
    """Hashes by which the report tells that the study has changed since."""
    from ..provenance import sha256_file

    kinds = ("recordings", "cohort", "shards_index", "model")
    paths = [study.path(kind, run=config.pretrain.run) for kind in kinds]
    return {study.relative(path): sha256_file(path) for path in paths if path.exists()}


def _splits(study: Study) -> dict[str, str]:
    """Recording -> split, of the cohort where there is one."""
    import pandas as pd

    path = study.path("cohort")
    if not path.exists():
        return {}
    table = pd.read_parquet(path, columns=["recording_id", "split"])
    return dict(zip(table["recording_id"].astype(str), table["split"].astype(str), strict=True))


def _do_again(
    study: Study,
    scratch: Study,
    config: Config,
    drawn: Sequence[Recording],
    seen: Recorded,
    threads: int,
) -> tuple[list[Compared], Config]:
    """Recordings from raw data to parcels, compared; and the config that they were made with."""
    from ..reproduce.recorded import check_raw, files_of, sections_of
    from ._reproduce_recordings import compare_recordings, make_again, recorded_config

    sections: dict[str, Any] = {}
    for one in drawn:
        files = files_of(study, one, config.labels).values()
        sidecars = [found for path in files if (found := seen.note(path)) is not None]
        check_raw(sidecars, one.bids_dir)
        sections[one.id] = sections_of(sidecars)
    if drawn:
        say(f"{counted(len(drawn), 'recording')} from raw data to parcels, in {scratch.root}")
        make_again(study, scratch, drawn, sections, threads)
    configs = {name: recorded_config(study, own) for name, own in sections.items()}
    compared = compare_recordings(study, scratch, drawn, configs, seen)
    return compared, next(iter(configs.values()), config)


def _tell(content: Mapping[str, Any], path: Path) -> None:
    """What came of it, in lines; an error where something is too far off."""
    from ..reproduce.compare import BAD

    for other, word in (("other_code", "stage"), ("other_software", "package")):
        for one in content[other]:
            warn(f"{one[word]}: made by {', '.join(one['recorded'])}, now {one['now']}")
    for one in content["other_options"]:
        warn(f"{one['option']} is {one['now']} in the config, and was {one['recorded']} then")
    for stage in content["stages"]:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in stage["counts"].items())
        say(f"{stage['stage']}: {counts}")
    say(f"{content['kind']}: {content['verdict']} ({path})")
    bad = [one for one in content["differences"] if one["verdict"] in BAD]
    if bad:
        first = bad[0]
        far = f", {first['max_relative']:.2g} SD apart" if "max_relative" in first else ""
        raise DataError(
            f"{counted(len(bad), 'result')} could not be had again, the first: {first['what']} "
            f"({first['verdict']}{far}{'; ' + first['note'] if first['note'] else ''})",
            file=path,
            fix="look at that file and what it was made of: it was changed since, or made by "
            "other code, options or libraries than those named above",
        )
