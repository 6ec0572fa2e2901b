"""A study of one moving run whose motion and place in the standard space are known, not found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from brainlm.config import load_config
from brainlm.geometry import MOTION_NAMES, grid_center, pose_from_params, write_itk_affines
from brainlm.layout import Study, entities_of, folder_of
from brainlm.provenance import write_sidecar

from .synthetic_head import make_study, moving_run


def registered_study(
    root: Path, params: np.ndarray, *, affine: np.ndarray, shape: tuple[int, ...], config: str
) -> tuple[Study, str]:
    """The study as motion and registration leave it; `params` (T, 6) in mm and rad."""
    run, _ = moving_run(params, affine=affine, shape=shape)
    folder, identifier = make_study(root, run, affine, config=config)
    study = Study(folder)

    def path_of(kind: str) -> Path:
        path = study.path(kind, **fields_of(study, identifier))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sidecar(
            path,
            stage="motion",
            code_digest="0",
            entities=entities_of(identifier),
            sources={},
            parameters={},
            software={},
            fields={"NonSteadyStateVolumes": 0},
        )
        return path

    center = grid_center(shape, affine)
    write_itk_affines(path_of("hmc_xfm"), [pose_from_params(row, center) for row in params])
    write_itk_affines(path_of("boldref_to_mni"), [np.eye(4)])
    moved = np.abs(np.diff(params, axis=0)) @ [1, 1, 1, 50, 50, 50]
    table = pd.DataFrame(params, columns=list(MOTION_NAMES))
    table["framewise_displacement"] = table["rmsd"] = [np.nan, *moved]
    table.to_csv(path_of("motion"), sep="\t", index=False, na_rep="n/a")
    return study, identifier


def fields_of(study: Study, identifier: str) -> dict[str, str]:
    """What the names of the run's files are made of."""
    labels = load_config(study.path("config")).labels
    return {**labels, "recording": identifier, "folder": folder_of(identifier)}
