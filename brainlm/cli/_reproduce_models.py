"""`brainlm reproduce`: shards, the first steps of the training, and scores, again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import BrainLMError, DataError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..config import Config
    from ..layout import Study
    from ..recordings import Recording
    from ..reproduce.compare import Compared
    from ..reproduce.recorded import Recorded

#: Kinds of metrics.json -> the file of predictions that it was made of.
_SCORED = {"clinical": "clinical_predictions", "probe": "probe_predictions"}


def compare_shards(
    study: Study, scratch: Study, recordings: Sequence[Recording], config: Config, seen: Recorded
) -> list[Compared]:
    """What the cohort took of these recordings, and the tensors that their series become."""
    import numpy as np
    import pyarrow.parquet as pq

    from ..provenance import sha256_file
    from ..reproduce.compare import Compared, Distance, Verdict, judge
    from ..reproduce.tolerances import tolerance_of
    from ..shards.packing import pack
    from ..shards.reader import ShardReader
    from ._parcel_series import parcel_names, read_recording

    index = study.path("shards_index")
    if not index.exists():
        return []
    seen.note(index)
    seen.note(study.path("scaler"))
    reader = ShardReader(index)
    names = parcel_names(scratch.path("atlas_table", **config.labels))
    found = []
    for recording in recordings:
        if recording.id not in reader.table.index:
            continue
        shard = str(reader.table.loc[recording.id, "shard"]).removesuffix(".safetensors")
        shard = shard.split("-of-")[0]
        plan = study.path("shard_plan", shard=shard)
        seen.note(study.path("shard_part", shard=shard))
        rows = {row["recording_id"]: row for row in pq.read_table(plan).to_pylist()}
        row = rows[recording.id]
        again = scratch.root / row["timeseries"]
        if not again.exists() or again.stat().st_size == 0:
            continue
        now = sha256_file(again)
        same = now == row["timeseries_sha256"]
        taken = Verdict.bitwise if same else Verdict.told
        note = "" if same else "the cohort took another series than was made now"
        found.append(Compared("cohort", f"{study.relative(plan)}#{recording.id}", taken, note=note))
        what = f"{study.relative(study.path('shard', shard=shard))}#{recording.id}"
        stored = reader.view(recording.id)
        dtype = str(stored.dtype)
        try:
            series = read_recording(scratch.root, {**row, "timeseries_sha256": now}, names)
            made = pack(series, reader.scaler, dtype).values
        except BrainLMError as error:
            found.append(Compared("write-shard", what, Verdict.beyond, note=error.what))
            continue
        if made.tobytes() == np.ascontiguousarray(stored).tobytes():
            found.append(Compared("write-shard", what, Verdict.bitwise))
            continue
        distance = Distance.between({"series": stored}, {"series": made})
        found.append(judge("write-shard", what, distance, tolerance_of("write-shard")))
    return found


def compare_training(
    study: Study, scratch: Study, config: Config, seen: Recorded, steps: int
) -> tuple[list[Compared], str]:
    """The first steps of the pretraining again; and in words what was done, or why nothing was."""
    from ..provenance import is_tombstone
    from ..reproduce.compare import Compared, Verdict
    from ..reproduce.training import compare_log, compare_weights, first_steps
    from ..stages import stage_params

    path = study.path("model", run=config.pretrain.run)
    if not steps:
        return [], "Not asked for."
    if not path.exists() or is_tombstone(path):
        return [], "The study has no pretrained model yet."
    sidecar = seen.note(path)
    if sidecar is None or sidecar["Stage"] != "pretrain":
        return [], "The model was not trained in this study."
    if "WentOnFrom" in sidecar:
        return (
            [],
            "The training had gone on from another one's checkpoint, so it has no first step.",
        )
    log = study.path("model_log", run=config.pretrain.run)
    weights = scratch.path("model", run=config.pretrain.run)
    now = stage_params("pretrain", config)
    try:
        done = first_steps(study.path("shards_index"), sidecar, weights, steps, now)
    except (DataError, InputError) as error:
        broken = Compared("pretrain", study.relative(path), Verdict.beyond, note=error.what)
        return [broken], "It could not be done again."
    found = compare_log(study.relative(log), log, done)
    if done.ended:
        found.append(compare_weights(study.relative(path), path, weights))
        return found, f"All {done.steps} steps, and the weights that they end with."
    return found, f"The first {done.steps} of {done.total} steps."


def compare_scores(study: Study, config: Config, seen: Recorded) -> list[Compared]:
    """The scores that the recorded predictions give, against those recorded."""
    from ..reproduce.scores import compare_scores_of

    found: list[Compared] = []
    for kind, predictions in _SCORED.items():
        for target in config.finetune.targets:
            fields = {"run": config.pretrain.run, "target": target.name}
            metrics, table = study.path(kind, **fields), study.path(predictions, **fields)
            if seen.note(table) is not None and metrics.exists():
                found += compare_scores_of(study.relative(metrics), metrics, table)
    return found


def circumstances(seen: Recorded) -> dict[str, Any]:
    """A reproduction, by the same code, libraries and options; or a comparison, by others."""
    code, software = seen.other_code(), seen.other_software()
    return {
        "kind": "comparison" if code or software else "reproduction",
        "other_code": code,
        "other_software": software,
        "other_options": seen.other_options(),
    }
