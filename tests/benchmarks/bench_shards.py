"""Speed and memory of writing shards: `python -m tests.benchmarks.bench_shards`.

Recordings of 490 volumes and 424 parcels, float32. From arrays in memory: our stream, and the plain
way (scale all, convert, safetensors' save_file), CPU seconds, the best of three. Then the command
`brainlm write-shard` as a process, imports included, beside reading and decoding its files alone,
and its memory for two sizes of shard; the same command again, which finds the shard right and
keeps it; and `brainlm shards verify`'s look at it. The disk: as many bytes written and synced.
MB/s are of float32 input, all in one run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from brainlm.cli._parcel_series import parcel_names, read_recording
from brainlm.config import Config
from brainlm.layout import Study
from brainlm.parcellate.tables import write_series
from brainlm.provenance import sha256_file, write_sidecar
from brainlm.shards.packing import pack
from brainlm.shards.plan import write_plan
from brainlm.shards.scaler import Scaler, load_scaler, save_scaler
from brainlm.shards.series import Series
from brainlm.shards.verify import verify_shard
from brainlm.shards.writer import part_rows, shard_header, write_tensors
from brainlm.stages import params_to_json, stage_params

VOLUMES, PARCELS = 490, 424
MB = VOLUMES * PARCELS * 4 / 1e6
FEW, MANY = 50, 400
_THEN_PEAK = """
import atexit, re, time
peak = lambda: re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
atexit.register(lambda: print(peak(), time.process_time()))
from brainlm.cli import main
main()
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = _make_study(folder / "study")
        for dtype in ("float16", "float32"):
            _from_memory(folder, study, dtype)
        _the_command(study)
        _the_disk(folder)


def _make_study(root: Path) -> Study:
    """A study of which a shard of FEW and one of MANY recordings can be written."""
    study = Study(root)
    rng = np.random.default_rng(0)
    names = [f"P{number}" for number in range(PARCELS)]
    atlas = study.path("atlas_table", atlas="A424")
    atlas.parent.mkdir(parents=True)
    pd.DataFrame({"index": range(1, PARCELS + 1), "name": names}).to_csv(
        atlas, sep="\t", index=False
    )
    rows = []
    for number in range(MANY):
        path = root / f"series/{number}.parquet"
        path.parent.mkdir(exist_ok=True)
        values = (1000 + 10 * rng.standard_normal((VOLUMES, PARCELS))).astype(np.float32)
        write_series(path, names, SimpleNamespace(series=values))  # type: ignore[arg-type]
        rows.append(
            {
                "recording_id": f"sub-{number:04d}_task-rest",
                "subject": f"{number:04d}",
                "family": None,
                "timeseries": f"series/{number}.parquet",
                "timeseries_sha256": sha256_file(path),
                "source_tr": 0.735,
                "tr": 0.735,
                "resampled": False,
                "n_timepoints": VOLUMES,
                "censored": [],
            }
        )
    plans = {"train-00000": rows[:FEW], "train-00001": rows}
    for shard, some in plans.items():
        plan = study.path("shard_plan", shard=shard)
        plan.parent.mkdir(parents=True, exist_ok=True)
        write_plan(plan, pd.DataFrame(some))
    scaler = Scaler(
        rng.normal(0, 0.1, PARCELS),
        rng.uniform(10, 14, PARCELS),
        np.ones(PARCELS, bool),
        about={
            "atlas_sha256": sha256_file(atlas),
            "plans": {s: sha256_file(study.path("shard_plan", shard=s)) for s in plans},
        },
    )
    save_scaler(study.path("scaler"), scaler)
    write_sidecar(
        study.path("scaler"),
        stage="scale",
        code_digest="0",
        entities={},
        sources={},
        parameters={},
        software={},
    )
    return study


