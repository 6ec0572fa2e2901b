"""A finished study made of small real files, written by the contracts between the stages."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from brainlm.atlas.table import load_table
from brainlm.config import Config, Target, to_commented_yaml
from brainlm.denoise.components import classified, component_names
from brainlm.denoise.judge import write_metrics, write_mixing
from brainlm.files import write_json, write_text
from brainlm.geometry import write_itk_affines
from brainlm.images import write_image
from brainlm.layout import Study, entities_of, folder_of
from brainlm.provenance import write_sidecar
from brainlm.recordings import COLUMNS
from brainlm.stages import stage_params
from brainlm.tissues import Tissues, load_tissues
from brainlm.warps import Warp, write_warp

TR, VOLUMES, PARCELS = 0.8, 240, 424
EXCLUDED, FAILED, SHORT = "sub-07_task-rest", "sub-08_task-rest", "sub-09_task-rest"


class FinishedStudy:
    """Writes a study of nine subjects: six included, one each excluded, failed, too short."""

    def __init__(self, root: Path, *, seed: int = 0, resolution_mm: float = 2.0):
        self.study = Study(root)
        self.random = np.random.default_rng(seed)
        self.config = Config(
            name="Test & study",
            atlas={"name": "A424approx"},
            space={"resolution_mm": resolution_mm},
            finetune={"targets": (Target(name="age"), Target(name="sex", kind="binary"))},
        )
        self.fields = {**self.config.labels, "run": self.config.pretrain.run}
        self.ids = [f"sub-{number:02d}_task-rest" for number in range(1, 10)]
        self.included = self.ids[:6]

    def write(self) -> FinishedStudy:
        write_text(self.study.path("config"), to_commented_yaml(self.config))
        self.write_recordings()
        for name in self.ids[:7]:
            self.write_derivatives(name)
        self.write_failure(FAILED)
        self.write_cohort()
        self.write_model()
        self.write_evaluation()
        return self

    def path(self, kind: str, **fields: str) -> Path:
        return self.study.path(kind, **{**self.fields, **fields})

    def of_recording(self, kind: str, name: str) -> Path:
        folder = folder_of(name)
        anat = {"anat": folder_of(name), "anat_folder": folder}
        path = self.path(kind, recording=name, folder=folder, **anat)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def sidecar(self, path: Path, stage: str, name: str | None = None, **fields: object) -> None:
        write_sidecar(
            path,
            stage=stage,
            code_digest=hashlib.sha256(stage.encode()).hexdigest()[:16],
            entities=entities_of(name) if name else {},
            sources={"bids::raw": "0" * 64},
            parameters=stage_params(stage, self.config),
            software={"brainlm": "0.1.0", "python": "3.11.0", "numpy": "2.0.0"},
            fields=fields,
        )

    def write_recordings(self) -> None:
        rows = []
        for number, name in enumerate(self.ids):
            short = name == SHORT
            rows.append(
                {
                    "recording_id": name,
                    "subject": name[4:6],
                    "task": "rest",
                    "dataset": "phantom",
                    "bold": f"{folder_of(name)}/func/{name}_bold.nii.gz",
                    "bold_sha256": "0" * 64,
                    "t1w": f"{folder_of(name)}/anat/{folder_of(name)}_T1w.nii.gz",
                    "anat_id": folder_of(name),
                    "n_volumes": 60 if short else VOLUMES,
                    "tr": TR,
                    "eligible": not short,
                    "reason": "60 volumes; at least 200 are needed" if short else None,
                    "label_age": 20.0 + 5 * number,
                    "label_sex": number % 2,
                }
            )
        table = (
            pd.DataFrame(rows).reindex(columns=[*COLUMNS, "label_age", "label_sex"]).astype(COLUMNS)
        )
        self.path("recordings").parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(self.path("recordings"))

    def write_derivatives(self, name: str) -> None:
        self.write_confounds(name)
        shape, zoom = (24, 28, 18), 7.0
        affine = np.diag([-zoom, zoom, zoom, 1.0])  # first axis towards the left
        affine[:3, 3] = [zoom * 11.5, -zoom * 13.5, -zoom * 6]
        grid = np.indices(shape).transpose(1, 2, 3, 0) - (np.array(shape) - 1) / 2
        mask = ((grid / [9.5, 11.5, 7.5]) ** 2).sum(axis=-1) < 1
        image = mask * (800 + 20 * self.random.standard_normal(shape)) + 20
        boldref, bold_mask = (self.of_recording(kind, name) for kind in ("boldref", "bold_mask"))
        write_image(boldref, image.astype(np.float32), affine)
        write_image(bold_mask, mask.astype(np.uint8), affine)
        for path in (self.of_recording("motion", name), boldref, bold_mask):
            self.sidecar(path, "motion", name)

        tissue = np.repeat(np.array([1, 2, 3], dtype=np.int8), (700, 300, 100))
        noise = self.random.standard_normal((len(tissue), VOLUMES))
        drift = np.linspace(-2, 2, VOLUMES)
        carpet = self.of_recording("carpet", name)
        save_file(
            {
                "before": ((noise + drift) / np.hypot(1, drift.std())).astype(np.float16),
                "after": (noise / np.hypot(1, drift.std())).astype(np.float16),
                "tissue": tissue,
            },
            carpet,
        )
        self.sidecar(carpet, "denoise", name)

        voxels = self.random.integers(5, 60, PARCELS)
        usable = np.minimum(voxels, self.random.integers(3, 80, PARCELS))
        coverage = self.of_recording("coverage", name)
        pd.DataFrame(
            {
                "index": np.arange(1, PARCELS + 1),
                "name": [f"parcel{number}" for number in range(PARCELS)],
                "n_voxels": voxels,
                "n_usable": usable,
                "coverage": usable / voxels,
            }
        ).to_csv(coverage, sep="\t", index=False)
        series = self.of_recording("timeseries", name)
        series.write_bytes(b"only its existence counts here")
        for kind, stage in (("mni_mask", "resample"), ("boldref_to_mni", "normalize-bold")):
            path = self.of_recording(kind, name)
            path.write_bytes(b"not read by the report")
            self.sidecar(path, stage, name)
        self.of_recording("t1w_to_mni", name).write_bytes(b"not read by the report")
        self.sidecar(coverage, "parcellate", name)
        self.sidecar(series, "parcellate", name)

    def write_quality(self, names: list[str]) -> None:
        """Real files in place of those that only the pages of quality control read."""
        tissues = load_tissues(self.config.space.template, self.config.space.resolution_mm)
        labels = np.where(
            tissues.brain, np.arange(tissues.brain.size).reshape(tissues.brain.shape), 0
        )
        labels = np.where(tissues.brain, labels % PARCELS + 1, 0).astype(np.int16)
        self.path("atlas_table").parent.mkdir(parents=True, exist_ok=True)
        write_image(self.path("atlas_image"), labels, tissues.affine, in_mni=True)
        load_table().to_csv(self.path("atlas_table"), sep="\t", index=False, na_rep="n/a")
        for name in names:
            mask, to_mni = (self.of_recording(k, name) for k in ("mni_mask", "boldref_to_mni"))
            write_image(mask, tissues.brain.astype(np.uint8), tissues.affine, in_mni=True)
            self.sidecar(mask, "resample", name)
            write_itk_affines(to_mni, [np.eye(4)])
            self.sidecar(to_mni, "normalize-bold", name)
            warp, still = self.of_recording("t1w_to_mni_warp", name), (*tissues.brain.shape, 3)
            write_warp(warp, Warp(np.zeros(still, np.float32), tissues.affine))
            self.sidecar(warp, "normalize-anat", folder_of(name))
            carpet = self.of_recording("carpet", name)
            snr = 50 + 10 * self.random.random(int(tissues.brain.sum()))
            maps = {
                "tsnr_before": snr.astype(np.float16),
                "tsnr_after": (2 * snr).astype(np.float16),
            }
            save_file({**load_file(carpet), **maps}, carpet)
            self.sidecar(carpet, "denoise", name, DegreesOfFreedom=180.0, VarianceRemoved=0.4)
            values = self.random.standard_normal((VOLUMES, PARCELS)).astype(np.float32)
            series = self.of_recording("timeseries", name)
            pd.DataFrame(values, columns=load_table()["name"]).to_parquet(series)
            self.sidecar(series, "parcellate", name)
            self.write_components(name, tissues)

    def write_components(self, name: str, tissues: Tissues) -> None:
        """Three components: signal, at the brain's edge, in CSF."""
        features = pd.DataFrame(
            {
                "component": component_names(3),
                "edge_fract": [0.1, 0.9, 0.2],
                "csf_fract": [0.01, 0.02, 0.5],
                "max_RP_corr": [0.1, 0.9, 0.2],
                "HFC": [0.1, 0.2, 0.3],
                "variance_explained": [0.5, 0.3, 0.2],
            }
        )
        courses = self.random.standard_normal((VOLUMES, 3))
        mixing, maps, metrics = (
            self.of_recording(kind, name) for kind in ("ica_mixing", "ica_maps", "aroma_metrics")
        )
        write_mixing(mixing, pd.DataFrame(courses, columns=features["component"]))
        active = np.stack([tissues.gm > 0.5, tissues.wm > 0.5, tissues.csf > 0.5], axis=-1)
        write_image(maps, active.astype(np.float32), tissues.affine, tr=1.0, in_mni=True)
        write_metrics(metrics, classified(features))
        for path in (mixing, maps, metrics):
            self.sidecar(path, "ica", name)

    def write_confounds(self, name: str) -> None:
        walk = self.random.standard_normal((VOLUMES, 6)).cumsum(axis=0)
        walk *= np.array([0.02] * 3 + [0.0003] * 3)
        jerk = VOLUMES // 2
        walk[jerk:, 1] += 0.9
        moved = np.abs(np.diff(walk, axis=0)) * np.array([1] * 3 + [50] * 3)
        names = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
        table = pd.DataFrame(walk, columns=names)
        table["framewise_displacement"] = [np.nan, *moved.sum(axis=1)]
        motion = self.of_recording("motion", name)
        table.to_csv(motion, sep="\t", index=False, na_rep="n/a")
        dvars = 1 + 0.08 * self.random.standard_normal(VOLUMES)
        dvars[jerk] = 2.3
        table["std_dvars"] = [np.nan, *dvars[1:]]
        table["motion_outlier00"] = (np.arange(VOLUMES) == jerk).astype(int)
        confounds = self.of_recording("confounds", name)
        table.to_csv(confounds, sep="\t", index=False, na_rep="n/a")
        self.sidecar(confounds, "confounds", name)

    def write_failure(self, name: str) -> None:
        write_json(
            self.study.path("failure", recording=name),
            {
                "recording_id": name,
                "stage": "motion",
                "what": "3 of 240 volumes hold NaN or inf (first: volume 7)",
                "file": f"../bids/{folder_of(name)}/func/{name}_bold.nii.gz",
                "fix": "convert it anew from DICOM, or exclude the run",
            },
        )
        for kind in ("motion", "boldref", "bold_mask", "boldref_to_mni", "mni_mask"):
            self.of_recording(kind, name).write_bytes(b"")
        self.of_recording("t1w_to_mni", name).write_bytes(b"not read by the report")
        for kind in ("confounds", "carpet", "coverage", "timeseries"):
            self.of_recording(kind, name).write_bytes(b"")

    def write_cohort(self) -> None:
        table = pd.read_parquet(self.path("recordings"))
        table = table[table["recording_id"].isin(self.included)].copy()
        splits = ["train", "train", "train", "train", "val", "test"]
        table["split"] = splits
        table["mean_fd"] = [0.08, 0.12, 0.31, 0.1, 0.22, 0.15]
        table["share_parcels"] = [1.0, 0.98, 0.95, 1.0, 0.99, 0.97]
        self.path("cohort").parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(self.path("cohort"))
        self.sidecar(self.path("cohort"), "cohort")
        write_text(
            self.path("exclusions"),
            "recording_id\tstage\treason\n"
            f"{EXCLUDED}\tcohort\tmean FD 0.71 mm is above 0.55 mm\n"
            f"{FAILED}\tmotion\t3 of 240 volumes hold NaN or inf (first: volume 7)\n",
        )
        subjects = "".join(f"{n[4:6]}\t{s}\n" for n, s in zip(self.included, splits, strict=True))
        write_text(self.path("splits"), "subject\tsplit\n" + subjects)
        scaler = {
            "median": self.random.normal(0, 0.05, PARCELS).astype(np.float32),
            "iqr": self.random.gamma(20, 0.05, PARCELS).astype(np.float32),
        }
        save_file(scaler, self.path("scaler"))
        self.sidecar(self.path("scaler"), "scale")
        self.path("shards_index").parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(
            {
                "recording_id": self.included,
                "dataset": "ukb",
                "split": splits,
                "shard": [f"{s}-00000-of-00001.safetensors" for s in splits],
                "n_timepoints": VOLUMES,
                "tr": TR,
            }
        ).to_parquet(self.path("shards_index"))
        self.sidecar(self.path("shards_index"), "index-shards")

    def write_model(self) -> None:
        folder = self.path("model").parent
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {"embed": np.zeros((20, 64), np.float32), "head": np.zeros((64, 20), np.float32)},
            self.path("model"),
        )
        self.sidecar(self.path("model"), "pretrain")
        sizes = {"parcels": PARCELS, "patch": 20, "hidden": 64}
        write_json(folder / "config.json", {"model": sizes, "mask_ratio": 0.75, "head": None})
        lines = []
        for epoch in range(1, 21):
            for step in range(5 * epoch - 4, 5 * epoch + 1):
                loss = 0.4 + 0.6 * np.exp(-step / 30) + 0.02 * self.random.standard_normal()
                lines.append(
                    {"step": step, "epoch": epoch, "loss": loss, "lr": 1e-3, "grad_norm": 1.0}
                )
            val = 0.45 + 0.55 * np.exp(-epoch / 6)
            lines.append({"step": step, "epoch": epoch, "val_loss": val, "val_r2": 1 - val})
        write_text(self.path("model_log"), "".join(json.dumps(line) + "\n" for line in lines))
        for target in ("age", "sex"):
            finetuned = self.path("finetuned", target=target)
            finetuned.parent.mkdir(parents=True, exist_ok=True)
            save_file({"head": np.zeros((64, 1), np.float32)}, finetuned)
            self.sidecar(finetuned, "finetune")

    def write_phantom(self) -> None:
        whole = {"fd_r": 0.991, "displacement_mm": 0.04, "parcel_r": 0.62, "parcels": 420}
        write_json(
            self.path("phantom_check"),
            {
                "median": {"fd_r": 0.991, "displacement_mm": 0.04, "parcel_r": 0.62},
                "parcel_r": [None, *np.linspace(0.2, 0.9, 50).tolist()],
                "traits": {"n": 6, "age": {"marker_r_true": 0.8, "marker_r_recovered": -0.5}},
                "recordings": [
                    *({**whole, "recording_id": name} for name in self.included),
                    {"recording_id": FAILED, "parcel_r": None, "corrupted": "nan-volumes"},
                ],
            },
        )

    def write_evaluation(self) -> None:
        def around(value: float, width: float) -> dict[str, float]:
            return {"value": value, "ci_low": value - width, "ci_high": value + width}

        write_json(
            self.path("reconstruction"),
            {
                "metrics": {
                    "r2": around(0.412, 0.03),
                    "mse": around(0.58, 0.04),
                    "pearson": around(0.64, 0.02),
                },
                "baselines": {
                    "interpolation": {
                        "r2": around(0.12, 0.03),
                        "mse": around(0.9, 0.04),
                        "pearson": around(0.45, 0.02),
                    },
                    "zero": {
                        "r2": around(-0.001, 0.0005),
                        "mse": around(1.0, 0.04),
                        "pearson": {"value": None, "reason": "the prediction is constant"},
                    },
                },
                "n_subjects": 1,
                "n_recordings": 1,
                "mask_ratio": 0.75,
                "seed": 1,
            },
        )
        self.write_phantom()
        traces = []
        for parcel in (10, 200):
            true = np.sin(np.arange(200) / 7 + parcel) + 0.3 * self.random.standard_normal(200)
            masked = (np.arange(200) // 20) % 4 != 0
            predicted = np.sin(np.arange(200) / 7 + parcel)
            traces.append(
                pd.DataFrame(
                    {
                        "recording_id": self.included[5],
                        "parcel": parcel,
                        "t": np.arange(200),
                        "true": true,
                        "predicted": predicted,
                        "masked": masked,
                    }
                )
            )
        pd.concat(traces).to_parquet(self.path("reconstruction_traces"))
        for target, kind in (("age", "regression"), ("sex", "binary")):
            metric = "r2" if kind == "regression" else "auc"
            write_json(
                self.path("clinical", target=target),
                {
                    "target": target,
                    "kind": kind,
                    "metrics": {metric: around(0.7, 0.1)},
                    "baselines": {
                        "connectivity": {metric: around(0.6, 0.2)},
                        "motion": {"reason": "4 train subjects, 5 are needed"},
                    },
                    "n_train_subjects": 4,
                    "n_subjects": 1,
                    "n_recordings": 1,
                },
            )
            true = np.arange(6.0) if kind == "regression" else np.arange(6) % 2
            guess = true + 0.5 if kind == "regression" else 0.2 + 0.6 * true
            pd.DataFrame(
                {"recording_id": self.included, "true": true, "brainlm": guess}
            ).to_parquet(self.path("clinical_predictions", target=target))
