"""A study whose names, places and values cannot be taken for anything else.

What is shareable is searched for them; 60 people, so that most numbers may be told.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd

from brainlm.config import Config, Target, to_commented_yaml
from brainlm.files import write_json, write_text
from brainlm.layout import Study, folder_of
from brainlm.provenance import write_sidecar
from brainlm.recordings import COLUMNS
from brainlm.shards.leakage import leakage_proof
from brainlm.stages import stage_params

PEOPLE = 60
#: Who leaves where; the others are 40 to train, 6 to validate, 6 to test.
INELIGIBLE, FAILED, MOVED = (0, 1), (2, 3, 4), (5, 6, 7)
PATH, SITE, LABEL, HOST, USER = "PATHQ", "SITEQ", "LABELQ", "hostq17", "userq"
#: Of one person each: the longest run, the shortest repetition time.
LONGEST, SHORTEST = 2719307, 0.618379


class NamedStudy:
    """Writes it below `root`."""

    def __init__(self, root: Path):
        self.study = Study(root)
        self.config = Config(
            name="A study",
            bids_dir=f"/{PATH}/raw",
            atlas={"name": "A424approx"},
            containers={"image": f"docker://{HOST}.example/{USER}/brainlm:1@sha256:{'d' * 64}"},
            split={"external": {"site": [SITE]}, "family": "household"},
            finetune={
                "targets": (
                    Target(name="age"),
                    Target(name="group", kind="binary", positive=f"{LABEL}a"),
                )
            },
        )
        self.fields = {**self.config.labels, "run": self.config.pretrain.run}
        self.subjects = [f"XQZ{number:03d}" for number in range(PEOPLE)]
        self.ids = [f"sub-{name}_ses-SESQ{name[-1]}_task-rest" for name in self.subjects]
        self.ages = [20.1379 + number for number in range(PEOPLE)]
        gone = {*INELIGIBLE, *FAILED, *MOVED}
        self.included = [number for number in range(PEOPLE) if number not in gone]
        self.splits = ["train"] * 40 + ["val"] * 6 + ["test"] * 6

    @property
    def secrets(self) -> list[str]:
        """What nothing shareable may hold."""
        of_people = [*self.subjects, *self.ids, *(f"{age:.4f}" for age in self.ages)]
        return [*of_people, *map(self.raw_hash, self.ids), *self.everywhere]

    @property
    def everywhere(self) -> list[str]:
        """Those that stand in the study more than once."""
        numbers = [f"{LONGEST}", f"{LONGEST:,}", f"{LONGEST:g}", f"{SHORTEST:g}"]
        return ["XQZ", "SESQ", PATH, SITE, LABEL, HOST, USER, str(self.study.root), *numbers]

    def raw_hash(self, name: str) -> str:
        return hashlib.sha256(name.encode()).hexdigest()

    def path(self, kind: str, **fields: str) -> Path:
        path = self.study.path(kind, **{**self.fields, **fields})
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self) -> NamedStudy:
        write_text(self.path("config"), to_commented_yaml(self.config))
        table = self._recordings()
        table.to_parquet(self.path("recordings"))
        for number in FAILED:
            name = self.ids[number]
            why = {"stage": "motion", "what": f"{name} holds NaN", "file": f"/{PATH}/{name}"}
            write_json(self.path("failure", recording=name), {**why, "fix": "look at it"})
        for number in self.included:
            self._series(self.ids[number])
        self._cohort(table)
        self._scores()
        return self

    def _recordings(self) -> pd.DataFrame:
        rows = [
            {
                "recording_id": name,
                "subject": subject,
                "session": f"SESQ{subject[-1]}",
                "task": "rest",
                "dataset": "one",
                "site": SITE,
                "bold": f"{folder_of(name)}/func/{name}_bold.nii.gz",
                "bold_sha256": self.raw_hash(name),
                "n_volumes": LONGEST if number == FAILED[0] else 240,
                "tr": SHORTEST if number == FAILED[1] else 2.0,
                "eligible": number not in INELIGIBLE,
                "reason": f"{PATH}: 60 volumes; at least 200" if number in INELIGIBLE else None,
                "label_age": self.ages[number],
                "label_group": f"{LABEL}{'ab'[number % 2]}",
                "label_household": f"house{number}",
            }
            for number, (name, subject) in enumerate(zip(self.ids, self.subjects, strict=True))
        ]
        labels = ["label_age", "label_group", "label_household"]
        return pd.DataFrame(rows).reindex(columns=[*COLUMNS, *labels]).astype(COLUMNS)

    def _series(self, name: str) -> None:
        path = self.path("timeseries", recording=name, folder=folder_of(name))
        path.write_bytes(f"series of {name}".encode())
        raw = f"bids::{folder_of(name)}/func/{name}_bold.nii.gz"
        self._sidecar(path, "parcellate", {raw: self.raw_hash(name)})

    def _sidecar(self, path: Path, stage: str, sources: dict[str, str]) -> None:
        write_sidecar(
            path,
            stage=stage,
            code_digest=hashlib.sha256(stage.encode()).hexdigest()[:16],
            entities={},
            sources=sources,
            parameters=stage_params(stage, self.config),
            software={"brainlm": "0.1.0", "python": "3.11.0", "numpy": "2.0.0"},
            fields={"ProcessedBy": {"motion": f"the pipeline of {SITE}", "space": "fMRIPrep 23.1"}},
        )

    def _cohort(self, table: pd.DataFrame) -> None:
        cohort = table.iloc[self.included].copy().reset_index(drop=True)
        random = np.random.default_rng(0)
        cohort["split"] = self.splits
        cohort["family"] = [f"house{number}" for number in self.included]
        # Motion goes with age, coverage with nothing.
        cohort["mean_fd"] = 0.1 + 0.003 * cohort["label_age"] + random.normal(0, 0.01, len(cohort))
        cohort["share_parcels"] = 0.9 + 0.1 * (np.arange(len(cohort)) * 0.618034 % 1)
        cohort["n_timepoints"] = 240
        cohort["timeseries_sha256"] = [self.raw_hash(name) for name in cohort["recording_id"]]
        cohort.to_parquet(self.path("cohort"))
        sources = {
            self.study.relative(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in [
                self.path("recordings"),
                *(
                    self.path("timeseries", recording=name, folder=folder_of(name))
                    for name in cohort["recording_id"]
                ),
            ]
        }
        self._sidecar(self.path("cohort"), "cohort", sources)
        pairs = cohort[["subject", "split"]].drop_duplicates()
        pairs.to_csv(self.path("splits"), sep="\t", index=False)
        rows = [(self.ids[number], "cohort", "mean FD above 0.55 mm") for number in MOVED]
        rows += [(self.ids[number], "onboard", "60 volumes; at least 200") for number in INELIGIBLE]
        rows += [(self.ids[number], "motion", f"{PATH} holds NaN") for number in FAILED]
        out = pd.DataFrame(rows, columns=["recording_id", "stage", "reason"])
        out.to_csv(self.path("exclusions"), sep="\t", index=False)
        proof = leakage_proof(cohort, decided_by="draw", family="household")
        write_json(self.path("leakage"), proof)
        index = cohort.assign(shard=[f"{split}-00000.safetensors" for split in cohort["split"]])
        index.to_parquet(self.path("shards_index"))

    def _scores(self) -> None:
        names = [self.ids[number] for number in self.included[-6:]]
        table = pd.DataFrame({"recording_id": names, "true": self.ages[-6:], "brainlm": 0.5})
        table.to_parquet(self.path("clinical_predictions", target="age"))
        metrics = {"target": "age", "kind": "regression", "n_subjects": 6, "n_recordings": 6}
        proof = leakage_proof(
            pd.read_parquet(self.path("cohort")), decided_by="draw", family="household"
        )
        write_json(
            self.path("clinical", target="age"),
            {**metrics, "metrics": {"r2": {"value": 0.5}}, "baselines": {}}
            | {"split_sha256": proof["split_sha256"]},
        )
        write_text(
            self.study.root / "logs/motion.log",
            f"host: {HOST}\nuser: {USER}\n/home/{USER}/{self.subjects[0]}\n",
        )
        machine = {"stage": "pretrain", "device": "cpu", "host": HOST, "torch": "2.13.0"}
        write_text(self.path("machine_log", job="pretrain"), json.dumps(machine) + "\n")