def _from_memory(folder: Path, study: Study, dtype: str) -> None:
    rng = np.random.default_rng(1)
    counted = np.ones(VOLUMES, bool)
    held = [
        Series((1000 + 10 * rng.standard_normal((PARCELS, VOLUMES))).astype(np.float32), counted)
        for _ in range(100)
    ]
    names = [f"r{number:03d}" for number in range(len(held))]
    lengths = dict.fromkeys(names, VOLUMES)
    scaler = load_scaler(study.path("scaler"))
    header = _header(lengths, dtype)

    def ours() -> None:
        packed = (pack(series, scaler, dtype) for series in held)
        write_tensors(folder / "ours", lengths, PARCELS, packed, header)

    def plainly() -> None:
        tensors = {
            name: np.ascontiguousarray(scaler.transform(series.values).astype(dtype).T)
            for name, series in zip(names, held, strict=True)
        }
        save_file(tensors, str(folder / "plain"))

    mine, plain = _cpu(ours), _cpu(plainly)
    packing = _cpu(lambda: [pack(series, scaler, dtype) for series in held])
    size = MB * len(held)
    print(
        f"from memory, {dtype}: {size / mine:.0f} MB/s of CPU time, hashes and errors included "
        f"({size / packing:.0f} without writing); the plain way, without them, "
        f"{size / plain:.0f} ({plain / mine:.2f}x)"
    )
    for name in ("ours", "plain"):
        (folder / name).unlink()


def _header(lengths: dict[str, int], dtype: str) -> dict[str, object]:
    return shard_header(
        split="train",
        dtype=dtype,
        method="robust",
        tr=dict.fromkeys(lengths, 0.735),
        atlas_sha256="a" * 64,
        scaler_sha256="b" * 64,
        plan_sha256="c" * 64,
        code="d" * 16,
    )


def _the_command(study: Study) -> None:
    import pyarrow.parquet as pq

    names = parcel_names(study.path("atlas_table", atlas="A424"))
    plan = study.path("shard_plan", shard="train-00000")
    rows = pq.read_table(plan).to_pylist()
    reading = _cpu(lambda: [read_recording(study.root, row, names) for row in rows]) / FEW
    _, few_cpu, few_peak = _run(study, "train-00000")
    many, many_cpu, many_peak = _run(study, "train-00001")
    each = (many_cpu - few_cpu) / (MANY - FEW)
    size = MB * MANY
    print(
        f"brainlm write-shard, {MANY} recordings ({size:.0f} MB): {many:.2f} s, CPU "
        f"{many_cpu:.2f} s: {size / many_cpu:.0f} MB/s per core with start and reading; "
        f"{MB / each:.0f} MB/s for each recording more, of which reading its file alone runs at "
        f"{MB / reading:.0f} ({each / reading:.2f}x its time)"
    )
    print(f"memory: {few_peak:.0f} MB for {FEW} recordings, {many_peak:.0f} MB for {MANY}")
    again, again_cpu, _ = _run(study, "train-00001")
    print(
        f"again, found right and kept: {again:.2f} s, CPU {again_cpu:.2f} s ({many / again:.1f}x)"
    )
    _verify(study.path("shard", shard="train-00001"))


def _run(study: Study, shard: str) -> tuple[float, float, float]:
    """Seconds, CPU seconds and the largest memory (MB) of the command as a process."""
    params = params_to_json(stage_params("write-shard", Config()))
    options = ["--study", str(study.root), "--params", params]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _THEN_PEAK, "write-shard", shard, *options],
        capture_output=True,
        text=True,
        check=True,
    )
    wall = time.perf_counter() - began
    peak, cpu = done.stdout.split()[-2:]
    return wall, float(cpu), int(peak) / 1024


def _verify(shard: Path) -> None:
    from brainlm.shards.tensorfile import about_of, open_tensors

    about = about_of(open_tensors(shard), shard)
    rows = pd.DataFrame(part_rows(shard.name, about))
    rows["split"], rows["tr"] = "train", 0.735
    assert not verify_shard(shard, rows, {}, PARCELS)
    seconds = _cpu(lambda: verify_shard(shard, rows, {}, PARCELS))
    print(f"verifying: {shard.stat().st_size / 1e6 / seconds:.0f} MB/s of the file, from memory")


def _the_disk(folder: Path) -> None:
    content = np.random.default_rng(2).bytes(1 << 28)
    began = time.perf_counter()
    with (folder / "plain").open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    rate = len(content) / 1e6 / (time.perf_counter() - began)
    print(f"this disk: {rate:.0f} MB/s written and synced, {2 * rate:.0f} of input as float16")


def _cpu(function: Callable[[], object]) -> float:
    seconds = []
    for _ in range(3):
        began = time.process_time()
        function()
        seconds.append(time.process_time() - began)
    return min(seconds)


if __name__ == "__main__":
    main()
