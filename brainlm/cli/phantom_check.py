"""`brainlm phantom-check`: compare what a study recovered with what its phantom knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._console import progress, say
from ._phantom_denoising import compare_methods, print_methods
from ._stage import HERE, ParamsOption, StageRun, StudyOption

if TYPE_CHECKING:
    import pandas as pd

    from ..phantom.parameters import Parameters


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("phantom-check")(phantom_check)


def phantom_check(
    study: StudyOption = HERE,
    params: ParamsOption = None,
    high_pass_s: Annotated[
        float, typer.Option(help="cut-off applied to both series before comparing, s; 0: none")
    ] = 100.0,
    ceiling: Annotated[
        bool,
        typer.Option(
            "--ceiling",
            help="also extract the parcels with the true transforms, from the data and from the "
            "same runs measured without noise: what could be reached (half a minute per run)",
        ),
    ] = False,
    denoising: Annotated[
        bool,
        typer.Option(
            "--denoising",
            help="also compare every denoise.method: what of the planted causes and of the neural "
            "signal each one leaves. Needs keep_intermediates and the results of `brainlm ica`",
        ),
    ] = False,
) -> None:
    """Compare what a study recovered with what its phantom knows.

    For each recording of the table whose results are there: the correlation of FD with the
    true FD, the error of the head's position (mean over volumes of the RMS over a sphere of
    80 mm, relative to the volume that the estimate took as reference), and the correlation
    of each parcel's series with the true one. Then the medians over recordings, without
    those that were corrupted on purpose, and how far the planted traits show. With --ceiling
    also what the true transforms would have given; with --denoising, over the runs whose
    normalised series and components are there, what each method of denoising leaves of the
    parts of the parcels' series. The result is qc/phantom_truth.json.

    A phantom's parcels are drawn in MNI152NLin2009aSym. Where the study reads them in another
    template, the motion scores hold as they are, but its parcels lie some mm from the true ones,
    and parcel r is lower than what the pipeline lost; the result says so.
    """
    from ..phantom.parameters import SPACE
    from ..provenance import software_versions, write_sidecar
    from ..recordings import read_table

    run = StageRun("phantom-check", study, params, software=("numpy", "pandas", "pyarrow"))
    truth = _read_truth(run.bids_dir)
    recordings = read_table(run.source(run.study.path("recordings")))
    known = recordings[recordings["recording_id"].isin(truth["recordings"])]
    scores = {}
    for row in progress(known.to_dict("records"), "Comparing with the truth"):
        name = row["recording_id"]
        scores[name] = _score_recording(run, name, high_pass_s)
        if ceiling and "parcel_r" in scores[name] and name not in _faulty(truth):
            bold = run.bids_dir / row["bold"]
            scores[name] |= _ceilings(run, truth, name, bold, high_pass_s)
    summary = _summary(scores, truth, run.bids_dir)
    if denoising:
        summary["denoising"] = compare_methods(run, _parameters(truth), set(_faulty(truth)))
    summary["space"] = {"study": run.params["space"]["template"], "truth": SPACE}
    # A JSON file carries its provenance in itself instead of in a sidecar.
    write_sidecar(
        run.path("phantom_check"),
        stage=run.name,
        code_digest=run.code,
        entities={},
        sources=run.sources,
        parameters={**run.params, "high_pass_s": high_pass_s},
        software=software_versions(run.software),
        fields=summary,
    )
    _print(summary)
    if denoising:
        print_methods(summary["denoising"])


def _read_truth(bids_dir: Path) -> dict[str, Any]:
    from ..errors import InputError
    from ..files import read_json
    from ..phantom.parameters import TRUTH

    path = bids_dir / TRUTH / "phantom.json"
    if not path.exists():
        raise InputError(
            "The dataset of this study is not a (complete) phantom",
            file=path,
            fix="make one with `brainlm phantom`; only there is the truth known",
        )
    return dict(read_json(path))


def _parameters(truth: dict[str, Any]) -> Parameters:
    from ..phantom.parameters import Parameters

    return Parameters(**{**truth["parameters"], "corrupt": tuple(truth["parameters"]["corrupt"])})


def _score_recording(run: StageRun, recording: str, high_pass_s: float) -> dict[str, Any]:
    """What can be compared for one recording; empty files of given-up stages are passed over."""
    import pandas as pd

    from ..layout import entities_of, folder_of
    from ..phantom import network, score
    from ..phantom.parameters import TRUTH
    from ..provenance import read_sidecar

    run.entities = entities_of(recording)
    fields = {"recording": recording, "folder": folder_of(recording)}
    base = run.bids_dir / TRUTH / fields["folder"] / "func" / recording
    found: dict[str, Any] = {}
    if _is_there(run.path("motion", **fields)):
        estimated = pd.read_csv(run.input("motion", **fields), sep="\t", na_values="n/a")
        true = pd.read_csv(f"{base}_desc-truth_motion.tsv", sep="\t", na_values="n/a")
        found["motion"] = score.score_motion(estimated, true).to_json()
    if _is_there(run.path("timeseries", **fields)):
        path = run.input("timeseries", **fields)
        recovered = pd.read_parquet(path)
        series = pd.read_parquet(f"{base}_desc-truth_timeseries.parquet")
        kept = read_sidecar(path).get("KeptVolumes")
        if kept is not None:  # scrubbing took volumes out of the series
            series = series.iloc[kept].reset_index(drop=True)
        tr = 1 / _sampling_frequency(f"{base}_desc-truth_timeseries.json")
        found["parcel_r"] = score.score_series(recovered, series, tr, high_pass_s)
        found["looks_flipped"] = score.looks_flipped(recovered, series)
        groups = network.group_of(_table(list(series.columns)))
        for name, values in (("markers", recovered[series.columns]), ("true_markers", series)):
            found[name] = network.trait_markers(values.to_numpy(dtype=float), groups)
    run.entities = {}
    return found


def _ceilings(
    run: StageRun, truth: dict[str, Any], recording: str, bold: Path, high_pass_s: float
) -> dict[str, Any]:
    """Scores of the series that the true transforms give, `noisy` and `noiseless`."""
    import pandas as pd

    from ..atlas.labels import read_labels
    from ..layout import folder_of
    from ..phantom import score
    from ..phantom.ceiling import ceilings
    from ..phantom.dataset import Job
    from ..phantom.parameters import TRUTH, plan_runs
    from ..phantom.traits import draw_traits
    from .phantom import load_atlas

    parameters = _parameters(truth)
    table, labels, _ = load_atlas(parameters.atlas)
    job = Job(run.bids_dir, parameters, table, labels, draw_traits(parameters))
    scan = next(scan for scan in plan_runs(parameters) if scan.id == recording)
    base = run.bids_dir / TRUTH / folder_of(recording) / "func" / recording
    atlas = read_labels(run.source(run.path("atlas_image")))
    found = ceilings(job, scan, bold, base, atlas, table["index"].to_numpy())
    series = pd.read_parquet(f"{base}_desc-truth_timeseries.parquet")
    return {
        f"ceiling_{kind}": score.score_series(
            pd.DataFrame(values, columns=list(table["name"])), series, scan.tr, high_pass_s
        )
        for kind, values in found.items()
    }


def _faulty(truth: dict[str, Any]) -> dict[str, str]:
    """What is wrong with each recording that was corrupted on purpose."""
    return {
        recording: kind
        for kind, fault in truth["corrupted"].items()
        for recording in fault["recordings"]
    }


def _summary(
    scores: dict[str, dict[str, Any]], truth: dict[str, Any], bids_dir: Path
) -> dict[str, Any]:
    import numpy as np
    import pandas as pd

    from ..phantom.score import finite

    faulty = _faulty(truth)
    healthy = {name: found for name, found in scores.items() if name not in faulty}
    motion = [found["motion"] for found in healthy.values() if "motion" in found]
    parcel_r = pd.DataFrame(
        {name: found["parcel_r"] for name, found in healthy.items() if "parcel_r" in found}
    )
    medians: dict[str, float | None] = {
        name: finite(np.nanmedian([np.nan if m[name] is None else m[name] for m in motion]))
        for name in (motion[0] if motion else ())
    }
    if parcel_r.shape[1]:
        medians["parcel_r"] = finite(np.nanmedian(parcel_r.to_numpy()))
    best = {
        kind: pd.DataFrame({name: found[kind] for name, found in healthy.items() if kind in found})
        for kind in ("ceiling_noisy", "ceiling_noiseless")
    }
    medians |= {
        kind: finite(np.nanmedian(table.to_numpy())) for kind, table in best.items() if len(table)
    }
    return {
        "recordings_known": len(truth["recordings"]),
        "recordings_with_motion": len(motion),
        "recordings_with_series": parcel_r.shape[1],
        "median": medians,
        # In the order of the atlas; the medians over recordings.
        "parcel_r": [finite(r) for r in parcel_r.median(axis=1)],
        **{kind: [finite(r) for r in table.median(axis=1)] for kind, table in best.items()},
        "traits": _traits(healthy, bids_dir),
        "recordings": [
            {
                "recording_id": name,
                **found.get("motion", {}),
                **({"looks_flipped": found["looks_flipped"]} if "parcel_r" in found else {}),
                "parcel_r": finite(found["parcel_r"].median()) if "parcel_r" in found else None,
                "parcels": int(found["parcel_r"].notna().sum()) if "parcel_r" in found else 0,
                "corrupted": faulty.get(name),
            }
            for name, found in scores.items()
        ],
    }


def _traits(healthy: dict[str, dict[str, Any]], bids_dir: Path) -> dict[str, Any]:
    """Whether the planted traits show in the recovered series, over subjects."""
    import pandas as pd

    from ..layout import entities_of
    from ..phantom.network import MARKER_GROUP
    from ..phantom.parameters import TRUTH
    from ..phantom.score import trait_recovery
    from ..phantom.traits import traits_of

    whole = {name: found for name, found in healthy.items() if "markers" in found}
    if not whole:
        return {"n": 0}
    subjects = [entities_of(name)["sub"] for name in whole]
    tables = {
        kind: pd.DataFrame([found[kind] for found in whole.values()], columns=list(MARKER_GROUP))
        .groupby(subjects)
        .mean()
        for kind in ("markers", "true_markers")
    }
    table = pd.read_csv(bids_dir / TRUTH / "traits.tsv", sep="\t")
    planted = pd.DataFrame(
        [traits_of(table, subject).standard for subject in tables["markers"].index],
        columns=list(MARKER_GROUP),
    )
    return {
        "n": len(planted),
        **trait_recovery(tables["markers"], tables["true_markers"], planted),
    }


def _table(parcels: list[str]) -> pd.DataFrame:
    from ..atlas import load_table

    return load_table().set_index("name").loc[parcels].reset_index()


def _is_there(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _sampling_frequency(path: str) -> float:
    from ..files import read_json

    return float(read_json(path)["SamplingFrequency"])


def _print(summary: dict[str, Any]) -> None:
    """A short table: one line per recording, then the medians."""

    def shown(value: float | None, digits: int = 3) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    width = max([len(row["recording_id"]) for row in summary["recordings"]] + [9])
    say(f"{'recording':<{width}}  FD r    error mm  parcel r  parcels")
    for row in summary["recordings"]:
        note = f"  {row['corrupted']}" if row["corrupted"] else ""
        note += "  looks flipped" if row.get("looks_flipped") else ""
        say(
            f"{row['recording_id']:<{width}}  {shown(row.get('fd_r')):<6}  "
            f"{shown(row.get('displacement_mm')):<8}  {shown(row['parcel_r']):<8}  "
            f"{row['parcels']}{note}"
        )
    median = summary["median"]
    say(
        f"{'median':<{width}}  {shown(median.get('fd_r')):<6}  "
        f"{shown(median.get('displacement_mm')):<8}  {shown(median.get('parcel_r'))}"
    )
    if summary["space"]["study"] != summary["space"]["truth"]:
        say(
            f"The true parcels are drawn in {summary['space']['truth']}, the study's in "
            f"{summary['space']['study']}: parcel r is lower for that alone"
        )
    for kind, text in (
        ("ceiling_noisy", "the true transforms would give"),
        ("ceiling_noiseless", "and without noise"),
    ):
        if kind in median:
            share = median["parcel_r"] / median[kind]
            say(f"{text} {shown(median[kind])}; recovered is {share:.0%} of it")
    for trait, found in summary["traits"].items():
        if trait != "n":
            say(
                f"{trait}: marker r {shown(found['marker_r_recovered'])} recovered, "
                f"{shown(found['marker_r_true'])} true, over {summary['traits']['n']} subjects"
            )
