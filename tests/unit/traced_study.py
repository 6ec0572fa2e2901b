"""A study in which every file tells truly what it was made from, without anything computed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from brainlm.config import Config, Target, to_commented_yaml
from brainlm.files import write_json, write_text
from brainlm.layout import Study, entities_of, folder_of
from brainlm.provenance import sha256_file, sha256_json, write_sidecar
from brainlm.recordings import COLUMNS
from brainlm.report.gather import Findings, gather
from brainlm.report.reproducibility.base import About
from brainlm.report.reproducibility.options import Options
from brainlm.stages import code_digest

MACHINE = {"Device": "cpu", "Threads": 1, "Torch": "2.13.0"}


class TracedStudy:
    """Raw files, series, cohort, shards, a model with its checkpoint, and one metric."""

    def __init__(self, root: Path, subjects: int = 3):
        self.study = Study(root / "study")
        self.raw = root / "bids"
        self.config = Config(bids_dir=self.raw, finetune={"targets": (Target(name="age"),)})
        self.fields = {**self.config.labels, "run": self.config.pretrain.run}
        self.findings: Findings | None = None  # read once: they do not change in these tests
        self.ids = [f"sub-{number:02d}_task-rest" for number in range(1, subjects + 1)]

    def about(self, **options: object) -> About:
        self.findings = self.findings or gather(self.study, self.fields, ["age"], "study")
        return About(
            self.study, self.config, self.fields, ("age",), self.findings, Options(**options)
        )

    def copy_to(self, root: Path) -> TracedStudy:
        """The same study elsewhere, to be broken."""
        shutil.copytree(self.study.root.parent, root, dirs_exist_ok=True)
        copy = TracedStudy(root, len(self.ids))
        copy.findings = self.findings
        return copy

    def path(self, kind: str, name: str = "sub-01_task-rest", **fields: str) -> Path:
        own = {"recording": name, "folder": folder_of(name)}
        return self.study.path(kind, **{**self.fields, **own, **fields})

    def make(
        self,
        kind: str,
        stage: str,
        sources: Mapping[str, str],
        name: str | None = None,
        about: Mapping[str, object] | None = None,
        **fields: str,
    ) -> dict[str, str]:
        """Write a file and its sidecar; return it as the source of another."""
        path = self.path(kind, name, **fields) if name else self.path(kind, **fields)
        if not path.exists():
            write_text(path, f"{kind} {name} {fields}\n" * 9)
        write_sidecar(
            path,
            stage=stage,
            code_digest=code_digest(stage),
            entities=entities_of(name) if name else {},
            sources=sources,
            parameters={"seed": 1},
            software={"brainlm": "0.1.0", "numpy": "2.0.0"},
            fields=about,
            written=path if name else None,
        )
        return self.hashed(path)

    def hashed(self, path: Path) -> dict[str, str]:
        return {self.study.relative(path): sha256_file(path)}

    def write(self) -> TracedStudy:
        write_text(self.path("config"), to_commented_yaml(self.config))
        raw = {}
        for name in self.ids:
            raw[name] = f"{folder_of(name)}/func/{name}_bold.nii.gz"
            write_text(self.raw / raw[name], name)
        table = pd.DataFrame({"recording_id": self.ids, "subject": [n[4:6] for n in self.ids]})
        table["bold"] = [raw[name] for name in self.ids]
        table["bold_sha256"] = [sha256_file(self.raw / raw[name]) for name in self.ids]
        table["eligible"] = True
        table = table.reindex(columns=list(COLUMNS)).astype(COLUMNS)
        self.path("recordings").parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(self.path("recordings"))
        series = {}
        for name, digest in zip(self.ids, table["bold_sha256"], strict=True):
            made = {f"bids::{raw[name]}": digest}
            for kind, stage in (
                *(("motion", "motion"), ("denoised_bold", "denoise")),
                ("timeseries", "parcellate"),
            ):
                made = self.make(kind, stage, made, name)
            series |= made
            self.path("denoised_bold", name).unlink()  # as the workflow does
        self.write_shards(series)
        self.write_model()
        return self

    def write_shards(self, series: Mapping[str, str]) -> None:
        rows = pd.DataFrame({"timeseries": list(series), "timeseries_sha256": series.values()})
        for kind in ("cohort", "shard_plan"):
            path = self.path(kind, shard="train-00000")
            path.parent.mkdir(parents=True, exist_ok=True)
            rows.assign(recording_id=self.ids).to_parquet(path)
        cohort = self.make("cohort", "cohort", self.hashed(self.path("recordings")))
        plan = self.hashed(self.path("shard_plan", shard="train-00000"))
        scaler = self.make("scaler", "scale", plan)
        shard = self.path("shard", shard="train-00000")
        write_text(shard, "tensors")
        part = self.make(
            *("shard_part", "write-shard", {**plan, **scaler}),
            about={"ShardSha256": sha256_file(shard)},
            shard="train-00000",
        )
        index = self.path("shards_index")
        pd.DataFrame({"recording_id": self.ids, "split": "train"}).to_parquet(index)
        self.make("shards_index", "index-shards", {**cohort, **scaler, **part})

    def write_model(self) -> None:
        index = self.hashed(self.path("shards_index"))
        model = self.make("model", "pretrain", index, about=MACHINE)
        made_of = {
            "options": {"seed": 1},
            "data": {"index.parquet": sha256_file(self.path("shards_index"))},
            "code": code_digest("pretrain"),
            "machine": MACHINE,
        }
        place = self.path("model").parent / "checkpoints" / sha256_json(made_of)[:16]
        write_json(place / "made-of.json", made_of)
        write_json(place.with_name("0" * 16) / "made-of.json", {**made_of, "options": {"seed": 2}})
        write_sidecar(
            self.path("reconstruction"),
            stage="evaluate-reconstruction",
            code_digest=code_digest("evaluate-reconstruction"),
            entities={},
            sources={**model, **index},
            parameters={},
            software={},
            fields={"metrics": {"r2": {"value": 0.4, "ci_low": 0.3, "ci_high": 0.5}}},
        )

    def benchmark(self, name: str, seconds: float, megabytes: float, cpu: float) -> None:
        head = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time"
        row = f"{seconds}\t0:00:01\t{megabytes}\t1\t1\t1\t0\t0\t50\t{cpu}"
        write_text(self.study.root / "benchmarks" / name, f"{head}\n{row}\n")

    def machine(self, job: str, **told: object) -> None:
        path = self.path("machine_log", job=job)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as out:
            out.write(json.dumps({"stage": job.partition("-")[0], "device": "cpu", **told}) + "\n")


class Aliases:
    """A shareable page's way of speaking, for tests of single sections."""

    k = 5

    def recording(self, recording_id: str) -> str:
        return f"recording {len(recording_id)}"

    def subject(self, subject: str) -> str:
        return "somebody"

    def path(self, path: str) -> str:
        return path if "sub-" not in path else "a file of somebody"

    def count(self, number: int) -> str:
        return str(number) if number >= 10 else "fewer than 10"
