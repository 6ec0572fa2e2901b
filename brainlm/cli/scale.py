"""`brainlm scale`: the scale of each parcel, from the train split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from ._console import say, warn
from ._scaling import Train, measure_in_scratch, read_train, sample_brackets
from ._stage import HERE, ParamsOption, StageRun, StudyOption, ThreadsOption

if TYPE_CHECKING:
    from pathlib import Path

    from ..shards.brackets import Brackets
    from ..shards.parts import Part
    from ..shards.scaler import Scaler


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("scale")(scale)


def scale(
    study: StudyOption = HERE, params: ParamsOption = None, threads: ThreadsOption = 1
) -> None:
    """Fit the scaler on the train split.

    Each recording loses its own mean over time (unless scale.remove_mean is false); then the
    exact median and interquartile range of each parcel are taken over all time points of all
    train recordings. Volumes that scrubbing marked and parcels that a recording does not cover
    do not count; parcels without data, or that never vary, are flagged and stay missing.
    Validation and test subjects are never seen. Puts together what `brainlm scale-brackets` and
    `brainlm scale-part` made, and makes itself what they did not. With scale.fitted, that scaler
    is checked and copied instead. Writes cohort/scaler.safetensors.
    """
    import shutil

    from ..provenance import sha256_file
    from ..shards.scaler import save_scaler
    from ._parcel_series import parcel_names

    run = StageRun("scale", study, params, software=("numpy", "pyarrow", "safetensors"))
    named = run.params["scale"]["fitted"]
    fitted = run.study.root / named if named else None
    scaler = _take_fitted(run, fitted) if fitted else _fit(run, threads)
    names = parcel_names(run.path("atlas_table"))
    unusable = [name for name, usable in zip(names, scaler.usable, strict=True) if not usable]
    if unusable:
        warn(
            f"{len(unusable)} parcels have no data or never vary in the train split and stay "
            f"missing everywhere: {', '.join(unusable[:5])}{', ...' if len(unusable) > 5 else ''}"
        )
    about = {
        **scaler.about,
        "method": scaler.method,
        "constants": scaler.constants,
        "UnusableParcels": unusable,
    }
    if fitted:
        about |= {"fitted_elsewhere": True, "fitted_sha256": sha256_file(fitted)}
    with run.output("scaler", about=about) as path:
        if fitted:  # byte by byte: shards of the same scaler, made before, stay as they are
            shutil.copyfile(fitted, path)
        else:
            save_scaler(path, scaler)
    say(
        f"scaler ({scaler.method}): {len(names) - len(unusable)} parcels, "
        f"{scaler.about['n_recordings']} train recordings"
    )


def _fit(run: StageRun, threads: int) -> Scaler:
    """The exact statistics of the train split; parts that are there save reading."""
    from dataclasses import replace

    from ..provenance import sha256_json
    from ..shards.constants import constants_of
    from ..shards.gather import fit_quantiles
    from ..shards.scaler import make_scaler

    train, mean_removed = read_train(run, threads), run.params["scale"]["remove_mean"]
    found = fit_quantiles(
        lambda brackets: _parts(run, train, brackets),
        _stored_brackets(run, train) or sample_brackets(train, mean_removed=mean_removed),
    )
    low, median, high = found.quartiles
    subjects = sorted({row["subject"] for row in train.recordings})
    repetition_times = {row["tr"] for row in train.recordings}
    about = {
        **train.about(),
        "subjects_sha256": sha256_json(subjects),
        "data_sha256": sha256_json(sorted(row["timeseries_sha256"] for row in train.recordings)),
        "n_subjects": len(subjects),
        "n_recordings": len(train.recordings),
        "n_volumes": sum(row["n_timepoints"] for row in train.recordings),
        "tr": repetition_times.pop() if len(repetition_times) == 1 else None,
    }
    scaler = make_scaler(
        median, high - low, about, run.params["scale"]["method"], mean_removed=mean_removed
    )
    return replace(scaler, constants=constants_of(found, scaler))


def _stored_brackets(run: StageRun, train: Train) -> Brackets | None:
    """Those of `brainlm scale-brackets`, if they were sampled from this train split."""
    from ..shards.brackets import load_brackets

    path = run.path("scaler_brackets")
    if not path.exists():
        return None
    brackets, about = load_brackets(path)
    expected = {**train.about(), "mean_removed": run.params["scale"]["remove_mean"]}
    return brackets if _is_of(about, expected) else None


def _parts(run: StageRun, train: Train, brackets: Brackets) -> Sequence[Part]:
    """Partial statistics of the whole train split: the stored ones, and the rest made now."""
    from ..shards.parts import load_part

    parts, rest = [], []
    for shard, rows in train.rows.items():
        path = run.path("scaler_part", shard=shard)
        expected = {
            "atlas_sha256": train.atlas_sha256,
            "plans": {shard: train.plans[shard]},
            "brackets_sha256": brackets.sha256,
        }
        part, about = load_part(path) if path.exists() else (None, {})
        if part is not None and _is_of(about, expected):
            parts.append(part)
        else:
            rest += rows
    return [*parts, *measure_in_scratch(train, rest, brackets)]


def _is_of(about: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    return all(about.get(key) == value for key, value in expected.items())


def _take_fitted(run: StageRun, path: Path) -> Scaler:
    """The scaler that the config names, if it fits this study."""
    from ..errors import InputError
    from ..provenance import sha256_file
    from ..shards.scaler import load_scaler

    if not path.is_file():
        raise InputError(
            "The scaler of scale.fitted does not exist",
            file=path,
            fix="name the normalization.safetensors of a model or of a shards folder, relative to "
            "the study folder",
        )
    if path.is_relative_to(run.study.root):
        run.source(path)
    else:
        run.sources[f"fitted::{path.name}"] = sha256_file(path)
    scaler = load_scaler(path)
    _check_fitted(run, scaler, path)
    return scaler


def _check_fitted(run: StageRun, scaler: Scaler, path: Path) -> None:
    from ..errors import InputError
    from ..provenance import sha256_file

    if scaler.about.get("atlas_sha256") != sha256_file(run.source(run.path("atlas_table"))):
        raise InputError(
            "The scaler of scale.fitted was fitted on another atlas than this study's",
            file=path,
            fix="choose the atlas it was fitted on (atlas.name), or fit anew: scale.fitted: null",
        )
    if scaler.method != run.params["scale"]["method"]:
        raise InputError(
            f"The scaler of scale.fitted scales by {scaler.method}, scale.method is "
            f"{run.params['scale']['method']}",
            file=path,
            fix=f"set scale.method: {scaler.method}",
        )
    if scaler.mean_removed != run.params["scale"]["remove_mean"]:
        raise InputError(
            "The scaler of scale.fitted was fitted "
            + ("after" if scaler.mean_removed else "without")
            + " removing each recording's mean",
            file=path,
            fix=f"set scale.remove_mean: {str(scaler.mean_removed).lower()}",
        )
    wanted, given = run.params["timing"]["tr"], scaler.about.get("tr")
    if wanted and given and abs(wanted / given - 1) > run.params["timing"]["tolerance"]:
        raise InputError(
            f"The scaler of scale.fitted was fitted at a TR of {given:g} s, timing.tr is "
            f"{wanted:g} s",
            file=path,
            fix=f"set timing.tr: {given:g}, or fit anew: scale.fitted: null",
        )
